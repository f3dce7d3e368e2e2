//! The course of an operation: steps are begun as soon as what they need is done, run side by side, and are written down one
//! by one, each in the transaction in which the next are begun.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval};

use crate::api::operation::{OperationError, OperationStatus};
use crate::api::time::Time;
use crate::server::failpoint;
use crate::server::provision::act::{act, scope};
use crate::server::provision::context::{Case, Failure, StepError};
use crate::server::provision::drive::Checkpoint;
use crate::server::provision::effects::Effects;
use crate::server::provision::follow::Follow;
use crate::server::provision::patience::backoff;
use crate::server::provision::plan::Plan;
use crate::server::provision::saga::Ending;
use crate::server::provision::told::{log_failure, log_retry};
use crate::server::provision::written::{Begin, Then, Wrote};
use crate::server::provision::{Inner, record};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::OperationRow;
use crate::server::store::{StoreError, operation_leases};

/// Nobody waits longer than this between two tries because a provider said so.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// For how long calls that are under way may come to their end before what they made is taken back because somebody wished
/// it: whoever is called may go on with what nobody waits for.
const SETTLE: Duration = Duration::from_secs(1);

/// How a worker leaves an operation.
pub(super) enum Rest {
    /// It has come to its end.
    Ended(Box<Case>, Ending),
    /// Somebody takes it up again.
    LetGo,
}

/// An operation in the hands of its worker.
pub(super) struct Course<'a> {
    inner: &'a Arc<Inner>,
    claimed: &'a OperationRow,
    running: JoinSet<(usize, Result<Effects, StepError>)>,
    under_way: BTreeMap<usize, UnderWay>,
    /// Steps that are tried again, once nothing else is under way.
    waiting: Vec<(usize, StepStatus, Time)>,
    /// One of its steps has failed: what is under way beside it comes to its end.
    turned: bool,
    /// Until then what is under way may come to its end.
    settles: Option<Instant>,
    stopped: bool,
    recorded: bool,
    /// The steps as they stood after the last write; none before the first.
    steps: Vec<StepRow>,
    heartbeat: Interval,
    decisions: watch::Receiver<u64>,
}

struct UnderWay {
    begin: Begin,
    row: StepRow,
    case: Arc<Case>,
}

enum Heard {
    /// A step came to its end.
    Done(usize, Box<Result<Effects, StepError>>),
    /// Somebody wished that the operation is taken back.
    TurnedBack,
    /// The server ends.
    Aborted,
}

impl<'a> Course<'a> {
    /// That of an operation that was just claimed, or is taken up again.
    pub(super) fn of(inner: &'a Arc<Inner>, claimed: &'a OperationRow) -> Self {
        let mut heartbeat = tokio::time::interval(inner.parts.settings.heartbeat);
        heartbeat.reset();
        Self {
            inner,
            claimed,
            running: JoinSet::new(),
            under_way: BTreeMap::new(),
            waiting: Vec::new(),
            turned: false,
            settles: None,
            stopped: false,
            recorded: false,
            steps: Vec::new(),
            heartbeat,
            decisions: inner.signals.turned.subscribe(),
        }
    }

    /// Whether something that was done is written down.
    pub(super) const fn has_recorded(&self) -> bool {
        self.recorded
    }

    /// Goes on until the operation ends or waits. Steps that are under way when a write fails are dropped, as by a crash.
    pub(super) async fn run(&mut self) -> Result<Rest, StoreError> {
        let (mut case, mut then) = self.write(&Wrote::Nothing).await?;
        loop {
            match then {
                Then::End(ending, _) => return Ok(Rest::Ended(Box::new(case), ending)),
                Then::Release(_) => return Ok(Rest::LetGo),
                Then::Begin(steps) => self.start(case, steps),
                Then::Wait => {}
            }
            let heard = self.hear().await?;
            (case, then) = match heard {
                Heard::Done(at, outcome) => Box::pin(self.came(at, *outcome)).await?,
                Heard::TurnedBack => {
                    self.drop_all();
                    self.write(&Wrote::Nothing).await?
                }
                Heard::Aborted => {
                    self.stopped = true;
                    let rows = self.drop_all();
                    self.write(&Wrote::Dropped(&rows)).await?
                }
            };
        }
    }

    /// The one place where steps touch the world.
    fn start(&mut self, case: Case, steps: Vec<Begin>) {
        if steps.iter().any(|begin| begin.event.is_some()) {
            self.inner.announce(&case.tenant.id);
        }
        let case = Arc::new(case);
        for begin in steps {
            let (inner, of) = (self.inner.clone(), case.clone());
            let (scope, step) = (scope(self.claimed, &begin), begin.clone());
            self.running.spawn(async move {
                let at = step.at;
                let acted = failpoint::within(|| scope, Box::pin(act(&inner, &of, &step))).await;
                (at, acted)
            });
            let step = UnderWay {
                row: begin.row(),
                begin,
                case: case.clone(),
            };
            self.under_way.insert(step.begin.at, step);
        }
    }

    /// Waits for what is under way; the lease is renewed meanwhile.
    async fn hear(&mut self) -> Result<Heard, StoreError> {
        loop {
            let settled = self.settles.unwrap_or_else(|| Instant::now() + LONGEST_WAIT);
            let standing = tokio::select! {
                Some(joined) = self.running.join_next() => match joined {
                    Ok((at, outcome)) => return Ok(Heard::Done(at, Box::new(outcome))),
                    // A step that panics ends its worker, as it always did.
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => None,
                    },
                },
                () = self.inner.signals.abort.cancelled() => return Ok(Heard::Aborted),
                () = tokio::time::sleep_until(settled), if self.settles.is_some() => return Ok(Heard::TurnedBack),
                Ok(()) = self.decisions.changed() => self.renew().await?,
                _ = self.heartbeat.tick() => self.renew().await?,
            };
            let mut steps = self.under_way.values();
            let forward = steps.any(|step| step.begin.status == StepStatus::Running);
            let wished = standing == Some(OperationStatus::Undoing) && forward && !self.turned;
            if wished && self.settles.is_none() {
                self.settles = Some(Instant::now() + SETTLE);
            }
        }
    }

    /// Drops what is under way, as by a crash: whoever comes next finds whatever it has left. Answers the rows as they were
    /// before.
    fn drop_all(&mut self) -> Vec<StepRow> {
        self.running = JoinSet::new();
        self.settles = None;
        let dropped = std::mem::take(&mut self.under_way).into_values();
        dropped.map(|step| uncounted(&step)).collect()
    }

    /// A lease that cannot be renewed for a while is no reason to drop what runs: the fence decides in the end.
    async fn renew(&self) -> Result<Option<OperationStatus>, StoreError> {
        let parts = &self.inner.parts;
        let until = parts.clock.now().plus_seconds(parts.settings.lease_seconds);
        let renewed = async {
            let mut tx = parts.store.begin().await?;
            let key = (&self.claimed.id, self.claimed.fence);
            let standing = operation_leases::renew_lease(&mut tx, key, until).await?;
            tx.commit().await?;
            Ok(standing)
        };
        match renewed.await {
            Err(StoreError::Fenced { id }) => Err(StoreError::Fenced { id }),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(operation = %self.claimed.id, error, "failed to renew the lease");
                Ok(None)
            }
            Ok(standing) => Ok(Some(standing)),
        }
    }

    async fn write(&mut self, wrote: &Wrote<'_>) -> Result<(Case, Then), StoreError> {
        let follow = Follow {
            parts: &self.inner.parts,
            under_way: self.under_way.keys().copied().collect(),
            waiting: self.waiting.clone(),
            stops: self.stopped || self.inner.signals.stop.is_cancelled(),
        };
        let then_of = |case: &Case| follow.then(case);
        let of = (self.claimed, self.steps.as_slice());
        let written = record::write(&self.inner.parts, of, wrote, &then_of).await?;
        self.steps.clone_from(&written.0.steps);
        Ok(written)
    }

    /// Writes down what a step came to.
    async fn came(
        &mut self,
        at: usize,
        outcome: Result<Effects, StepError>,
    ) -> Result<(Case, Then), StoreError> {
        let Some(step) = self.under_way.remove(&at) else {
            return self.write(&Wrote::Nothing).await;
        };
        let scope = scope(self.claimed, &step.begin);
        let inner = self.inner;
        let recorded = async {
            let written = self.record(&step, outcome).await?;
            self.recorded = true;
            inner.announce(&step.case.tenant.id);
            inner.checkpoint(Checkpoint::Recorded).await;
            Ok(written)
        };
        failpoint::within(|| scope, Box::pin(recorded)).await
    }

    async fn record(
        &mut self,
        step: &UnderWay,
        outcome: Result<Effects, StepError>,
    ) -> Result<(Case, Then), StoreError> {
        match outcome {
            Ok(effects) => self.finish(step, &effects).await,
            Err(StepError::Stopped) => {
                self.stopped = true;
                self.write(&Wrote::Dropped(&[uncounted(step)])).await
            }
            Err(StepError::Retry { what, after, source })
                if step.row.attempts < self.inner.parts.settings.attempts =>
            {
                log_retry(&step.case, step.begin.definition, (&what, source));
                self.retry(step, (what, after)).await
            }
            Err(StepError::Retry { what, source, .. }) => {
                let failure = Failure {
                    code: "gave-up".to_owned(),
                    message: format!("{what}, {} times in a row", step.row.attempts),
                    hint: None,
                    source,
                    ..Failure::default()
                };
                self.fail(step, failure).await
            }
            Err(StepError::Fatal(failure)) => self.fail(step, *failure).await,
        }
    }

    async fn finish(&mut self, step: &UnderWay, effects: &Effects) -> Result<(Case, Then), StoreError> {
        let status = match step.begin.status {
            StepStatus::Undoing => StepStatus::Undone,
            _ => StepStatus::Done,
        };
        let mut cleared = Vec::new();
        for other in self.under_way.values_mut().filter(|other| other.row.attempts > 1) {
            other.row.attempts = 1;
            cleared.push(other.row.clone());
        }
        let wrote = Wrote::Done {
            row: &step.row,
            status,
            effects,
            makes: !step.begin.definition.makes.is_empty(),
            cleared: &cleared,
        };
        match self.write(&wrote).await {
            // What is done stands even where the end cannot be written.
            Err(
                StoreError::IllegalTransition { .. } | StoreError::Missing { .. } | StoreError::Duplicate(_),
            ) => {
                let of = (self.claimed, self.steps.as_slice());
                let (case, _) = record::write(&self.inner.parts, of, &wrote, &|_| Then::Wait).await?;
                (self.steps, self.recorded) = (case.steps, true);
                self.write(&Wrote::Nothing).await
            }
            written => written,
        }
    }

    async fn retry(
        &mut self,
        step: &UnderWay,
        (what, after): (String, Option<Duration>),
    ) -> Result<(Case, Then), StoreError> {
        let parts = &self.inner.parts;
        let after = after.unwrap_or_default().min(LONGEST_WAIT);
        let wait = backoff(parts, step.row.attempts).max(after);
        let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let run_at = Time::from_millis(parts.clock.now().as_millis().saturating_add(millis));
        let event = NewEvent::new("step_retrying", format!("{what}; trying again")).with(serde_json::json!({
            "step": step.row.name, "attempt": step.row.attempts, "retry_in_ms": millis,
        }));
        let row = StepRow {
            error: Some(what),
            ..step.row.clone()
        };
        self.waiting.push((step.begin.at, step.begin.status, run_at));
        self.write(&Wrote::Retry {
            row: &row,
            event: &event,
        })
        .await
    }

    async fn fail(&mut self, step: &UnderWay, failure: Failure) -> Result<(Case, Then), StoreError> {
        let (row, case) = (&step.row, &step.case);
        log_failure(case, row, &failure);
        let undo_failed = step.begin.status == StepStatus::Undoing;
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
            status: match undo_failed {
                true => StepStatus::UndoFailed,
                false => StepStatus::Failed,
            },
            error: Some(failure.message),
            ..row.clone()
        };
        let pivot = Plan::of(case).map_or(usize::MAX, |plan| plan.pivot());
        let undoing = !undo_failed && step.begin.at < pivot;
        self.turned |= undoing;
        self.write(&Wrote::Failed {
            row: &row,
            error: &error,
            told: &failure.events,
            undoing,
        })
        .await
    }
}

/// The row of a step whose try does not count.
fn uncounted(step: &UnderWay) -> StepRow {
    StepRow {
        attempts: step.begin.before.attempts,
        ..step.row.clone()
    }
}
