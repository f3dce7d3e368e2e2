//! Table `support_grants`: doors that owners open for the server's operators. They close by themselves.

use crate::api::id::{SupportGrantId, TenantId};
use crate::api::member::{SupportAccess, SupportGrant};
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

fn read(row: &Row, now: Time) -> Result<SupportGrant, StoreError> {
    let expires_at = row.time("expires_at")?;
    let closed_at = row.opt_time("closed_at")?;
    Ok(SupportGrant {
        id: row.parse("id")?,
        access: row.word("access")?,
        open: closed_at.is_none() && now < expires_at,
        opened_by: row.text("opened_by")?,
        opened_at: row.time("opened_at")?,
        expires_at,
        closed_by: row.opt_text("closed_by")?,
        closed_at,
    })
}

/// Opens a door.
///
/// # Errors
/// The database fails.
pub async fn open(tx: &mut Tx, tenant: &TenantId, grant: &SupportGrant) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO support_grants (id, tenant_id, access, opened_by, opened_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        vec![
            grant.id.as_str().into(),
            tenant.as_str().into(),
            word_of(&grant.access).into(),
            grant.opened_by.as_str().into(),
            grant.opened_at.into(),
            grant.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// Every door that the tenant has had, newest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(tx: &mut Tx, tenant: &TenantId, now: Time) -> Result<Vec<SupportGrant>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM support_grants WHERE tenant_id = $1 ORDER BY id DESC",
        vec![tenant.as_str().into()],
    )
    .await?
    .iter()
    .map(|row| read(row, now))
    .collect()
}

/// The door by which an operator gets in now: the widest, and of those the one that is open longest.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn find_open(
    tx: &mut Tx,
    tenant: &TenantId,
    now: Time,
) -> Result<Option<SupportGrant>, StoreError> {
    let rows = tx
        .fetch_all(
            "SELECT * FROM support_grants WHERE tenant_id = $1 AND closed_at IS NULL AND expires_at > $2",
            vec![tenant.as_str().into(), now.into()],
        )
        .await?;
    let mut widest: Option<SupportGrant> = None;
    for row in &rows {
        let grant = read(row, now)?;
        let width = |grant: &SupportGrant| (grant.access == SupportAccess::Full, grant.expires_at);
        if widest.as_ref().is_none_or(|other| width(other) < width(&grant)) {
            widest = Some(grant);
        }
    }
    Ok(widest)
}

/// Closes a door; `false` where it is not one of the tenant's, or was closed.
///
/// # Errors
/// The database fails.
pub async fn close(
    tx: &mut Tx,
    tenant: &TenantId,
    id: &SupportGrantId,
    (by, now): (&str, Time),
) -> Result<bool, StoreError> {
    let closed = tx
        .execute(
            "UPDATE support_grants SET closed_by = $3, closed_at = $4
             WHERE tenant_id = $1 AND id = $2 AND closed_at IS NULL AND expires_at > $4",
            vec![tenant.as_str().into(), id.as_str().into(), by.into(), now.into()],
        )
        .await?;
    Ok(closed == 1)
}
