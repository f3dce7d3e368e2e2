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
    /// What the names of what it makes end with, where other steps make the same; for the ledger's lines.
    pub(super) ending: &'static str,
    /// Whether its output is used again when a failed operation is retried.
    pub(super) keep: bool,
    /// The steps that must be done before it; all those before it where it names none.
    pub(super) needs: Option<&'static [&'static str]>,
}

/// A step that leaves nothing behind, after all those before it.
pub(super) const fn step(name: &'static str) -> StepDefinition {
    StepDefinition {
        name,
        undo: false,
        makes: &[],
        ending: "",
        keep: false,
        needs: None,
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

    /// The same where other steps make things of the same kind.
    pub(super) const fn named(mut self, ending: &'static str) -> Self {
        self.ending = ending;
        self
    }

    /// The same with an output that outlives a failure.
    pub(super) const fn kept(mut self) -> Self {
        self.keep = true;
        self
    }

    /// The same, begun as soon as these steps are done, beside whatever else is under way. They come before it.
    pub(super) const fn after(mut self, needs: &'static [&'static str]) -> Self {
        self.needs = Some(needs);
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Run the steps at these positions, side by side.
    Run(Vec<usize>),
    /// Take back the step at this position.
    Undo(usize),
    /// Nothing is left to do.
    Finish(Ending),
}

/// What the decision must know of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whether it can be taken back.
    pub(super) undo: bool,
    /// The positions of what must be done before it, all of them earlier ones.
    pub(super) needs: Vec<usize>,
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

/// Decides what comes next; from position `pivot` on a failure is not taken back any more. Taking back goes from the last
/// step to the first, one at a time: nothing is taken away that a later step still stands on.
pub(super) fn next(rules: &[Rule], pivot: usize, standing: Standing<'_>) -> Next {
    let log = standing.log;
    let stopped = log.iter().position(|status| *status == StepStatus::Failed);
    let turned = log.iter().any(|status| {
        matches!(
            status,
            StepStatus::Undoing | StepStatus::UndoFailed | StepStatus::Undone
        )
    });
    if !standing.undoing && !turned {
        match stopped {
            Some(at) if at >= pivot => return Next::Finish(Ending::Stuck),
            Some(_) => {}
            None => {
                let ready = ready(rules, log);
                return match ready.is_empty() {
                    true => Next::Finish(Ending::Succeeded),
                    false => Next::Run(ready),
                };
            }
        }
    }
    if log.contains(&StepStatus::UndoFailed) {
        return Next::Finish(Ending::Stuck);
    }
    let left = log.iter().zip(rules).rposition(|(status, rule)| {
        let left_something = matches!(
            status,
            StepStatus::Running | StepStatus::Done | StepStatus::Failed | StepStatus::Undoing
        );
        rule.undo && left_something
    });
    match left {
        Some(at) => Next::Undo(at),
        None if standing.failed => Next::Finish(Ending::Failed),
        None => Next::Finish(Ending::Undone),
    }
}

/// The steps that are not done, and whatever they need is. The first that is not done is always one of them.
fn ready(rules: &[Rule], log: &[StepStatus]) -> Vec<usize> {
    let is_done = |at: &usize| log.get(*at) == Some(&StepStatus::Done);
    let open = rules.iter().enumerate().filter(|(at, _)| !is_done(at));
    open.filter(|(_, rule)| rule.needs.iter().all(is_done))
        .map(|(at, _)| at)
        .collect()
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
mod tests;
