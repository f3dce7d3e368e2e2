//! Table `operations`, its other half: who works on an operation, claimed under a lease with a fencing number.
//!
//! A worker that claims an operation raises its `fence`; every later write of that worker names the number it
//! got and changes nothing once another worker (or `abandon`) has raised it again.

use crate::api::id::OperationId;
use crate::api::operation::OperationStatus;
use crate::api::time::Time;
use crate::server::store::operations::{OperationRow, held, read};
use crate::server::store::{StoreError, Tx};

/// Nothing waits or is held for longer than this, in seconds: what lies farther ahead was written before the clock went
/// back.
const FARTHEST_SECONDS: i64 = 600;

/// Who claims.
#[derive(Clone, Copy, Debug)]
pub struct Claimer<'a> {
    /// Its name.
    pub owner: &'a str,
    /// For how long it holds what it claims without a word.
    pub lease_seconds: i64,
    /// What it can do, each kind between commas: a newer server beside it may queue what it has never heard of.
    pub kinds: &'a str,
}

/// Takes the operation that has waited longest, if one may run now.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn claim(tx: &mut Tx, claimer: Claimer<'_>, now: Time) -> Result<Option<OperationRow>, StoreError> {
    // PostgreSQL rechecks the outer condition on the row as it is after waiting for its lock, so of two
    // workers that chose the same row one changes nothing and looks again.
    tx.fetch_optional(
        "UPDATE operations SET lease_owner = $1, lease_until = $2, leased_at = $3, fence = fence + 1,
             updated_at = $3, status = CASE WHEN status = 'queued' THEN 'running' ELSE status END
         WHERE id = (
             SELECT id FROM operations
             WHERE status IN ('queued', 'running', 'undoing') AND (run_at <= $3 OR run_at > $4)
                 AND (lease_until IS NULL OR lease_until < $3 OR lease_until > $4)
                 AND $5 LIKE '%,' || kind || ',%'
             ORDER BY run_at, id LIMIT 1)
             AND status IN ('queued', 'running', 'undoing') AND (run_at <= $3 OR run_at > $4)
             AND (lease_until IS NULL OR lease_until < $3 OR lease_until > $4)
         RETURNING *",
        vec![
            claimer.owner.into(),
            now.plus_seconds(claimer.lease_seconds).into(),
            now.into(),
            now.plus_seconds(FARTHEST_SECONDS).into(),
            claimer.kinds.into(),
        ],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// Operations that wait for somebody who knows more kinds than these.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_unknown(tx: &mut Tx, kinds: &str) -> Result<Vec<OperationRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM operations
         WHERE status IN ('queued', 'running', 'undoing') AND lease_until IS NULL
             AND NOT $1 LIKE '%,' || kind || ',%'
         ORDER BY id LIMIT 100",
        vec![kinds.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// When the next operation of these kinds may be claimed, for the worker's sleep.
///
/// # Errors
/// The database fails.
pub async fn next_run_at(tx: &mut Tx, kinds: &str) -> Result<Option<Time>, StoreError> {
    tx.fetch_optional(
        "SELECT MIN(run_at) AS next FROM operations
         WHERE status IN ('queued', 'running', 'undoing') AND lease_until IS NULL
             AND $1 LIKE '%,' || kind || ',%'",
        vec![kinds.into()],
    )
    .await?
    .map_or(Ok(None), |row| row.opt_time("next"))
}

/// Keeps an operation for longer; answers how it stands: somebody may have wished it to be taken back.
///
/// # Errors
/// [`StoreError::Fenced`]: somebody else holds it.
pub async fn renew_lease(
    tx: &mut Tx,
    (id, fence): (&OperationId, i64),
    until: Time,
) -> Result<OperationStatus, StoreError> {
    let row = tx
        .fetch_optional(
            "UPDATE operations SET lease_until = $3
             WHERE id = $1 AND fence = $2 AND lease_owner IS NOT NULL
             RETURNING status",
            vec![id.as_str().into(), fence.into(), until.into()],
        )
        .await?;
    row.ok_or_else(|| StoreError::Fenced { id: id.to_string() })?
        .word("status")
}

/// Gives an operation back to the queue, to be taken again at `run_at`.
///
/// # Errors
/// [`StoreError::Fenced`]: somebody else holds it.
pub async fn release(
    tx: &mut Tx,
    (id, fence): (&OperationId, i64),
    run_at: Time,
    now: Time,
) -> Result<(), StoreError> {
    let rows = tx
        .execute(
            "UPDATE operations SET lease_owner = NULL, lease_until = NULL, run_at = $3, updated_at = $4
             WHERE id = $1 AND fence = $2",
            vec![id.as_str().into(), fence.into(), run_at.into(), now.into()],
        )
        .await?;
    held(id, rows)
}

/// Checks that the worker still holds the operation, and marks it as changed. The first write of every transaction
/// of a worker, so that two of them can not both pass.
///
/// # Errors
/// [`StoreError::Fenced`]: somebody else holds it.
pub async fn check_fence(tx: &mut Tx, (id, fence): (&OperationId, i64), now: Time) -> Result<(), StoreError> {
    let rows = tx
        .execute(
            "UPDATE operations SET updated_at = $3 WHERE id = $1 AND fence = $2",
            vec![id.as_str().into(), fence.into(), now.into()],
        )
        .await?;
    held(id, rows)
}

/// Lets an operation that waits for its next try be taken at once. One that is being worked on stays as it is.
///
/// # Errors
/// The database fails.
pub async fn hasten(tx: &mut Tx, id: &OperationId, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE operations SET run_at = $2, updated_at = $2 WHERE id = $1 AND lease_until IS NULL",
        vec![id.as_str().into(), now.into()],
    )
    .await?;
    Ok(())
}

/// Gives every operation back whose worker cannot be there any more: for the start of the only server of a database.
///
/// # Errors
/// The database fails.
pub async fn release_all(tx: &mut Tx) -> Result<u64, StoreError> {
    tx.execute(
        "UPDATE operations SET lease_owner = NULL, lease_until = NULL, fence = fence + 1
         WHERE lease_owner IS NOT NULL AND finished_at IS NULL",
        vec![],
    )
    .await
}
