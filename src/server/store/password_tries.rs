//! `password_tries` and `known_places`: how often a password was wrong, and from where it was right before.

use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// What a try is answered before the password is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Try {
    /// It is the so-many-th in a row, counted as wrong until it is known to be right.
    Counted(i64),
    /// Not before this time.
    NotBefore(Time),
}

/// Counts a try of `mark`, unless it is too early; the row is locked until the transaction ends. What lies farther ahead
/// than `farthest` was written before the clock was put back, and holds nobody up.
///
/// # Errors
/// The statement fails.
pub async fn count(tx: &mut Tx, mark: &str, (now, farthest): (Time, Time)) -> Result<Try, StoreError> {
    let counted = tx
        .fetch_optional(
            "INSERT INTO password_tries AS known (mark, failures, free_at, forget_at) VALUES ($1, 1, $2, $2)
             ON CONFLICT (mark) DO UPDATE
                 SET failures = CASE WHEN known.forget_at <= $2 THEN 1 ELSE known.failures + 1 END
                 WHERE known.free_at <= $2 OR known.free_at > $3
             RETURNING failures",
            vec![mark.into(), now.into(), farthest.into()],
        )
        .await?;
    if let Some(row) = counted {
        return Ok(Try::Counted(row.int("failures")?));
    }
    let known = tx
        .fetch_optional(
            "SELECT free_at FROM password_tries WHERE mark = $1",
            vec![mark.into()],
        )
        .await?;
    Ok(Try::NotBefore(known.map_or(Ok(now), |row| row.time("free_at"))?))
}

/// Says when the next try of `mark` is, and when all of them are forgotten.
///
/// # Errors
/// The statement fails.
pub async fn hold_up(tx: &mut Tx, mark: &str, (free_at, forget_at): (Time, Time)) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE password_tries SET free_at = $2, forget_at = $3 WHERE mark = $1",
        vec![mark.into(), free_at.into(), forget_at.into()],
    )
    .await
    .map(drop)
}

/// Takes one try of `mark` back: it was right. Others since then count on.
///
/// # Errors
/// The statement fails.
pub async fn take_back(tx: &mut Tx, mark: &str, (held_until, now): (Time, Time)) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE password_tries SET failures = failures - 1,
             free_at = CASE WHEN free_at = $2 AND $3 < $2 THEN $3 ELSE free_at END
         WHERE mark = $1 AND failures > 0",
        vec![mark.into(), held_until.into(), now.into()],
    )
    .await
    .map(drop)
}

/// Forgets the tries of `mark`.
///
/// # Errors
/// The statement fails.
pub async fn forget(tx: &mut Tx, mark: &str) -> Result<(), StoreError> {
    tx.execute("DELETE FROM password_tries WHERE mark = $1", vec![mark.into()])
        .await
        .map(drop)
}

/// Remembers that somebody has signed in from there.
///
/// # Errors
/// The statement fails.
pub async fn remember_place(tx: &mut Tx, mark: &str, forget_at: Time) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO known_places (mark, forget_at) VALUES ($1, $2)
         ON CONFLICT (mark) DO UPDATE SET forget_at = excluded.forget_at",
        vec![mark.into(), forget_at.into()],
    )
    .await
    .map(drop)
}

/// Whether somebody has signed in from there.
///
/// # Errors
/// The statement fails.
pub async fn is_known_place(tx: &mut Tx, mark: &str, now: Time) -> Result<bool, StoreError> {
    let known = tx
        .fetch_optional(
            "SELECT mark FROM known_places WHERE mark = $1 AND forget_at > $2",
            vec![mark.into(), now.into()],
        )
        .await?;
    Ok(known.is_some())
}

/// Removes what is to be forgotten by `now`.
///
/// # Errors
/// A statement fails.
pub async fn delete_expired(tx: &mut Tx, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM password_tries WHERE forget_at <= $1 AND free_at <= $1",
        vec![now.into()],
    )
    .await?;
    tx.execute("DELETE FROM known_places WHERE forget_at <= $1", vec![now.into()])
        .await
        .map(drop)
}
