//! `idempotency_keys`: answers to keyed requests, kept so that a repeated request is answered and not done again.

use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// Which request a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Who asks.
    pub principal: String,
    /// Method and path.
    pub route: String,
    /// The client's own key.
    pub key: String,
}

/// What is kept of a keyed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRow {
    /// Fingerprint of the request's body.
    pub fingerprint: String,
    /// The answer, once there is one.
    pub answer: Option<StoredAnswer>,
    /// When the request came, or when it was last said that it is still being done.
    pub created_at: Time,
}

/// A stored answer; the body is sealed by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u32,
    /// Headers worth repeating, as a JSON object.
    pub headers: String,
    /// The sealed body.
    pub body: String,
}

/// Claims the key for a request that begins now; a key in use is [`StoreError::Duplicate`].
///
/// # Errors
/// The statement fails.
pub async fn claim(
    tx: &mut Tx,
    key: &RequestKey,
    fingerprint: &str,
    now: Time,
    expires_at: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO idempotency_keys (principal, route, key, fingerprint, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        vec![
            key.principal.as_str().into(),
            key.route.as_str().into(),
            key.key.as_str().into(),
            fingerprint.into(),
            now.into(),
            expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// What is kept under the key, unless it has ended by `now`.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, key: &RequestKey, now: Time) -> Result<Option<KeyedRow>, StoreError> {
    let row = tx
        .fetch_optional(
            "SELECT fingerprint, status, headers, body, created_at FROM idempotency_keys \
             WHERE principal = $1 AND route = $2 AND key = $3 AND expires_at > $4",
            vec![
                key.principal.as_str().into(),
                key.route.as_str().into(),
                key.key.as_str().into(),
                now.into(),
            ],
        )
        .await?;
    row.map(|row| {
        let answer = match row.opt_int("status")? {
            Some(_) => Some(StoredAnswer {
                status: row.u32("status")?,
                headers: row.text("headers")?,
                body: row.text("body")?,
            }),
            None => None,
        };
        Ok(KeyedRow {
            fingerprint: row.text("fingerprint")?,
            answer,
            created_at: row.time("created_at")?,
        })
    })
    .transpose()
}

/// Says that the request is still being done.
///
/// # Errors
/// The statement fails.
pub async fn renew(tx: &mut Tx, key: &RequestKey, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE idempotency_keys SET created_at = $1
         WHERE principal = $2 AND route = $3 AND key = $4 AND status IS NULL",
        vec![
            now.into(),
            key.principal.as_str().into(),
            key.route.as_str().into(),
            key.key.as_str().into(),
        ],
    )
    .await
    .map(drop)
}

/// Keeps the answer under a claimed key; `false` when somebody else has answered it, or nobody holds it.
///
/// # Errors
/// The statement fails.
pub async fn finish(tx: &mut Tx, key: &RequestKey, answer: &StoredAnswer) -> Result<bool, StoreError> {
    tx.execute(
        "UPDATE idempotency_keys SET status = $1, headers = $2, body = $3 \
         WHERE principal = $4 AND route = $5 AND key = $6 AND status IS NULL",
        vec![
            answer.status.into(),
            answer.headers.as_str().into(),
            answer.body.as_str().into(),
            key.principal.as_str().into(),
            key.route.as_str().into(),
            key.key.as_str().into(),
        ],
    )
    .await
    .map(|rows| rows == 1)
}

/// Takes the key from a claim that has died (made before `stale`), or whose answer has ended. A living one stays.
///
/// # Errors
/// The statement fails.
pub async fn release_dead(tx: &mut Tx, key: &RequestKey, now: Time, stale: Time) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM idempotency_keys WHERE principal = $1 AND route = $2 AND key = $3 \
         AND (expires_at <= $4 OR (status IS NULL AND created_at <= $5))",
        vec![
            key.principal.as_str().into(),
            key.route.as_str().into(),
            key.key.as_str().into(),
            now.into(),
            stale.into(),
        ],
    )
    .await
    .map(drop)
}

/// Gives the key back, so that the request may be made again.
///
/// # Errors
/// The statement fails.
pub async fn release(tx: &mut Tx, key: &RequestKey) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM idempotency_keys WHERE principal = $1 AND route = $2 AND key = $3",
        vec![
            key.principal.as_str().into(),
            key.route.as_str().into(),
            key.key.as_str().into(),
        ],
    )
    .await
    .map(drop)
}

/// Removes keys that ended before `now`, and claims older than `stale` whose answer never came.
///
/// # Errors
/// The statement fails.
pub async fn delete_expired(tx: &mut Tx, now: Time, stale: Time) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM idempotency_keys WHERE expires_at <= $1 OR (status IS NULL AND created_at <= $2)",
        vec![now.into(), stale.into()],
    )
    .await
}
