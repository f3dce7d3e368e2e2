//! `api_tokens`: long-lived credentials for programs, stored as their SHA-256.

use crate::api::id::{AccountId, TenantId, TokenId};
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One API token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTokenRow {
    /// Names the token.
    pub id: TokenId,
    /// Whose it is.
    pub account_id: AccountId,
    /// For the list.
    pub name: String,
    /// SHA-256 of the token.
    pub token_hash: String,
    /// What it may do, space-separated.
    pub scopes: String,
    /// Only this tenant.
    pub tenant_id: Option<TenantId>,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Time>,
    /// When it was ended early.
    pub revoked_at: Option<Time>,
}

pub(super) fn read(row: &Row) -> Result<ApiTokenRow, StoreError> {
    let tenant_id = match row.opt_text("tenant_id")? {
        Some(_) => Some(row.parse("tenant_id")?),
        None => None,
    };
    Ok(ApiTokenRow {
        id: row.parse("id")?,
        account_id: row.parse("account_id")?,
        name: row.text("name")?,
        token_hash: row.text("token_hash")?,
        scopes: row.text("scopes")?,
        tenant_id,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        last_used_at: row.opt_time("last_used_at")?,
        revoked_at: row.opt_time("revoked_at")?,
    })
}

/// Inserts a token.
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, token: &ApiTokenRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO api_tokens (id, account_id, name, token_hash, scopes, tenant_id, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        vec![
            token.id.as_str().into(),
            token.account_id.as_str().into(),
            token.name.as_str().into(),
            token.token_hash.as_str().into(),
            token.scopes.as_str().into(),
            token.tenant_id.as_ref().map(TenantId::as_str).into(),
            token.created_at.into(),
            token.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The token of that hash, ended or not.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find_by_hash(tx: &mut Tx, token_hash: &str) -> Result<Option<ApiTokenRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM api_tokens WHERE token_hash = $1",
        vec![token_hash.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The account's tokens that were not revoked, oldest first, after `after`.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list(
    tx: &mut Tx,
    account: &AccountId,
    after: &str,
    limit: u32,
) -> Result<Vec<ApiTokenRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM api_tokens WHERE account_id = $1 AND revoked_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        vec![account.as_str().into(), after.into(), limit.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Whether the token of that id has not been ended early.
///
/// # Errors
/// The statement fails.
pub async fn lasts(tx: &mut Tx, id: &TokenId) -> Result<bool, StoreError> {
    let found = tx
        .fetch_optional(
            "SELECT id FROM api_tokens WHERE id = $1 AND revoked_at IS NULL",
            vec![id.as_str().into()],
        )
        .await?;
    Ok(found.is_some())
}

/// Ends the token; `false` where the account has no such token.
///
/// # Errors
/// The statement fails.
pub async fn revoke(tx: &mut Tx, account: &AccountId, id: &TokenId, now: Time) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE api_tokens SET revoked_at = $1 WHERE id = $2 AND account_id = $3 AND revoked_at IS NULL",
            vec![now.into(), id.as_str().into(), account.as_str().into()],
        )
        .await?;
    Ok(changed == 1)
}

/// Writes down that the token was used.
///
/// # Errors
/// The statement fails.
pub async fn touch(tx: &mut Tx, id: &TokenId, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE api_tokens SET last_used_at = $1 WHERE id = $2",
        vec![now.into(), id.as_str().into()],
    )
    .await
    .map(drop)
}
