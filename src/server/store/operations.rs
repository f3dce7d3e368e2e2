//! Table `operations`: durable pieces of work, and the states that they go through. Who works on them is in
//! [`crate::server::store::operation_leases`].

use serde_json::Value as Json;

use crate::api::health::JobsHealth;
use crate::api::id::{OperationId, TenantId};
use crate::api::operation::{OperationError, OperationStatus, OperationSummary, Worker};
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationRow {
    /// Names the operation.
    pub id: OperationId,
    /// The tenant it works on.
    pub tenant_id: TenantId,
    /// `create-tenant`, `deploy` …; permanent.
    pub kind: String,
    /// How it stands.
    pub status: OperationStatus,
    /// What was asked for.
    pub params: Json,
    /// What it made.
    pub result: Json,
    /// Why it failed, is stuck, or takes back what it made.
    pub error: Option<OperationError>,
    /// Who asked.
    pub requested_by: String,
    /// Raised at every claim.
    pub fence: i64,
    /// The worker that holds it.
    pub lease_owner: Option<String>,
    /// Since when.
    pub leased_at: Option<Time>,
    /// When that worker must have renewed its lease.
    pub lease_until: Option<Time>,
    /// The last line of the tenant's history before its own.
    pub events_after: u64,
    /// Not before this time.
    pub run_at: Time,
    /// When it was asked for.
    pub created_at: Time,
    /// When its row last changed.
    pub updated_at: Time,
    /// When it reached a terminal status.
    pub finished_at: Option<Time>,
}

impl OperationRow {
    /// The operation in one line.
    #[must_use]
    pub fn summary(&self) -> OperationSummary {
        OperationSummary {
            id: self.id.clone(),
            kind: self.kind.clone(),
            status: self.status,
            requested_by: self.requested_by.clone(),
            created_at: self.created_at,
            worker: self.worker(),
        }
    }

    /// Who works on it now.
    #[must_use]
    pub fn worker(&self) -> Option<Worker> {
        Some(Worker {
            name: self.lease_owner.clone()?,
            since: self.leased_at?,
            until: self.lease_until?,
        })
    }
}

pub(super) fn read(row: &Row) -> Result<OperationRow, StoreError> {
    Ok(OperationRow {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        kind: row.text("kind")?,
        status: row.word("status")?,
        params: row.json("params")?,
        result: row.json("result")?,
        error: row.opt_json("error")?,
        requested_by: row.text("requested_by")?,
        fence: row.int("fence")?,
        lease_owner: row.opt_text("lease_owner")?,
        leased_at: row.opt_time("leased_at")?,
        lease_until: row.opt_time("lease_until")?,
        events_after: row.u64("events_after")?,
        run_at: row.time("run_at")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        finished_at: row.opt_time("finished_at")?,
    })
}

/// Queues an operation.
///
/// # Errors
/// [`StoreError::Duplicate`]: the tenant has one that is not finished.
pub async fn insert(
    tx: &mut Tx,
    (id, tenant): (&OperationId, &TenantId),
    (kind, params): (&str, &Json),
    requested_by: &str,
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO operations (id, tenant_id, kind, status, params, result, error, requested_by, fence,
             lease_owner, lease_until, run_at, created_at, updated_at, finished_at, events_after)
         VALUES ($1, $2, $3, 'queued', $4, '{}', NULL, $5, 0, NULL, NULL, $6, $6, $6, NULL,
             (SELECT last_event_seq FROM tenants WHERE tenants.id = $2))",
        vec![
            id.as_str().into(),
            tenant.as_str().into(),
            kind.into(),
            params.to_string().into(),
            requested_by.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The operation, if there is one of that id.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find(tx: &mut Tx, id: &OperationId) -> Result<Option<OperationRow>, StoreError> {
    tx.fetch_optional("SELECT * FROM operations WHERE id = $1", vec![id.as_str().into()])
        .await?
        .map(|row| read(&row))
        .transpose()
}

/// The operation that must be there.
///
/// # Errors
/// [`StoreError::Missing`]: there is none.
pub async fn get(tx: &mut Tx, id: &OperationId) -> Result<OperationRow, StoreError> {
    find(tx, id).await?.ok_or_else(|| missing(id))
}

/// The operation, held against every other writer until the commit.
///
/// # Errors
/// [`StoreError::Missing`]: there is none.
pub async fn get_locked(tx: &mut Tx, id: &OperationId) -> Result<OperationRow, StoreError> {
    tx.fetch_optional(
        "UPDATE operations SET updated_at = updated_at WHERE id = $1 RETURNING *",
        vec![id.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()?
    .ok_or_else(|| missing(id))
}

/// The operation that holds the tenant now.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_unfinished(tx: &mut Tx, tenant: &TenantId) -> Result<Option<OperationRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM operations WHERE tenant_id = $1 AND finished_at IS NULL",
        vec![tenant.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The last one that was queued, of any tenant.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_last_id(tx: &mut Tx) -> Result<Option<OperationId>, StoreError> {
    tx.fetch_optional("SELECT id FROM operations ORDER BY id DESC LIMIT 1", vec![])
        .await?
        .map(|row| row.parse("id"))
        .transpose()
}

/// Operations of one kind that are not finished, of all tenants.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_unfinished(tx: &mut Tx, kind: &str) -> Result<Vec<OperationId>, StoreError> {
    tx.fetch_all(
        "SELECT id FROM operations WHERE kind = $1 AND finished_at IS NULL ORDER BY id",
        vec![kind.into()],
    )
    .await?
    .iter()
    .map(|row| row.parse("id"))
    .collect()
}

/// The tenant's newest operation of one kind.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_newest(
    tx: &mut Tx,
    tenant: &TenantId,
    kind: &str,
) -> Result<Option<OperationRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM operations WHERE tenant_id = $1 AND kind = $2 ORDER BY id DESC LIMIT 1",
        vec![tenant.as_str().into(), kind.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The tenant's operations before `before`, newest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_by_tenant(
    tx: &mut Tx,
    tenant: &TenantId,
    before: Option<&OperationId>,
    limit: u32,
) -> Result<Vec<OperationRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM operations WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        vec![
            tenant.as_str().into(),
            // `~` sorts after every letter of an id.
            before.map_or("~", OperationId::as_str).into(),
            limit.into(),
        ],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// How the queue is.
///
/// # Errors
/// The database fails.
pub async fn queue_health(tx: &mut Tx, now: Time) -> Result<JobsHealth, StoreError> {
    let row = tx
        .fetch_optional(
            "SELECT COUNT(CASE WHEN status = 'queued' THEN 1 END) AS queued,
                 COUNT(CASE WHEN status IN ('running', 'undoing') THEN 1 END) AS running,
                 COUNT(CASE WHEN status = 'stuck' THEN 1 END) AS stuck,
                 MIN(CASE WHEN status = 'queued' THEN created_at END) AS oldest
             FROM operations WHERE finished_at IS NULL",
            vec![],
        )
        .await?
        .ok_or(StoreError::UnexpectedNull { column: "queued" })?;
    let waiting = row
        .opt_time("oldest")?
        .map_or(0, |oldest| now.seconds_since(oldest));
    Ok(JobsHealth {
        queued: row.u64("queued")?,
        running: row.u64("running")?,
        stuck: row.u64("stuck")?,
        oldest_waiting_seconds: u64::try_from(waiting).unwrap_or(0),
    })
}

/// Whether an operation in state `from` may go to `to`.
#[must_use]
pub const fn may_become(from: OperationStatus, to: OperationStatus) -> bool {
    use OperationStatus::{Abandoned, Failed, Queued, Running, Stuck, Succeeded, Undoing, Undone};
    matches!(
        (from, to),
        (Queued, Running | Undoing | Abandoned)
            | (Running, Succeeded | Failed | Undoing | Stuck | Abandoned)
            | (Undoing, Failed | Undone | Stuck | Abandoned)
            | (Stuck, Queued | Undoing | Abandoned)
            | (Failed | Undone, Queued | Abandoned)
    )
}

/// A change of an operation's state.
#[derive(Clone, Debug)]
pub struct Transition {
    /// The state it goes to.
    pub to: OperationStatus,
    /// Why, where it is a bad one; `None` leaves what stands there.
    pub error: Option<OperationError>,
    /// What it made; `None` leaves what stands there.
    pub result: Option<Json>,
}

impl Transition {
    /// Only the state.
    #[must_use]
    pub const fn to(to: OperationStatus) -> Self {
        Self {
            to,
            error: None,
            result: None,
        }
    }
}

/// Moves an operation to another state. A state in which no worker holds it gives up the lease, raises the fence
/// and, when it is terminal, frees the tenant.
///
/// # Errors
/// [`StoreError::IllegalTransition`]: it may not go there; [`StoreError::Duplicate`]: it would be open again
/// while the tenant has another open one.
pub async fn transition(
    tx: &mut Tx,
    id: &OperationId,
    change: &Transition,
    now: Time,
) -> Result<(), StoreError> {
    let row = get(tx, id).await?;
    if !may_become(row.status, change.to) {
        return Err(StoreError::IllegalTransition {
            what: "operation",
            from: word_of(&row.status),
            to: word_of(&change.to),
        });
    }
    let error = change.error.as_ref().or(row.error.as_ref());
    let kept_error = match change.to {
        OperationStatus::Queued | OperationStatus::Succeeded => None,
        _ => error.and_then(|error| serde_json::to_string(error).ok()),
    };
    let rows = tx
        .execute(
            "UPDATE operations SET status = $2, error = $3, result = $4, finished_at = $5, updated_at = $6,
                 run_at = CASE WHEN $7 = 1 THEN $6 ELSE run_at END,
                 fence = CASE WHEN $7 = 1 THEN fence + 1 ELSE fence END,
                 lease_owner = CASE WHEN $7 = 1 THEN NULL ELSE lease_owner END,
                 events_after = CASE WHEN $9 = 1
                     THEN (SELECT last_event_seq FROM tenants WHERE tenants.id = operations.tenant_id)
                     ELSE events_after END,
                 lease_until = CASE WHEN $7 = 1 THEN NULL ELSE lease_until END
             WHERE id = $1 AND fence = $8",
            vec![
                id.as_str().into(),
                word_of(&change.to).into(),
                kept_error.into(),
                change.result.as_ref().unwrap_or(&row.result).to_string().into(),
                change.to.is_terminal().then_some(now).into(),
                now.into(),
                let_go(row.status, change.to).into(),
                row.fence.into(),
                // Who follows it from now on has seen what came before.
                (change.to == OperationStatus::Queued).into(),
            ],
        )
        .await?;
    held(id, rows)
}

/// Keeps why an operation goes no further, while its worker still holds it.
///
/// # Errors
/// The database fails.
pub async fn set_error(tx: &mut Tx, id: &OperationId, error: &OperationError) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE operations SET error = $2 WHERE id = $1",
        vec![id.as_str().into(), serde_json::json!(error).to_string().into()],
    )
    .await?;
    Ok(())
}

/// Whether the worker that holds it must stop: every change but that of a worker going from doing to undoing.
fn let_go(from: OperationStatus, to: OperationStatus) -> bool {
    !(from == OperationStatus::Running && to == OperationStatus::Undoing)
}

pub(super) fn held(id: &OperationId, rows: u64) -> Result<(), StoreError> {
    if rows == 1 {
        return Ok(());
    }
    Err(StoreError::Fenced { id: id.to_string() })
}

fn missing(id: &OperationId) -> StoreError {
    StoreError::Missing {
        what: "operation",
        id: id.to_string(),
    }
}
