//! Sagas: which steps an operation has, and the pure decision what comes next.

use std::sync::OnceLock;

use async_trait::async_trait;

use crate::server::failpoint;
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::effects::Effects;
use crate::server::provision::{
    activate, create_tenant, delete_tenant, deploy, repair, restart, rollback, rotate_credentials,
    rotate_jwt, set_sessions, suspend,
};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::StepStatus;

/// One step, as its operation's file declares it. Names are stored, so they are permanent.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepDefinition {
    /// Permanent, kebab-case.
    pub(super) name: &'static str,
    /// Whether it leaves something that is to be taken back.
    pub(super) undo: bool,
    /// What it makes, for the ledger's line before it is made.
    pub(super) makes: &'static [&'static str],
    /// Whether its output is used again when a failed operation is retried.
    pub(super) keep: bool,
}

/// A step that leaves nothing behind.
pub(super) const fn step(name: &'static str) -> StepDefinition {
    StepDefinition {
        name,
        undo: false,
        makes: &[],
        keep: false,
    }
}

impl StepDefinition {
    /// The same with an undo.
    pub(super) const fn undone(mut self) -> Self {
        self.undo = true;
        self
    }

    /// The same with an undo, making something that the ledger keeps.
    pub(super) const fn making(mut self, kinds: &'static [&'static str]) -> Self {
        self.undo = true;
        self.makes = kinds;
        self
    }

    /// The same with an output that outlives a failure.
    pub(super) const fn kept(mut self) -> Self {
        self.keep = true;
        self
    }
}

/// How an operation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Every step is done.
    Succeeded,
    /// A step failed; everything is taken back.
    Failed,
    /// Everything is taken back, as somebody wished.
    Undone,
    /// It can go neither on nor back by itself.
    Stuck,
    /// Somebody gave it up.
    Abandoned,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Run the step at this position.
    Run(usize),
    /// Take back the step at this position.
    Undo(usize),
    /// Nothing is left to do.
    Finish(Ending),
}

/// How an operation stands, in what matters for the decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing<'a> {
    /// The log: one status a step.
    pub(super) log: &'a [StepStatus],
    /// Whether it is on its way back.
    pub(super) undoing: bool,
    /// Whether it has an error: then going back ends as failed, else as undone.
    pub(super) failed: bool,
}

/// Decides what comes next. `undo` says of every step whether it can be taken back; from position `pivot` on
/// a failure is not taken back any more.
pub(super) fn next(undo: &[bool], pivot: usize, standing: Standing<'_>) -> Next {
    let log = standing.log;
    let forward = log.iter().position(|status| *status != StepStatus::Done);
    let stopped = forward.filter(|at| log[*at] == StepStatus::Failed);
    let turned = log.iter().any(|status| {
        matches!(
            status,
            StepStatus::Undoing | StepStatus::UndoFailed | StepStatus::Undone
        )
    });
    if !standing.undoing && !turned {
        match (forward, stopped) {
            (None, _) => return Next::Finish(Ending::Succeeded),
            (Some(_), Some(at)) if at >= pivot => return Next::Finish(Ending::Stuck),
            (Some(at), None) => return Next::Run(at),
            (Some(_), Some(_)) => {}
        }
    }
    if log.contains(&StepStatus::UndoFailed) {
        return Next::Finish(Ending::Stuck);
    }
    let left = log.iter().zip(undo).rposition(|(status, undo)| {
        let left_something = matches!(
            status,
            StepStatus::Running | StepStatus::Done | StepStatus::Failed | StepStatus::Undoing
        );
        *undo && left_something
    });
    match left {
        Some(at) => Next::Undo(at),
        None if standing.failed => Next::Finish(Ending::Failed),
        None => Next::Finish(Ending::Undone),
    }
}

/// One kind of operation.
#[async_trait]
pub(super) trait Saga: Send + Sync {
    /// Its steps in order.
    fn steps(&self) -> &'static [StepDefinition];

    /// Steps that are not queued any more; what was queued with them may still be there.
    fn retired(&self) -> &'static [StepDefinition] {
        &[]
    }

    /// The first position whose failure is not taken back any more.
    fn pivot(&self) -> usize {
        usize::MAX
    }

    /// What is told when a step is begun for the first time.
    fn announce(&self, _step: &str, _case: &Case) -> Option<NewEvent> {
        None
    }

    /// Runs a step. Called again after a crash or a retry, it adopts what an earlier call made.
    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError>;

    /// Takes a step back, done or half done. Called again it finds nothing left and succeeds.
    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError>;

    /// What is written in the same transaction in which the operation ends.
    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects;
}

/// Every kind of operation that this program knows.
///
/// Older and newer servers work side by side. What is queued keeps the steps that it was queued with, and a server takes
/// it up only if it knows all of them; so a step that does something else than before, or must know more, is a new step
/// with a new name, and one that is not queued any more stays known until nothing has it.
const KINDS: &[&str] = &[
    "create-tenant",
    "deploy",
    "rollback",
    "restart",
    "apply-secrets",
    "change-memory",
    "delete-tenant",
    "suspend",
    "activate",
    "rotate-credentials",
    "repair",
    "set-sessions",
    "rotate-jwt-secret",
    "end-jwt-overlap",
];

/// Everything that this program can do, each `kind/step` between commas, as the store compares it.
pub(super) fn known_steps() -> &'static str {
    static KNOWN: OnceLock<String> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let sagas = KINDS.iter().filter_map(|kind| Some((kind, saga_of(kind)?)));
        let all = sagas.flat_map(|(kind, saga)| {
            let steps = saga.steps().iter().chain(saga.retired());
            steps.map(move |step| format!("{kind}/{}", step.name))
        });
        let known: Vec<String> = all.filter(|name| !failpoint::forgets(name)).collect();
        format!(",{},", known.join(","))
    })
}

/// Every kind of operation with the names of its steps, so that a test can see that it has met all of them.
#[must_use]
pub fn operations() -> Vec<(&'static str, Vec<&'static str>)> {
    let steps = |kind: &&'static str| {
        let saga = saga_of(kind)?;
        Some((*kind, saga.steps().iter().map(|step| step.name).collect()))
    };
    KINDS.iter().filter_map(steps).collect()
}

/// The saga of a stored kind.
pub(super) fn saga_of(kind: &str) -> Option<&'static dyn Saga> {
    match kind {
        "create-tenant" => Some(&create_tenant::CreateTenant),
        "deploy" => Some(&deploy::Deploy),
        "rollback" => Some(&rollback::Rollback),
        "restart" | "apply-secrets" | "change-memory" => Some(&restart::Restart),
        "delete-tenant" => Some(&delete_tenant::DeleteTenant),
        "suspend" => Some(&suspend::Suspend),
        "activate" => Some(&activate::Activate),
        "repair" => Some(&repair::Repair),
        "set-sessions" => Some(&set_sessions::SetSessions),
        "rotate-jwt-secret" => Some(&rotate_jwt::RotateJwt::Begin),
        "end-jwt-overlap" => Some(&rotate_jwt::RotateJwt::End),
        "rotate-credentials" => Some(&rotate_credentials::RotateCredentials),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Ending, KINDS, Next, Standing, next, saga_of};
    use crate::server::store::operation_steps::StepStatus::{
        self, Done, Failed, Running, UndoFailed, Undoing, Undone, Waiting,
    };

    type State = (Vec<StepStatus>, bool, bool);

    /// Whether something of the step may be there.
    fn left(status: StepStatus) -> bool {
        matches!(status, Running | Done | Failed | Undoing | UndoFailed)
    }

    fn decide(undo: &[bool], pivot: usize, (log, undoing, failed): &State) -> Next {
        let standing = Standing {
            log,
            undoing: *undoing,
            failed: *failed,
        };
        next(undo, pivot, standing)
    }

    fn check(undo: &[bool], pivot: usize, state: &State, what: Next) {
        let log = &state.0;
        let undoable = |from: usize| (from..log.len()).filter(|at| undo[*at] && left(log[*at])).count();
        match what {
            Next::Run(at) => {
                assert!(log[..at].iter().all(|status| *status == Done), "{state:?}");
                assert!(matches!(log[at], Waiting | Running), "{state:?}");
                assert!(log[at + 1..].iter().all(|status| *status == Waiting), "{state:?}");
                assert!(!state.1, "{state:?}");
            }
            Next::Undo(at) => {
                assert!(undo[at] && log[at] != UndoFailed, "{state:?}");
                assert_eq!(undoable(at + 1), 0, "the last one first: {state:?}");
                let past = log.iter().skip(pivot).any(|status| *status == Failed);
                assert!(!past || state.1, "no way back after the pivot: {state:?}");
            }
            Next::Finish(Ending::Succeeded) => assert!(log.iter().all(|status| *status == Done)),
            Next::Finish(ending @ (Ending::Failed | Ending::Undone)) => {
                assert_eq!(undoable(0), 0, "nothing is left: {state:?}");
                assert_eq!(ending == Ending::Failed, state.2, "{state:?}");
            }
            Next::Finish(Ending::Stuck) => {
                let past = log.iter().skip(pivot).any(|status| *status == Failed);
                assert!(past || log.contains(&UndoFailed), "{state:?}");
            }
            Next::Finish(Ending::Abandoned) => panic!("only people abandon: {state:?}"),
        }
    }

    /// Everything that can follow: a step is done, fails for good, or its worker dies in the middle.
    fn follow(pivot: usize, (log, undoing, failed): &State, what: Next) -> Vec<State> {
        let with = |at: usize, status| {
            let mut log = log.clone();
            log[at] = status;
            log
        };
        match what {
            Next::Finish(_) => Vec::new(),
            Next::Run(at) => vec![
                (with(at, Done), *undoing, *failed),
                (with(at, Running), *undoing, *failed),
                (with(at, Failed), at < pivot, true),
            ],
            Next::Undo(at) => vec![
                (with(at, Undone), true, *failed),
                (with(at, Undoing), true, *failed),
                (with(at, UndoFailed), true, *failed),
            ],
        }
    }

    #[test]
    fn every_reachable_log_of_five_steps_is_decided_rightly() {
        let mut seen_endings = HashSet::new();
        for mask in 0..32_u32 {
            let undo: Vec<bool> = (0..5).map(|at| mask & (1 << at) != 0).collect();
            for pivot in 0..=5 {
                let mut open: Vec<State> = vec![(vec![Waiting; 5], false, false)];
                let mut seen: HashSet<State> = HashSet::new();
                while let Some(state) = open.pop() {
                    if !seen.insert(state.clone()) {
                        continue;
                    }
                    let what = decide(&undo, pivot, &state);
                    check(&undo, pivot, &state, what);
                    if let Next::Finish(ending) = what {
                        seen_endings.insert(format!("{ending:?}"));
                    }
                    open.extend(follow(pivot, &state, what));
                    // Somebody may wish it to be taken back at any time before the pivot.
                    if !state.1 && !state.2 {
                        open.push((state.0.clone(), true, false));
                    }
                }
            }
        }
        assert_eq!(seen_endings.len(), 4, "{seen_endings:?}");
    }

    #[test]
    fn every_way_ends() {
        for pivot in 0..=4 {
            for fail_at in 0..=4 {
                let (undo, mut state) = ([true; 4], (vec![Waiting; 4], false, false));
                let mut turns = 0;
                loop {
                    let what = decide(&undo, pivot, &state);
                    let Some(first) = follow(pivot, &state, what)
                        .into_iter()
                        .nth(if what == Next::Run(fail_at) { 2 } else { 0 })
                    else {
                        break;
                    };
                    state = first;
                    turns += 1;
                    assert!(turns <= 8, "pivot {pivot}, failure at {fail_at}: {state:?}");
                }
            }
        }
    }

    #[test]
    fn stored_names_are_permanent() {
        let mut lines = Vec::new();
        for kind in KINDS {
            let saga = saga_of(kind).expect("a saga of every kind");
            let names: Vec<&str> = saga.steps().iter().map(|step| step.name).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{kind}");
            lines.push(format!("{kind}: {}", names.join(" ")));
        }
        insta::assert_snapshot!(lines.join("\n"), @"
        create-tenant: start generate-secrets create-app create-volume allocate-addresses create-database store-secrets add-certificate
        deploy: start verify-image create-release pull release-command start-machine wait-ready switch-traffic drain-old
        rollback: start verify-image create-release pull start-machine wait-ready switch-traffic drain-old
        restart: start create-release pull start-machine wait-ready switch-traffic drain-old
        apply-secrets: start create-release pull start-machine wait-ready switch-traffic drain-old
        change-memory: start create-release pull start-machine wait-ready switch-traffic drain-old
        delete-tenant: start stop-machines detach-edge drop-database remove-volume remove-app remove-images destroy-secrets verify-absent
        suspend: stop-machines refuse-connections
        activate: allow-connections pull start-machine wait-ready switch-traffic
        rotate-credentials: start generate-password create-login create-release pull start-machine wait-ready switch-traffic drain-old lock-old-login drop-old-login store-secrets
        repair: stop-cut-off restore-networks restore-route pull start-machine wait-ready switch-traffic remove-surplus
        set-sessions: tell-edge
        rotate-jwt-secret: start generate-secret create-release pull start-machine wait-ready switch-traffic drain-old store-secrets
        end-jwt-overlap: start create-release pull start-machine wait-ready switch-traffic drain-old
        ");
    }
}
