//! The proofs themselves, the same for every saga.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use systemprompt::api::id::OperationId;
use systemprompt::api::operation::OperationStatus;
use systemprompt::server::provision::{Checkpoint, Decision, Hold, Work};
use systemprompt::server::world::Fault;
use tokio::sync::Notify;

use crate::sagas::rig::{Rig, Seen};

/// A saga under proof: from where it starts, and what must be true when it has ended.
pub(crate) struct Proof {
    pub(crate) prepared: Rig,
    pub(crate) work: Work,
    /// Must hold when it succeeded.
    pub(crate) complete: fn(&Rig, &Seen),
    /// Must hold when it failed and was taken back (or, where nothing can be taken back, is stuck).
    pub(crate) clean: fn(&Rig, &Seen),
}

/// What is only told to people, or done out of courtesy to visitors, is no reason to fail.
const TOLD_ONLY: &[&str] = &["provider.logs", "edge.waited", "provider.last_in_line"];

/// An operation that has not come to its end after so many deaths comes to none.
const MOST_LIVES: u64 = 200;

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

/// It has ended in this state.
pub(crate) fn ended(rig: &Rig, id: &OperationId, wanted: OperationStatus, what: &str) {
    let (row, steps) = block_on(rig.operation(id));
    assert_eq!(row.status, wanted, "{what}: {:?} {steps:#?}", row.error);
}

impl Proof {
    fn begin(&self) -> (Rig, OperationId) {
        let rig = self.prepared.copy();
        let id = block_on(rig.enqueue(self.work.clone())).expect("queued");
        (rig, id)
    }

    fn end(&self, rig: &Rig, id: &OperationId, wanted: OperationStatus, what: &str) {
        ended(rig, id, wanted, what);
        let seen = block_on(rig.look());
        match wanted {
            OperationStatus::Succeeded => (self.complete)(rig, &seen),
            _ => (self.clean)(rig, &seen),
        }
    }

    /// How often each call into the world is made when nothing goes wrong.
    fn calls(&self) -> BTreeMap<String, u64> {
        let (rig, id) = self.begin();
        let before = rig.world.change(|state| state.calls.clone()).expect("world");
        rig.run(&id, None);
        self.end(&rig, &id, OperationStatus::Succeeded, "nothing goes wrong");
        let mut calls = rig.world.change(|state| state.calls.clone()).expect("world");
        for (method, count) in before {
            if let Some(after) = calls.get_mut(&method) {
                *after -= count;
            }
        }
        calls.retain(|_, count| *count > 0);
        assert!(!calls.is_empty());
        calls
    }

    /// Every call into the world fails once: in a way that passes, or after having had its effect.
    pub(crate) fn survives_every_passing_fault(&self) {
        for (method, count) in self.calls() {
            for nth in 1..=count {
                for fault in [Fault::Retry, Fault::LostReply] {
                    let (rig, id) = self.begin();
                    rig.world.plan(&method, nth, fault).expect("planned");
                    rig.run(&id, None);
                    let what = format!("{fault:?} at call {nth} of {method}");
                    self.end(&rig, &id, OperationStatus::Succeeded, &what);
                }
            }
        }
    }

    /// Every call into the world fails for good: the saga ends in `wanted`. In the steps `after` the pivot no way leads
    /// back: there it waits for a decision, and a retry brings it to its end.
    pub(crate) fn fails_cleanly_at_every_call(&self, after: &[&str], wanted: OperationStatus) {
        let mut seen = BTreeSet::new();
        for (method, count) in self.calls() {
            // The registry's faults all pass: `survives_every_passing_fault` has them.
            if method.starts_with("images.") {
                continue;
            }
            for nth in 1..=count {
                let (rig, id) = self.begin();
                rig.world.plan(&method, nth, Fault::Fatal).expect("planned");
                rig.run(&id, None);
                let what = format!("fatal at call {nth} of {method}");
                let failed = block_on(rig.operation(&id)).0.error.map(|error| error.step);
                match failed {
                    None => {
                        assert!(TOLD_ONLY.contains(&method.as_str()), "{what} is not noticed");
                        self.end(&rig, &id, OperationStatus::Succeeded, &what);
                    }
                    Some(step) if after.contains(&step.as_str()) => {
                        self.goes_on_after_a_retry(&rig, &id, &what);
                        seen.insert(step);
                    }
                    Some(_) => self.end(&rig, &id, wanted, &what),
                }
            }
        }
        assert_eq!(seen.len(), after.len(), "only {seen:?} failed of {after:?}");
    }

    fn goes_on_after_a_retry(&self, rig: &Rig, id: &OperationId, what: &str) {
        let (row, steps) = block_on(rig.operation(id));
        assert_eq!(row.status, OperationStatus::Stuck, "{what}: {steps:#?}");
        let status = block_on(rig.decide(Decision::Retry, id));
        assert_eq!(status.expect("retried"), OperationStatus::Queued, "{what}");
        rig.run(id, None);
        self.end(rig, id, OperationStatus::Succeeded, &format!("{what}, retried"));
    }

    /// These calls fail, and the saga ends in `wanted`.
    pub(crate) fn ends_after(&self, faults: &[(&str, u64, Fault)], wanted: OperationStatus) {
        let (rig, id) = self.begin();
        for (method, nth, fault) in faults {
            rig.world.plan(method, *nth, *fault).expect("planned");
        }
        rig.run(&id, None);
        self.end(&rig, &id, wanted, &format!("{faults:?}"));
    }

    /// The process dies over and over, at the checkpoints of `pattern` in turn, until the operation rests. With
    /// `[Recorded]` every life does one step; with `[Acted, Recorded]` every step is done twice.
    pub(crate) fn survives_dying(
        &self,
        pattern: &[Checkpoint],
        fault: Option<&str>,
        wanted: OperationStatus,
    ) {
        let (rig, id) = self.begin();
        if let Some(method) = fault {
            // Whoever dies has called too, and nobody has heard the answer: each life finds the fault.
            let planned = rig
                .world
                .change(|state| (1..=MOST_LIVES).for_each(|nth| state.plan(method, nth, Fault::Fatal)));
            planned.expect("planned");
        }
        let mut lives = 0;
        for at in pattern.iter().cycle() {
            if !rig.run(&id, Some(dies_at(*at))) {
                break;
            }
            lives += 1;
            assert!(lives < MOST_LIVES, "{pattern:?} {fault:?}: it comes to no end");
        }
        assert!(lives > 1, "{pattern:?}: it died more than once");
        rig.world.change(|state| state.faults.clear()).expect("world");
        self.end(&rig, &id, wanted, &format!("dying at {pattern:?}, {lives} times"));
    }

    /// All patterns of dying, on the way forward and (where `fault` says how to turn it) on the way back.
    pub(crate) fn survives_every_death(&self, fault: &str, turned: OperationStatus) {
        use Checkpoint::{Acted, Begun, Claimed, Recorded};
        for pattern in [
            &[Recorded][..],
            &[Acted, Recorded],
            &[Begun, Recorded],
            &[Claimed, Recorded],
        ] {
            self.survives_dying(pattern, None, OperationStatus::Succeeded);
            self.survives_dying(pattern, Some(fault), turned);
        }
    }
}

/// Ends the process the first time a worker comes to this checkpoint; what runs beside it goes on until then.
fn dies_at(at: Checkpoint) -> (Hold, Arc<Notify>) {
    held_at(at, 1)
}

/// The same, and nothing passes that checkpoint.
pub(crate) fn passes_never(at: Checkpoint) -> (Hold, Arc<Notify>) {
    held_at(at, usize::MAX)
}

/// Holds the first `count` that come.
fn held_at(at: Checkpoint, count: usize) -> (Hold, Arc<Notify>) {
    let dies = Arc::new(Notify::new());
    let (signal, passed) = (dies.clone(), AtomicUsize::new(0));
    let hold: Hold = Arc::new(move |checkpoint| {
        if checkpoint == at && passed.fetch_add(1, Ordering::SeqCst) < count {
            signal.notify_one();
            return std::future::pending().boxed();
        }
        std::future::ready(()).boxed()
    });
    (hold, dies)
}

/// Prepares an installation once for all proofs of a saga: every work is done to its end.
pub(crate) fn prepared(works: &[Work]) -> Rig {
    static MADE: Mutex<Vec<(Vec<Work>, Rig)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, rig)) = made.iter().find(|(done, _)| done == works) {
        return rig.copy();
    }
    let rig = block_on(Rig::fresh());
    for work in works {
        let id = block_on(rig.enqueue(work.clone())).expect("queued");
        rig.run(&id, None);
        let (row, _) = block_on(rig.operation(&id));
        assert_eq!(row.status, OperationStatus::Succeeded, "{:?}", row.error);
    }
    let copy = rig.copy();
    made.push((works.to_vec(), rig));
    copy
}

/// Everything there is to see.
pub(crate) fn look(rig: &Rig) -> Seen {
    block_on(rig.look())
}
