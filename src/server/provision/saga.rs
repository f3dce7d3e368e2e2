//! Sagas: which steps an operation has, and the pure decision what comes next.

use async_trait::async_trait;

use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::effects::Effects;
use crate::server::provision::{
    activate, create_tenant, delete_tenant, deploy, restart, rotate_credentials, suspend,
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

/// The saga of a stored kind.
pub(super) fn saga_of(kind: &str) -> Option<&'static dyn Saga> {
    match kind {
        "create-tenant" => Some(&create_tenant::CreateTenant),
        "deploy" => Some(&deploy::Deploy),
        "restart" | "apply-secrets" | "change-memory" => Some(&restart::Restart),
        "delete-tenant" => Some(&delete_tenant::DeleteTenant),
        "suspend" => Some(&suspend::Suspend),
        "activate" => Some(&activate::Activate),
        "rotate-credentials" => Some(&rotate_credentials::RotateCredentials),
        _ => None,
    }
}
