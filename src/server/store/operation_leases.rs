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
pub(super) const FARTHEST_SECONDS: i64 = 600;

/// Who claims.
#[derive(Clone, Copy, Debug)]
pub struct Claimer<'a> {
    /// Its name.
    pub owner: &'a str,
    /// For how long it holds what it claims without a word.
    pub lease_seconds: i64,
    /// What it can do, each `kind/step` between commas: a newer server beside it may queue what it has never heard of.
    pub steps: &'a str,
    /// How many it can work on at once.
    pub at_most: usize,
}

/// What may be worked on at `$3`; what lies beyond `$4` was written before the clock went back.
macro_rules! due {
    () => {
        "finished_at IS NULL AND status <> 'stuck' AND (run_at <= $3 OR run_at > $4)
         AND (lease_until IS NULL OR lease_until < $3 OR lease_until > $4)"
    };
}

/// Whether the steps in this parameter have all those of the operation.
///
/// Said so that PostgreSQL, which plans this once for all queues, expects that it holds for most: what it takes for rare
/// (`LIKE`, `= 0`, `NOT EXISTS`) it would look for in the whole queue, and sort what it finds, before it takes the first few.
macro_rules! known {
    ($steps:literal) => {
        concat!(
            "(length(replace(",
            $steps,
            ", ',' || operations.kind || '/', '')) < length(",
            $steps,
            ") AND NOT (
                 SELECT count(*) FROM operation_steps WHERE operation_steps.operation_id = operations.id
                     AND length(replace(",
            $steps,
            ", ',' || operations.kind || '/' || operation_steps.name || ',', '')) = length(",
            $steps,
            ")) > 0)"
        )
    };
}

macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "WITH due AS MATERIALIZED (
                 SELECT id FROM operations WHERE ",
            due!(),
            " AND ",
            known!("$5"),
            " ORDER BY run_at, id LIMIT $6 ",
            $lock,
            ")
             UPDATE operations SET lease_owner = $1, lease_until = $2, leased_at = $3, fence = fence + 1,
                 updated_at = $3, status = CASE WHEN status = 'queued' THEN 'running' ELSE status END
             WHERE id IN (SELECT id FROM due) AND ",
            due!(),
            " RETURNING *"
        )
    };
}

/// Takes the operations that have waited longest of those that may run now.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn claim(tx: &mut Tx, claimer: Claimer<'_>, now: Time) -> Result<Vec<OperationRow>, StoreError> {
    let sql = match tx {
        // One writer at a time.
        Tx::Sqlite(_) => claim!(""),
        // Of two workers that look at once neither waits for the other: each locks other rows.
        Tx::Postgres(_) | Tx::Look(_) => claim!("FOR UPDATE SKIP LOCKED"),
    };
    let args = vec![
        claimer.owner.into(),
        now.plus_seconds(claimer.lease_seconds).into(),
        now.into(),
        now.plus_seconds(FARTHEST_SECONDS).into(),
        claimer.steps.into(),
        i64::try_from(claimer.at_most).unwrap_or(i64::MAX).into(),
    ];
    let rows = tx.fetch_all(sql, args).await?;
    let mut claimed: Vec<OperationRow> = rows.iter().map(read).collect::<Result<_, _>>()?;
    claimed.sort_by(|one, other| (one.run_at, &one.id).cmp(&(other.run_at, &other.id)));
    Ok(claimed)
}

/// Operations that wait for somebody who knows more steps than these.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_unknown(tx: &mut Tx, steps: &str) -> Result<Vec<OperationRow>, StoreError> {
    tx.fetch_all(
        concat!(
            "SELECT * FROM operations
             WHERE finished_at IS NULL AND status <> 'stuck' AND lease_until IS NULL AND NOT ",
            known!("$1"),
            " ORDER BY id LIMIT 100"
        ),
        vec![steps.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// When the next operation of these steps may be claimed, for the worker's sleep.
///
/// # Errors
/// The database fails.
pub async fn next_run_at(tx: &mut Tx, steps: &str) -> Result<Option<Time>, StoreError> {
    tx.fetch_optional(
        concat!(
            "SELECT run_at AS next FROM operations
             WHERE finished_at IS NULL AND status <> 'stuck' AND lease_until IS NULL AND ",
            known!("$1"),
            " ORDER BY run_at, id LIMIT 1"
        ),
        vec![steps.into()],
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

/// Checks that the worker still holds the operation, marks it as changed, and answers it as it stands. The first write of
/// every transaction of a worker, so that two of them can not both pass.
///
/// # Errors
/// [`StoreError::Fenced`]: somebody else holds it.
pub async fn check_fence(
    tx: &mut Tx,
    (id, fence): (&OperationId, i64),
    now: Time,
) -> Result<OperationRow, StoreError> {
    let row = tx
        .fetch_optional(
            "UPDATE operations SET updated_at = $3 WHERE id = $1 AND fence = $2 RETURNING *",
            vec![id.as_str().into(), fence.into(), now.into()],
        )
        .await?;
    read(&row.ok_or_else(|| StoreError::Fenced { id: id.to_string() })?)
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
