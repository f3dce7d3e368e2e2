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

/// How many tenants' keys each version of the master key has sealed.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn count_by_version(tx: &mut Tx) -> Result<Vec<(u32, u64)>, StoreError> {
    tx.fetch_all(
        "SELECT master_version, COUNT(*) AS keys FROM tenant_keys GROUP BY master_version ORDER BY master_version",
        vec![],
    )
    .await?
    .iter()
    .map(|row| Ok((row.u32("master_version")?, row.u64("keys")?)))
    .collect()
}

/// Tenants whose key another version has sealed, at most `limit`.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_not_of(
    tx: &mut Tx,
    version: u32,
    limit: u32,
) -> Result<Vec<(TenantId, TenantKeyRow)>, StoreError> {
    tx.fetch_all(
        "SELECT tenant_id, master_version, sealed_key FROM tenant_keys WHERE master_version <> $1
         ORDER BY tenant_id LIMIT $2",
        vec![version.into(), limit.into()],
    )
    .await?
    .iter()
    .map(|row| {
        let key = TenantKeyRow {
            master_version: row.u32("master_version")?,
            sealed_key: row.text("sealed_key")?,
        };
        Ok((row.parse("tenant_id")?, key))
    })
    .collect()
}

/// Puts the same key, sealed anew, in the place of the one that was read; nothing happens where it has changed since.
///
/// # Errors
/// The database fails.
pub async fn reseal(
    tx: &mut Tx,
    tenant: &TenantId,
    (read, sealed): (&TenantKeyRow, &TenantKeyRow),
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE tenant_keys SET master_version = $1, sealed_key = $2 WHERE tenant_id = $3 AND sealed_key = $4",
        vec![
            sealed.master_version.into(),
            sealed.sealed_key.as_str().into(),
            tenant.as_str().into(),
            read.sealed_key.as_str().into(),
        ],
    )
    .await?;
    Ok(())
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
