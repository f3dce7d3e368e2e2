//! `signing_keys`: the ring of keys that access tokens are signed with; private halves are stored sealed.

use serde::{Deserialize, Serialize};

use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

/// What a key is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It signs; there is one.
    Signs,
    /// It is published and signs after the next rotation; there is one.
    Next,
    /// It verifies what it has signed.
    Former,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Names it in tokens.
    pub kid: String,
    /// The public half (`x` of its JWK).
    pub public_key: String,
    /// The private half, sealed.
    pub sealed_key: String,
    /// What it is good for.
    pub state: KeyState,
    /// When it was made.
    pub created_at: Time,
    /// Since when it signs.
    pub signs_from: Option<Time>,
    /// Until when a former one verifies.
    pub verifies_until: Option<Time>,
}

fn read(row: &Row) -> Result<SigningKeyRow, StoreError> {
    Ok(SigningKeyRow {
        kid: row.text("kid")?,
        public_key: row.text("public_key")?,
        sealed_key: row.text("sealed_key")?,
        state: row.word("state")?,
        created_at: row.time("created_at")?,
        signs_from: row.opt_time("signs_from")?,
        verifies_until: row.opt_time("verifies_until")?,
    })
}

/// Inserts a key, unless there is one in its place; `false` where there is.
///
/// # Errors
/// The statement fails.
pub async fn insert(tx: &mut Tx, key: &SigningKeyRow) -> Result<bool, StoreError> {
    let inserted = tx
        .execute(
            "INSERT INTO signing_keys (kid, public_key, sealed_key, state, created_at, signs_from) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            vec![
                key.kid.as_str().into(),
                key.public_key.as_str().into(),
                key.sealed_key.as_str().into(),
                word_of(&key.state).into(),
                key.created_at.into(),
                key.signs_from.into(),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// Every key, the newest first.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list(tx: &mut Tx) -> Result<Vec<SigningKeyRow>, StoreError> {
    tx.fetch_all("SELECT * FROM signing_keys ORDER BY created_at DESC, kid", vec![])
        .await?
        .iter()
        .map(read)
        .collect()
}

/// The key of that name.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, kid: &str) -> Result<Option<SigningKeyRow>, StoreError> {
    tx.fetch_optional("SELECT * FROM signing_keys WHERE kid = $1", vec![kid.into()])
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// The key in that place, of which there is one.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find_in(tx: &mut Tx, state: KeyState) -> Result<Option<SigningKeyRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM signing_keys WHERE state = $1",
        vec![word_of(&state).into()],
    )
    .await?
    .as_ref()
    .map(read)
    .transpose()
}

/// Makes the key that signs a former one; `false` where it does not sign (any more).
///
/// # Errors
/// The statement fails.
pub async fn retire(tx: &mut Tx, kid: &str, until: Time) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE signing_keys SET state = 'former', verifies_until = $1 WHERE kid = $2 AND state = 'signs'",
            vec![until.into(), kid.into()],
        )
        .await?;
    Ok(changed == 1)
}

/// Makes the next key the one that signs; `false` where it is not the next one (any more).
///
/// # Errors
/// The statement fails.
pub async fn promote(tx: &mut Tx, kid: &str, now: Time) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE signing_keys SET state = 'signs', signs_from = $1 WHERE kid = $2 AND state = 'next'",
            vec![now.into(), kid.into()],
        )
        .await?;
    Ok(changed == 1)
}

/// Removes former keys whose last token has expired by `now`.
///
/// # Errors
/// The statement fails.
pub async fn delete_ended(tx: &mut Tx, now: Time) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM signing_keys WHERE state = 'former' AND verifies_until <= $1",
        vec![now.into()],
    )
    .await
}

/// Removes every key: nothing that any of them has signed is good any more.
///
/// # Errors
/// The statement fails.
pub async fn delete_all(tx: &mut Tx) -> Result<u64, StoreError> {
    tx.execute("DELETE FROM signing_keys", vec![]).await
}
