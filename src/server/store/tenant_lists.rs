//! Lists of tenants: those that somebody may see, and all.

use crate::api::id::{AccountId, TenantId};
use crate::api::page::DEFAULT_LIMIT;
use crate::api::time::Time;
use crate::server::store::tenants::{TenantRow, read};
use crate::server::store::{StoreError, Tx};

/// One entry more than a page has that nobody gave a length: nearly every list is asked for so.
const USUAL_ROWS: u32 = 51;
const _: () = assert!(USUAL_ROWS == DEFAULT_LIMIT + 1, "statements spell it");

/// The living tenants of which account $1 is a member, after $2, each with its `place` in their order.
macro_rules! of_member {
    // SQLite looks each up, from the index of the account's tenants.
    (sqlite) => {
        "(SELECT tenants.*, members.tenant_id AS place FROM members JOIN tenants ON tenants.id = members.tenant_id
          WHERE members.account_id = $1 AND members.tenant_id > $2 AND tenants.status <> 'deleted') AS own"
    };
    // PostgreSQL would rather read both tables in the order of their ids, and every tenant before $2 with them.
    (postgres) => {
        "(SELECT tenants.*, members.tenant_id AS place FROM members
          CROSS JOIN LATERAL (SELECT * FROM tenants WHERE id = members.tenant_id AND status <> 'deleted' OFFSET 0) AS tenants
          WHERE members.account_id = $1 AND members.tenant_id > $2) AS own"
    };
}

/// The living tenants after `after` of which the account is a member, oldest first. What a page costs hangs neither on how
/// many there are nor on how far it is from the first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_by_member(
    tx: &mut Tx,
    account: &AccountId,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantRow>, StoreError> {
    let mut args = vec![account.as_str().into(), after.map_or("", TenantId::as_str).into()];
    // With the number in it PostgreSQL plans the statement once, not for every page: it cannot know what $3 will be.
    let planned_once = limit == USUAL_ROWS && !tx.is_sqlite();
    if !planned_once {
        args.push(limit.into());
    }
    let sql = if planned_once {
        concat!("SELECT * FROM ", of_member!(postgres), " ORDER BY place LIMIT 51")
    } else if tx.is_sqlite() {
        concat!("SELECT * FROM ", of_member!(sqlite), " ORDER BY place LIMIT $3")
    } else {
        concat!("SELECT * FROM ", of_member!(postgres), " ORDER BY place LIMIT $3")
    };
    tx.fetch_all(sql, args).await?.iter().map(read).collect()
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
    macro_rules! seen {
        ($engine:tt) => {
            concat!(
                "SELECT place FROM (SELECT place FROM ",
                of_member!($engine),
                " ORDER BY place LIMIT $3) AS first
                 UNION SELECT tenant_id FROM support_grants
                 WHERE closed_at IS NULL AND expires_at > $4 AND tenant_id > $2"
            )
        };
    }
    let args = vec![
        account.as_str().into(),
        after.map_or("", TenantId::as_str).into(),
        limit.into(),
        now.into(),
    ];
    let sql = if tx.is_sqlite() {
        concat!(
            "SELECT * FROM tenants WHERE id IN (",
            seen!(sqlite),
            ") AND status <> 'deleted' ORDER BY id LIMIT $3"
        )
    } else {
        concat!(
            "SELECT tenants.* FROM (",
            seen!(postgres),
            ") AS seen
             CROSS JOIN LATERAL (SELECT * FROM tenants WHERE id = seen.place AND status <> 'deleted' OFFSET 0) AS tenants
             ORDER BY seen.place LIMIT $3"
        )
    };
    tx.fetch_all(sql, args).await?.iter().map(read).collect()
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
