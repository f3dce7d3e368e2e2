//! Lists of tenants: those that somebody may see, and all.

use crate::api::id::{AccountId, TenantId};
use crate::api::time::Time;
use crate::server::store::tenants::{TenantRow, read};
use crate::server::store::{StoreError, Tx};

/// The living tenants after `after` of which the account is a member, oldest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_by_member(
    tx: &mut Tx,
    account: &AccountId,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantRow>, StoreError> {
    tx.fetch_all(
        // Along the index of the account's tenants, in their order: what a page costs does not hang on how many there are.
        "SELECT tenants.* FROM members JOIN tenants ON tenants.id = members.tenant_id
         WHERE members.account_id = $1 AND members.tenant_id > $2 AND tenants.status <> 'deleted'
         ORDER BY members.tenant_id LIMIT $3",
        vec![
            account.as_str().into(),
            after.map_or("", TenantId::as_str).into(),
            limit.into(),
        ],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// The same for an operator, to whom doors are open.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_by_operator(
    tx: &mut Tx,
    account: &AccountId,
    now: Time,
    (after, limit): (Option<&TenantId>, u32),
) -> Result<Vec<TenantRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM tenants WHERE id IN (
                 SELECT own.id FROM (
                     SELECT tenants.id FROM members JOIN tenants ON tenants.id = members.tenant_id
                     WHERE members.account_id = $1 AND members.tenant_id > $2 AND tenants.status <> 'deleted'
                     ORDER BY members.tenant_id LIMIT $3) AS own
                 UNION SELECT tenant_id FROM support_grants WHERE closed_at IS NULL AND expires_at > $4)
             AND id > $2 AND status <> 'deleted' ORDER BY id LIMIT $3",
        vec![
            account.as_str().into(),
            after.map_or("", TenantId::as_str).into(),
            limit.into(),
            now.into(),
        ],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Every living tenant after `after`, oldest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_living(
    tx: &mut Tx,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM tenants WHERE id > $1 AND status <> 'deleted' ORDER BY id LIMIT $2",
        vec![after.map_or("", TenantId::as_str).into(), limit.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}
