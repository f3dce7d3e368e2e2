//! Table `receipts`: what was seen to be absent when a tenant was deleted.

use serde_json::Value as Json;

use crate::api::id::{AccountId, TenantId};
use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// Keeps a receipt; a second call replaces it.
///
/// # Errors
/// The database fails.
pub async fn put(
    tx: &mut Tx,
    (tenant, owner): (&TenantId, &AccountId),
    body: &Json,
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO receipts (tenant_id, owner_id, body, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id) DO UPDATE SET body = excluded.body, created_at = excluded.created_at",
        vec![
            tenant.as_str().into(),
            owner.as_str().into(),
            body.to_string().into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The receipt of a deleted tenant.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find(tx: &mut Tx, tenant: &TenantId) -> Result<Option<Json>, StoreError> {
    tx.fetch_optional(
        "SELECT body FROM receipts WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await?
    .map(|row| row.json("body"))
    .transpose()
}
