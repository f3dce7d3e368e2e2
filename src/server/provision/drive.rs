//! One operation in the hands of one worker: ask what comes next, do it, write it, until it ends or waits.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::operation::{OperationError, OperationStatus};
use crate::api::time::Time;
use crate::server::failpoint;
use crate::server::provision::context::{Case, Failure, Parts, StepContext, StepError};
use crate::server::provision::effects::Effects;
use crate::server::provision::patience::{backoff, gave_up};
use crate::server::provision::plan::{Plan, is_untouched};
use crate::server::provision::saga::{Ending, Next, StepDefinition};
use crate::server::provision::standstill::give_up;
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
    /// As it stands, where that was just read.
    GoOn(Option<Box<Case>>),
    /// It has come to its end.
    End(Box<Case>, Ending),
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
    plan: Plan,
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
    let mut read = None;
    loop {
        match Box::pin(turn(inner, claimed, read.take())).await {
            Ok(Turn::GoOn(case)) => {
                failures = 0;
                read = case;
            }
            Ok(Turn::End(case, ending)) => return ended(inner, &case, ending).await,
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

async fn turn(inner: &Inner, claimed: &OperationRow, read: Option<Box<Case>>) -> Result<Turn, StoreError> {
    let parts = &inner.parts;
    let case = match read {
        Some(case) => *case,
        None => record::load(&parts.store, &claimed.id).await?,
    };
    if case.operation.fence != claimed.fence {
        return Err(StoreError::Fenced {
            id: claimed.id.to_string(),
        });
    }
    let Some(plan) = Plan::of(&case) else {
        // Nobody claims what it does not know.
        record::give_back(parts, &case, None).await?;
        return Ok(Turn::LetGo);
    };
    let what = plan.next(&case);
    if inner.signals.stop.is_cancelled() && !matches!(what, Next::Finish(_)) {
        record::give_back(parts, &case, None).await?;
        return Ok(Turn::LetGo);
    }
    match what {
        Next::Finish(ending) => {
            let effects = ending_of(&plan, parts, (&case, ending));
            record::conclude(parts, &case, ending, &effects).await?;
            Ok(Turn::End(Box::new(case), ending))
        }
        Next::Run(at) => Box::pin(run_step(Worker { inner, plan, case }, at, StepStatus::Running)).await,
        Next::Undo(at) => Box::pin(run_step(Worker { inner, plan, case }, at, StepStatus::Undoing)).await,
    }
}

/// What is written when the operation ends so.
fn ending_of(plan: &Plan, parts: &Parts, (case, ending): (&Case, Ending)) -> Effects {
    if is_untouched(case, ending) {
        return Effects::none().event(NewEvent::new(
            "operation_cancelled",
            format!("`{}` was taken back before it had begun", case.operation.kind),
        ));
    }
    plan.saga.conclude(ending, parts, case)
}

async fn ended(inner: &Inner, case: &Case, ending: Ending) {
    tell(case, ending, inner.parts.clock.now());
    inner.announce(&case.tenant.id);
    inner.checkpoint(Checkpoint::Concluded).await;
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

impl Worker<'_> {
    async fn step(mut self, at: usize, status: StepStatus) -> Result<Turn, StoreError> {
        let (inner, parts) = (self.inner, &self.inner.parts);
        let Some(definition) = self.plan.step(at) else {
            return Ok(Turn::LetGo);
        };
        // Tries of the other direction do not count.
        if self.case.steps[at].status != status && status == StepStatus::Undoing {
            self.case.steps[at].attempts = 0;
        }
        let before = self.case.steps[at].clone();
        let first = before.attempts == 0 && status == StepStatus::Running;
        let event = first
            .then(|| self.plan.saga.announce(definition.name, &self.case))
            .flatten();
        let told = event.is_some();
        if !record::begin_step(parts, &self.case, (definition, status), event, &before).await? {
            return Ok(Turn::GoOn(None));
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
        let turn = Box::pin(self.record((at, definition), status, (before, outcome))).await?;
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
                StepStatus::Undoing => self.plan.saga.undo(definition.name, &cx).await,
                _ => self.plan.saga.run(definition.name, &cx).await,
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
            Ok(effects) => Box::pin(self.finish((row, done), &effects)).await,
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

    async fn finish(&self, row: (&StepRow, StepStatus), effects: &Effects) -> Result<Turn, StoreError> {
        let (parts, case) = (&self.inner.parts, &self.case);
        let ending_of = |after: &Case| match self.plan.next(after) {
            Next::Finish(ending) => Some((ending, ending_of(&self.plan, parts, (after, ending)))),
            Next::Run(_) | Next::Undo(_) => None,
        };
        let (after, ending) = match record::finish_step(parts, case, row, effects, Some(&ending_of)).await {
            // What is done stands even where the end cannot be written.
            Err(
                StoreError::IllegalTransition { .. } | StoreError::Missing { .. } | StoreError::Duplicate(_),
            ) => record::finish_step(parts, case, row, effects, None).await?,
            finished => finished?,
        };
        Ok(match ending {
            Some(ending) => Turn::End(Box::new(after), ending),
            None => Turn::GoOn(Some(Box::new(after))),
        })
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
        let undoing = !undo_failed && at < self.plan.pivot();
        record::fail_step(&self.inner.parts, case, &row, (&error, &failure.events, undoing)).await?;
        Ok(Turn::GoOn(None))
    }
}
