//! `sign_in_links`: one-time links that let somebody in without a password.

use crate::api::id::AccountId;
use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// Inserts a link for `account` that ends at `expires_at`.
///
/// # Errors
/// The statement fails.
pub async fn create(
    tx: &mut Tx,
    token_hash: &str,
    account: &AccountId,
    created_at: Time,
    expires_at: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO sign_in_links (token_hash, account_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        vec![
            token_hash.into(),
            account.as_str().into(),
            created_at.into(),
            expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// Whom the link would let in, while it is good.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, token_hash: &str, now: Time) -> Result<Option<AccountId>, StoreError> {
    tx.fetch_optional(
        "SELECT account_id FROM sign_in_links WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2",
        vec![token_hash.into(), now.into()],
    )
    .await?
    .map(|row| row.parse("account_id"))
    .transpose()
}

/// Uses the link up and answers whom it lets in; `None` where it is not good (any more).
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn consume(tx: &mut Tx, token_hash: &str, now: Time) -> Result<Option<AccountId>, StoreError> {
    tx.fetch_optional(
        "UPDATE sign_in_links SET used_at = $1 \
         WHERE token_hash = $2 AND used_at IS NULL AND expires_at > $1 RETURNING account_id",
        vec![now.into(), token_hash.into()],
    )
    .await?
    .map(|row| row.parse("account_id"))
    .transpose()
}
