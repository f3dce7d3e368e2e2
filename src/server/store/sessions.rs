//! `sessions`: programs that are signed in; the refresh token is stored as its SHA-256 and changes at every use.

use crate::api::id::{AccountId, SessionId};
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One signed-in program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Names the session.
    pub id: SessionId,
    /// Whose it is.
    pub account_id: AccountId,
    /// What it may do, space-separated.
    pub scopes: String,
    /// The machine, as the program named it.
    pub device_name: String,
    /// SHA-256 of the refresh token that works now.
    pub refresh_hash: String,
    /// SHA-256 of the one before it.
    pub previous_hash: Option<String>,
    /// When the refresh token last changed.
    pub rotated_at: Time,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// When it was ended early.
    pub revoked_at: Option<Time>,
}

fn read(row: &Row) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        id: row.parse("id")?,
        account_id: row.parse("account_id")?,
        scopes: row.text("scopes")?,
        device_name: row.text("device_name")?,
        refresh_hash: row.text("refresh_hash")?,
        previous_hash: row.opt_text("previous_hash")?,
        rotated_at: row.time("rotated_at")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
        revoked_at: row.opt_time("revoked_at")?,
    })
}

/// Inserts a session.
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, session: &SessionRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO sessions (id, account_id, scopes, device_name, refresh_hash, rotated_at, created_at, \
         expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        vec![
            session.id.as_str().into(),
            session.account_id.as_str().into(),
            session.scopes.as_str().into(),
            session.device_name.as_str().into(),
            session.refresh_hash.as_str().into(),
            session.rotated_at.into(),
            session.created_at.into(),
            session.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The session of that id, ended or not.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, id: &SessionId) -> Result<Option<SessionRow>, StoreError> {
    tx.fetch_optional("SELECT * FROM sessions WHERE id = $1", vec![id.as_str().into()])
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// The sessions of an account that have not ended by `now`, the newest first.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list(tx: &mut Tx, account: &AccountId, now: Time) -> Result<Vec<SessionRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM sessions WHERE account_id = $1 AND revoked_at IS NULL AND expires_at > $2 \
         ORDER BY created_at DESC, id LIMIT 200",
        vec![account.as_str().into(), now.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Ends a session of an account; `false` where it has no such session (any more).
///
/// # Errors
/// The statement fails.
pub async fn end(
    tx: &mut Tx,
    (account, id): (&AccountId, &SessionId),
    now: Time,
) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND account_id = $3 AND revoked_at IS NULL \
             AND expires_at > $1",
            vec![now.into(), id.as_str().into(), account.as_str().into()],
        )
        .await?;
    Ok(changed == 1)
}

/// Puts the next refresh token in place of `current_hash`; `false` where somebody else was first.
///
/// # Errors
/// The statement fails.
pub async fn rotate(
    tx: &mut Tx,
    id: &SessionId,
    current_hash: &str,
    next_hash: &str,
    now: Time,
) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE sessions SET refresh_hash = $1, previous_hash = $2, rotated_at = $3 \
             WHERE id = $4 AND refresh_hash = $2 AND revoked_at IS NULL",
            vec![
                next_hash.into(),
                current_hash.into(),
                now.into(),
                id.as_str().into(),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Ends the session; one that has ended stays as it is.
///
/// # Errors
/// The statement fails.
pub async fn revoke(tx: &mut Tx, id: &SessionId, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL",
        vec![now.into(), id.as_str().into()],
    )
    .await
    .map(drop)
}
