//! Table `members`: who may do what to a tenant. A tenant's first owner is written by a trigger, with the tenant itself.

use crate::api::id::{AccountId, TenantId};
use crate::api::member::{Member, Role};
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

fn read(row: &Row) -> Result<Member, StoreError> {
    Ok(Member {
        account_id: row.parse("account_id")?,
        email: row.text("email")?,
        role: row.word("role")?,
        added_by: row.opt_text("added_by")?,
        added_at: row.time("added_at")?,
    })
}

/// What the account is to the tenant, if anything.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn role_of(
    tx: &mut Tx,
    tenant: &TenantId,
    account: &AccountId,
) -> Result<Option<Role>, StoreError> {
    tx.fetch_optional(
        "SELECT role FROM members WHERE tenant_id = $1 AND account_id = $2",
        vec![tenant.as_str().into(), account.as_str().into()],
    )
    .await?
    .map(|row| row.word("role"))
    .transpose()
}

/// The member, if the account is one.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find(tx: &mut Tx, tenant: &TenantId, account: &AccountId) -> Result<Option<Member>, StoreError> {
    tx.fetch_optional(
        "SELECT members.*, accounts.email FROM members JOIN accounts ON accounts.id = members.account_id
         WHERE members.tenant_id = $1 AND members.account_id = $2",
        vec![tenant.as_str().into(), account.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The tenant's members, those who have been there longest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(tx: &mut Tx, tenant: &TenantId) -> Result<Vec<Member>, StoreError> {
    tx.fetch_all(
        "SELECT members.*, accounts.email FROM members JOIN accounts ON accounts.id = members.account_id
         WHERE members.tenant_id = $1 ORDER BY members.added_at, members.account_id",
        vec![tenant.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Adds a member, or gives one another role.
///
/// # Errors
/// The database fails.
pub async fn put(
    tx: &mut Tx,
    tenant: &TenantId,
    (account, role): (&AccountId, Role),
    added_by: &str,
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO members (tenant_id, account_id, role, added_by, added_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, account_id) DO UPDATE
             SET role = excluded.role, added_by = excluded.added_by, added_at = excluded.added_at",
        vec![
            tenant.as_str().into(),
            account.as_str().into(),
            word_of(&role).into(),
            added_by.into(),
            now.into(),
        ],
    )
    .await
    .map(drop)
}

/// Takes a member away; `false` where there was none.
///
/// # Errors
/// The database fails.
pub async fn remove(tx: &mut Tx, tenant: &TenantId, account: &AccountId) -> Result<bool, StoreError> {
    let removed = tx
        .execute(
            "DELETE FROM members WHERE tenant_id = $1 AND account_id = $2",
            vec![tenant.as_str().into(), account.as_str().into()],
        )
        .await?;
    Ok(removed == 1)
}

/// The owner, other than this account, who has been there longest.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn other_owner(
    tx: &mut Tx,
    tenant: &TenantId,
    than: &AccountId,
) -> Result<Option<Member>, StoreError> {
    let members = list(tx, tenant).await?;
    Ok(members
        .into_iter()
        .find(|member| member.role == Role::Owner && member.account_id != *than))
}
