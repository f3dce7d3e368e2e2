//! `web_sessions`: browsers that are signed in; the cookie itself is never stored.

use crate::api::id::AccountId;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSessionRow {
    /// SHA-256 of the cookie.
    pub token_hash: String,
    /// Who signed in.
    pub account_id: AccountId,
    /// What every form of this browser must carry.
    pub csrf_token: String,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// What the browser said that it is.
    pub user_agent: String,
    /// `password`, `link`, or the name of a provider.
    pub signed_in_by: String,
}

impl WebSessionRow {
    /// Names it in lists: the beginning of its hash, from which its cookie cannot be guessed.
    #[must_use]
    pub fn shown_id(&self) -> String {
        format!("brw_{}", self.token_hash.get(..26).unwrap_or(&self.token_hash))
    }
}

fn read(row: &Row) -> Result<WebSessionRow, StoreError> {
    Ok(WebSessionRow {
        token_hash: row.text("token_hash")?,
        account_id: row.parse("account_id")?,
        csrf_token: row.text("csrf_token")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        user_agent: row.text("user_agent")?,
        signed_in_by: row.text("signed_in_by")?,
    })
}

/// Inserts a session.
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, session: &WebSessionRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO web_sessions (token_hash, account_id, csrf_token, created_at, expires_at, user_agent, \
         signed_in_by) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        vec![
            session.token_hash.as_str().into(),
            session.account_id.as_str().into(),
            session.csrf_token.as_str().into(),
            session.created_at.into(),
            session.expires_at.into(),
            session.user_agent.as_str().into(),
            session.signed_in_by.as_str().into(),
        ],
    )
    .await
    .map(drop)
}

/// The session of that cookie, if it has not ended by `now`.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, token_hash: &str, now: Time) -> Result<Option<WebSessionRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM web_sessions WHERE token_hash = $1 AND expires_at > $2",
        vec![token_hash.into(), now.into()],
    )
    .await?
    .as_ref()
    .map(read)
    .transpose()
}

/// The sessions of an account that have not ended by `now`, the newest first.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list(tx: &mut Tx, account: &AccountId, now: Time) -> Result<Vec<WebSessionRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM web_sessions WHERE account_id = $1 AND expires_at > $2 \
         ORDER BY created_at DESC, token_hash LIMIT 200",
        vec![account.as_str().into(), now.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Ends one session.
///
/// # Errors
/// The statement fails.
pub async fn delete(tx: &mut Tx, token_hash: &str) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM web_sessions WHERE token_hash = $1",
        vec![token_hash.into()],
    )
    .await
    .map(drop)
}

/// Removes what ended before `now`.
///
/// # Errors
/// The statement fails.
pub async fn delete_expired(tx: &mut Tx, now: Time) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM web_sessions WHERE expires_at <= $1",
        vec![now.into()],
    )
    .await
}
