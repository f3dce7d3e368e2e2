//! One operation in the hands of one worker: ask what comes next, do it, write it, until it ends or waits.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::operation::{OperationError, OperationStatus};
use crate::api::tenant::TenantStatus;
use crate::api::time::Time;
use crate::server::failpoint;
use crate::server::provision::context::{Case, Failure, Parts, StepContext, StepError};
use crate::server::provision::effects::Effects;
use crate::server::provision::saga::{Ending, Next, Saga, Standing, StepDefinition, next, saga_of};
use crate::server::provision::standstill::{give_up, unknown_kind};
use crate::server::provision::told::{log_failure, log_retry, log_unrecorded, tell};
use crate::server::provision::{Inner, record};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::OperationRow;
use crate::server::store::{StoreError, operation_leases};

/// A place in a worker's course at which a test may hold or end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The operation is claimed.
    Claimed,
    /// A step is written down as begun; nothing was done yet.
    Begun,
    /// A step was done; it is not written down yet.
    Acted,
    /// A step is written down as done, or as failed.
    Recorded,
    /// The operation is written down as ended.
    Concluded,
}

/// How often in a row a worker tries to write down what was done.
const RECORD_ATTEMPTS: u32 = 5;

/// Nobody waits longer than this between two tries because a provider said so.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Whether the worker goes on with the operation.
enum Turn {
    GoOn,
    LetGo,
}

/// The worker's signals: `stop` asks waiting steps to give up, `abort` drops whatever runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    pub(super) stop: CancellationToken,
    pub(super) abort: CancellationToken,
    /// Counts decisions of people: whoever works on an operation looks whether it is about that one.
    pub(super) turned: watch::Sender<u64>,
}

struct Worker<'a> {
    inner: &'a Inner,
    saga: &'static dyn Saga,
    case: Case,
}

/// Works on a claimed operation until it ends, waits, or is somebody else's.
pub(super) async fn drive(inner: &Inner, claimed: &OperationRow) {
    // What calls hold each other by value, each of their frames holds: here and below the chain is cut, since the stack
    // of a worker's thread ends before the longest of them does.
    failpoint::within(|| claimed.kind.clone(), Box::pin(go_on(inner, claimed))).await;
}

async fn go_on(inner: &Inner, claimed: &OperationRow) {
    inner.checkpoint(Checkpoint::Claimed).await;
    let mut failures = 0;
    loop {
        match Box::pin(turn(inner, claimed)).await {
            Ok(Turn::GoOn) => failures = 0,
            Ok(Turn::LetGo) => return,
            Err(StoreError::Fenced { id }) => {
                tracing::info!(operation = %id, "left to another worker");
                return;
            }
            Err(error) => {
                log_unrecorded(claimed, &error);
                failures += 1;
                if failures == RECORD_ATTEMPTS {
                    return give_up(inner, claimed, &error).await;
                }
                tokio::select! {
                    () = tokio::time::sleep(inner.parts.settings.poll) => {}
                    () = inner.signals.stop.cancelled() => return,
                }
            }
        }
    }
}

async fn turn(inner: &Inner, claimed: &OperationRow) -> Result<Turn, StoreError> {
    let parts = &inner.parts;
    let case = record::load(&parts.store, &claimed.id).await?;
    if case.operation.fence != claimed.fence {
        return Err(StoreError::Fenced {
            id: claimed.id.to_string(),
        });
    }
    let Some(saga) = saga_of(&case.operation.kind).filter(|saga| knows(*saga, &case)) else {
        unknown_kind(inner, &case).await?;
        return Ok(Turn::LetGo);
    };
    let undo: Vec<bool> = saga.steps().iter().map(|step| step.undo).collect();
    let log: Vec<StepStatus> = case.steps.iter().map(|row| row.status).collect();
    let standing = Standing {
        log: &log,
        undoing: case.operation.status == OperationStatus::Undoing,
        failed: case.operation.error.is_some(),
    };
    let what = next(&undo, saga.pivot(), standing);
    if inner.signals.stop.is_cancelled() && !matches!(what, Next::Finish(_)) {
        record::give_back(parts, &case, None).await?;
        return Ok(Turn::LetGo);
    }
    match what {
        Next::Finish(ending) => {
            let effects = if ending == Ending::Undone && untouched(&case) {
                Effects::none().event(NewEvent::new(
                    "operation_cancelled",
                    format!("`{}` was taken back before it had begun", case.operation.kind),
                ))
            } else {
                saga.conclude(ending, parts, &case)
            };
            record::conclude(parts, &case, ending, &effects).await?;
            tell(&case, ending, parts.clock.now());
            inner.announce(&case.tenant.id);
            inner.checkpoint(Checkpoint::Concluded).await;
            Ok(Turn::LetGo)
        }
        Next::Run(at) => Box::pin(run_step(Worker { inner, saga, case }, at, StepStatus::Running)).await,
        Next::Undo(at) => Box::pin(run_step(Worker { inner, saga, case }, at, StepStatus::Undoing)).await,
    }
}

async fn run_step(worker: Worker<'_>, at: usize, status: StepStatus) -> Result<Turn, StoreError> {
    let (kind, step) = (
        worker.case.operation.kind.clone(),
        worker.case.steps.get(at).map(|row| row.name.clone()),
    );
    let scope = || {
        let undo = if status == StepStatus::Undoing {
            "/undo"
        } else {
            ""
        };
        format!("{kind}/{}{undo}", step.unwrap_or_default())
    };
    failpoint::within(scope, Box::pin(worker.step(at, status))).await
}

/// Nothing was begun, so the tenant is as it was before; one that does not exist yet is not as it shall be.
fn untouched(case: &Case) -> bool {
    case.tenant.status != TenantStatus::Pending
        && case.steps.iter().all(|row| row.status == StepStatus::Waiting)
}

/// A log that names other steps than this program has was written by another version of it.
fn knows(saga: &dyn Saga, case: &Case) -> bool {
    saga.steps().len() == case.steps.len()
        && saga
            .steps()
            .iter()
            .zip(&case.steps)
            .all(|(step, row)| step.name == row.name)
}

impl Worker<'_> {
    async fn step(mut self, at: usize, status: StepStatus) -> Result<Turn, StoreError> {
        let (inner, parts) = (self.inner, &self.inner.parts);
        let Some(definition) = self.saga.steps().get(at) else {
            return Ok(Turn::LetGo);
        };
        // Tries of the other direction do not count.
        if self.case.steps[at].status != status && status == StepStatus::Undoing {
            self.case.steps[at].attempts = 0;
        }
        let before = self.case.steps[at].clone();
        let first = before.attempts == 0 && status == StepStatus::Running;
        let event = first
            .then(|| self.saga.announce(definition.name, &self.case))
            .flatten();
        let told = event.is_some();
        if !record::begin_step(parts, &self.case, (definition, status), event, &before).await? {
            return Ok(Turn::GoOn);
        }
        self.case.steps[at].status = status;
        self.case.steps[at].attempts += 1;
        if told {
            inner.announce(&self.case.tenant.id);
        }
        inner.checkpoint(Checkpoint::Begun).await;
        let outcome = if before.attempts >= parts.settings.attempts {
            // A step that ends the process every time must not do so for ever.
            Err(gave_up(definition, before.error.as_deref()))
        } else {
            Box::pin(self.act(definition, status)).await?
        };
        inner.checkpoint(Checkpoint::Acted).await;
        let turn = self.record((at, definition), status, (before, outcome)).await?;
        inner.announce(&self.case.tenant.id);
        inner.checkpoint(Checkpoint::Recorded).await;
        Ok(turn)
    }

    /// The one place where steps touch the world; the lease is renewed while they do.
    async fn act(
        &self,
        definition: &StepDefinition,
        status: StepStatus,
    ) -> Result<Result<Effects, StepError>, StoreError> {
        let (parts, signals) = (&self.inner.parts, &self.inner.signals);
        let cx = StepContext {
            parts,
            case: &self.case,
            stop: &signals.stop,
        };
        let work = async {
            match status {
                StepStatus::Undoing => self.saga.undo(definition.name, &cx).await,
                _ => self.saga.run(definition.name, &cx).await,
            }
        };
        tokio::pin!(work);
        let mut heartbeat = tokio::time::interval(parts.settings.heartbeat);
        heartbeat.tick().await;
        let mut turned = signals.turned.subscribe();
        loop {
            let standing = tokio::select! {
                outcome = &mut work => return Ok(outcome),
                () = signals.abort.cancelled() => return Ok(Err(StepError::Stopped)),
                Ok(()) = turned.changed() => self.renew().await?,
                _ = heartbeat.tick() => self.renew().await?,
            };
            // Dropped in the middle, as by a crash: the way back finds whatever it has left.
            if standing == Some(OperationStatus::Undoing) && status == StepStatus::Running {
                return Ok(Err(StepError::Stopped));
            }
        }
    }

    /// A lease that cannot be renewed for a while is no reason to drop what runs: the fence decides in the end.
    async fn renew(&self) -> Result<Option<OperationStatus>, StoreError> {
        let (parts, operation) = (&self.inner.parts, &self.case.operation);
        let until = parts.clock.now().plus_seconds(parts.settings.lease_seconds);
        let renewed = async {
            let mut tx = parts.store.begin().await?;
            let key = (&operation.id, operation.fence);
            let standing = operation_leases::renew_lease(&mut tx, key, until).await?;
            tx.commit().await?;
            Ok(standing)
        };
        match renewed.await {
            Err(StoreError::Fenced { id }) => Err(StoreError::Fenced { id }),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(operation = %operation.id, error, "failed to renew the lease");
                Ok(None)
            }
            Ok(standing) => Ok(Some(standing)),
        }
    }

    async fn record(
        &self,
        (at, definition): (usize, &StepDefinition),
        status: StepStatus,
        (before, outcome): (StepRow, Result<Effects, StepError>),
    ) -> Result<Turn, StoreError> {
        let (parts, case) = (&self.inner.parts, &self.case);
        let row = &case.steps[at];
        let done = match status {
            StepStatus::Undoing => StepStatus::Undone,
            _ => StepStatus::Done,
        };
        match outcome {
            Ok(effects) => {
                record::finish_step(parts, case, (row, done), &effects).await?;
                Ok(Turn::GoOn)
            }
            Err(StepError::Stopped) => {
                let uncounted = StepRow {
                    attempts: before.attempts,
                    ..row.clone()
                };
                record::give_back(parts, case, Some(&uncounted)).await?;
                Ok(Turn::LetGo)
            }
            Err(StepError::Retry { what, after, source }) if row.attempts < parts.settings.attempts => {
                log_retry(case, definition, (&what, source));
                self.retry(row, (what, after)).await
            }
            Err(StepError::Retry { what, source, .. }) => {
                let failure = Failure {
                    code: "gave-up".to_owned(),
                    message: format!("{what}, {} times in a row", row.attempts),
                    hint: None,
                    source,
                    ..Failure::default()
                };
                self.fail((at, row), status, failure).await
            }
            Err(StepError::Fatal(failure)) => self.fail((at, row), status, *failure).await,
        }
    }

    async fn retry(
        &self,
        row: &StepRow,
        (what, after): (String, Option<Duration>),
    ) -> Result<Turn, StoreError> {
        let parts = &self.inner.parts;
        let after = after.unwrap_or_default().min(LONGEST_WAIT);
        let wait = backoff(parts, row.attempts).max(after);
        let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let run_at = Time::from_millis(parts.clock.now().as_millis().saturating_add(millis));
        let event = NewEvent::new("step_retrying", format!("{what}; trying again")).with(serde_json::json!({
            "step": row.name, "attempt": row.attempts, "retry_in_ms": millis,
        }));
        let row = StepRow {
            error: Some(what),
            ..row.clone()
        };
        record::retry_step(parts, &self.case, &row, (&event, run_at)).await?;
        Ok(Turn::LetGo)
    }

    async fn fail(
        &self,
        (at, row): (usize, &StepRow),
        status: StepStatus,
        failure: Failure,
    ) -> Result<Turn, StoreError> {
        let case = &self.case;
        log_failure(case, row, &failure);
        let undo_failed = status == StepStatus::Undoing;
        let message = match &case.operation.error {
            Some(first) if undo_failed => format!(
                "{}; and taking back `{}` failed: {}",
                first.message, row.name, failure.message
            ),
            _ => failure.message.clone(),
        };
        let error = OperationError {
            code: failure.code,
            step: row.name.clone(),
            message,
            hint: failure.hint,
            log_tail: failure.log_tail,
        };
        let row = StepRow {
            status: if undo_failed {
                StepStatus::UndoFailed
            } else {
                StepStatus::Failed
            },
            error: Some(failure.message),
            ..row.clone()
        };
        let undoing = !undo_failed && at < self.saga.pivot();
        record::fail_step(&self.inner.parts, case, &row, (&error, &failure.events, undoing)).await?;
        Ok(Turn::GoOn)
    }
}

fn gave_up(definition: &StepDefinition, last: Option<&str>) -> StepError {
    StepError::fatal(
        "gave-up",
        match last {
            Some(last) => format!("{last}, too often"),
            None => format!(
                "`{}` was begun too often without coming to an end",
                definition.name
            ),
        },
    )
}

/// Doubles with every try, and lies between half of that and all of it.
fn backoff(parts: &Parts, attempts: u32) -> Duration {
    let settings = &parts.settings;
    let doubled = settings
        .retry_first
        .saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1).min(16)));
    let whole = doubled.min(settings.retry_most);
    let [chance] = parts.clock.random::<1>();
    whole.mul_f64(0.5 + f64::from(chance) / 512.0)
}
