//! Table `credential_grants`: one-time retrieval of a tenant's credentials, until it is confirmed or ends.

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// SHA-256 of the token, hex: what it is looked up by.
    pub token_hash: String,
    /// The token itself, sealed, so that its owner can be shown it again.
    pub sealed_token: String,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
}

/// Keeps a grant and ends every other one of the tenant.
///
/// # Errors
/// The database fails.
pub async fn insert(tx: &mut Tx, tenant: &TenantId, grant: &GrantRow) -> Result<(), StoreError> {
    remove_all(tx, tenant).await?;
    tx.execute(
        "INSERT INTO credential_grants (token_hash, tenant_id, sealed_token, created_at, expires_at,
             confirmed_at)
         VALUES ($1, $2, $3, $4, $5, NULL)",
        vec![
            grant.token_hash.as_str().into(),
            tenant.as_str().into(),
            grant.sealed_token.as_str().into(),
            grant.created_at.into(),
            grant.expires_at.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The tenant's grant that may still be used.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_open(tx: &mut Tx, tenant: &TenantId, now: Time) -> Result<Option<GrantRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM credential_grants
         WHERE tenant_id = $1 AND confirmed_at IS NULL AND expires_at > $2",
        vec![tenant.as_str().into(), now.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// Ends a grant because its credentials are safe with their owner; `false` when there is no open one of that hash.
///
/// # Errors
/// The database fails.
pub async fn confirm(
    tx: &mut Tx,
    tenant: &TenantId,
    token_hash: &str,
    now: Time,
) -> Result<bool, StoreError> {
    let rows = tx
        .execute(
            "UPDATE credential_grants SET confirmed_at = $3, sealed_token = ''
             WHERE tenant_id = $1 AND token_hash = $2 AND confirmed_at IS NULL AND expires_at > $3",
            vec![tenant.as_str().into(), token_hash.into(), now.into()],
        )
        .await?;
    Ok(rows == 1)
}

/// Removes every grant of a tenant.
///
/// # Errors
/// The database fails.
pub async fn remove_all(tx: &mut Tx, tenant: &TenantId) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM credential_grants WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await?;
    Ok(())
}

fn read(row: &Row) -> Result<GrantRow, StoreError> {
    Ok(GrantRow {
        token_hash: row.text("token_hash")?,
        sealed_token: row.text("sealed_token")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
    })
}
