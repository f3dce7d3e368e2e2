//! Table `tenant_keys`: every tenant's data key, sealed under a version of the master key.

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantKeyRow {
    /// The version of the master key that sealed it.
    pub master_version: u32,
    /// The sealed key.
    pub sealed_key: String,
}

/// Keeps a tenant's key. The first one stays: a second call changes nothing.
///
/// # Errors
/// The database fails.
pub async fn insert(tx: &mut Tx, tenant: &TenantId, key: &TenantKeyRow, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO tenant_keys (tenant_id, master_version, sealed_key, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id) DO NOTHING",
        vec![
            tenant.as_str().into(),
            key.master_version.into(),
            key.sealed_key.as_str().into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The tenant's key, if it has one.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find(tx: &mut Tx, tenant: &TenantId) -> Result<Option<TenantKeyRow>, StoreError> {
    tx.fetch_optional(
        "SELECT master_version, sealed_key FROM tenant_keys WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await?
    .map(|row| {
        Ok(TenantKeyRow {
            master_version: row.u32("master_version")?,
            sealed_key: row.text("sealed_key")?,
        })
    })
    .transpose()
}

/// Destroys the tenant's key: what it sealed can not be read any more, in backups either.
///
/// # Errors
/// The database fails.
pub async fn remove(tx: &mut Tx, tenant: &TenantId) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM tenant_keys WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await?;
    Ok(())
}
