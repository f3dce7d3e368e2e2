//! The course of an operation: steps are begun as soon as what they need is done, run side by side, and are written down as
//! they come, each in the transaction in which the next are begun; those that come together in one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval};

use crate::api::operation::OperationStatus;
use crate::api::time::Time;
use crate::server::failpoint;
use crate::server::provision::act::{act, scope};
use crate::server::provision::context::{Case, StepError};
use crate::server::provision::effects::Effects;
use crate::server::provision::follow::Follow;
use crate::server::provision::saga::Ending;
use crate::server::provision::written::{Begin, Then, Wrote};
use crate::server::provision::{Inner, record};
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::OperationRow;
use crate::server::store::{StoreError, operation_leases};

/// Nobody waits longer than this between two tries because a provider said so.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);
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
    pub(super) inner: &'a Arc<Inner>,
    pub(super) claimed: &'a OperationRow,
    running: JoinSet<Outcome>,
    /// Steps that have come to their end, which is not written down yet.
    ended: VecDeque<Outcome>,
    pub(super) under_way: BTreeMap<usize, UnderWay>,
    /// Steps that are tried again, once nothing else is under way.
    pub(super) waiting: Vec<(usize, StepStatus, Time)>,
    /// One of its steps has failed: what is under way beside it comes to its end.
    pub(super) turned: bool,
    /// Until then what is under way may come to its end.
    settles: Option<Instant>,
    pub(super) stopped: bool,
    pub(super) recorded: bool,
    /// The steps as they stood after the last write; none before the first.
    pub(super) steps: Vec<StepRow>,
    heartbeat: Interval,
    decisions: watch::Receiver<u64>,
}

/// The place of a step in the plan, and what it came to.
type Outcome = (usize, Result<Effects, StepError>);

/// A step that was begun.
pub(super) struct UnderWay {
    pub(super) begin: Begin,
    pub(super) row: StepRow,
    pub(super) case: Arc<Case>,
}

enum Heard {
    /// These steps have done what they should.
    Did(Vec<(usize, Effects)>),
    /// This step has not.
    DidNot(usize, Box<StepError>),
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
            ended: VecDeque::new(),
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
                Heard::Did(done) => Box::pin(self.did(done)).await?,
                Heard::DidNot(at, error) => Box::pin(self.did_not(at, *error)).await?,
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
            self.inner.announce_work(&case);
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
            if let Some(heard) = self.next_ended() {
                return Ok(heard);
            }
            let settled = self.settles.unwrap_or_else(|| Instant::now() + LONGEST_WAIT);
            let standing = tokio::select! {
                Some(joined) = self.running.join_next() => {
                    self.ended.extend(outcome(joined));
                    None
                }
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

    /// In the order in which they ended: those that have done what they should together, up to the first that has not.
    fn next_ended(&mut self) -> Option<Heard> {
        while let Some(joined) = self.running.try_join_next() {
            self.ended.extend(outcome(joined));
        }
        let good = self
            .ended
            .iter()
            .take_while(|(_, outcome)| outcome.is_ok())
            .count();
        if good == 0 {
            let (at, outcome) = self.ended.pop_front()?;
            return outcome.err().map(|error| Heard::DidNot(at, Box::new(error)));
        }
        let did = self.ended.drain(..good);
        let mut did: Vec<(usize, Effects)> = did
            .filter_map(|(at, outcome)| Some((at, outcome.ok()?)))
            .collect();
        did.sort_by_key(|(at, _)| *at);
        Some(Heard::Did(did))
    }

    /// Drops what is under way, as by a crash: whoever comes next finds whatever it has left. Answers the rows as they were
    /// before.
    fn drop_all(&mut self) -> Vec<StepRow> {
        self.running = JoinSet::new();
        self.ended.clear();
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

    /// Writes, and decides what follows.
    pub(super) async fn write(&mut self, wrote: &Wrote<'_>) -> Result<(Case, Then), StoreError> {
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
}

/// The row of a step whose try does not count.
pub(super) fn uncounted(step: &UnderWay) -> StepRow {
    StepRow {
        attempts: step.begin.before.attempts,
        ..step.row.clone()
    }
}

fn outcome(joined: Result<Outcome, JoinError>) -> Option<Outcome> {
    match joined {
        Ok(outcome) => Some(outcome),
        // A step that panics ends its worker, as it always did.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}
