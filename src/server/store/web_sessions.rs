//! `web_sessions`: browsers that are signed in; the cookie itself is never stored.

use crate::api::id::AccountId;
use crate::api::time::Time;
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
}

/// Inserts a session.
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, session: &WebSessionRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO web_sessions (token_hash, account_id, csrf_token, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
        vec![
            session.token_hash.as_str().into(),
            session.account_id.as_str().into(),
            session.csrf_token.as_str().into(),
            session.created_at.into(),
            session.expires_at.into(),
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
    let row = tx
        .fetch_optional(
            "SELECT token_hash, account_id, csrf_token, created_at, expires_at FROM web_sessions \
             WHERE token_hash = $1 AND expires_at > $2",
            vec![token_hash.into(), now.into()],
        )
        .await?;
    row.map(|row| {
        Ok(WebSessionRow {
            token_hash: row.text("token_hash")?,
            account_id: row.parse("account_id")?,
            csrf_token: row.text("csrf_token")?,
            created_at: row.time("created_at")?,
            expires_at: row.time("expires_at")?,
        })
    })
    .transpose()
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
