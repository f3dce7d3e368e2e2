//! What is written down of an operation in one transaction, and what follows from it.

use crate::api::operation::OperationError;
use crate::api::time::Time;
use crate::server::provision::context::Case;
use crate::server::provision::effects::Effects;
use crate::server::provision::saga::{Ending, StepDefinition};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};

/// What became of a step.
pub(super) enum Wrote<'a> {
    /// Nothing was done yet.
    Nothing,
    /// These were run, or taken back; in the order of the plan.
    Done {
        all: &'a [Done<'a>],
        /// Steps under way beside them that an earlier worker had begun, with their tries counted anew: whatever has ended
        /// that one, it was not they.
        cleared: &'a [StepRow],
    },
    /// It is to be tried again.
    Retry { row: &'a StepRow, event: &'a NewEvent },
    /// It failed for good.
    Failed {
        row: &'a StepRow,
        error: &'a OperationError,
        told: &'a [NewEvent],
        undoing: bool,
    },
    /// These were dropped in the middle. The tries do not count.
    Dropped(&'a [StepRow]),
}

/// A step that has come to its end.
pub(super) struct Done<'a> {
    pub(super) row: &'a StepRow,
    pub(super) status: StepStatus,
    pub(super) effects: &'a Effects,
    /// Whether it puts into the ledger what it is about to make.
    pub(super) makes: bool,
    /// By which name its places are known to tests.
    pub(super) scope: &'a str,
}

/// What is begun, or ended, in the transaction in which the last thing was written.
pub(super) enum Then {
    /// Others are under way: one of them says more.
    Wait,
    /// These steps are begun.
    Begin(Vec<Begin>),
    /// The operation has come to its end.
    End(Ending, Box<Effects>),
    /// It is given back to the queue until that time.
    Release(Time),
}

/// A step that is begun.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    /// Its place in the plan.
    pub(super) at: usize,
    /// What is known of it.
    pub(super) definition: &'static StepDefinition,
    /// `Running` or `Undoing`.
    pub(super) status: StepStatus,
    /// How it stood before.
    pub(super) before: StepRow,
    /// What is told with its beginning.
    pub(super) event: Option<NewEvent>,
}

impl Begin {
    /// The row from now on.
    pub(super) fn row(&self) -> StepRow {
        StepRow {
            status: self.status,
            attempts: self.before.attempts + 1,
            ..self.before.clone()
        }
    }
}

/// Decides what follows, from how the operation stands with what was just written.
pub(super) type ThenOf<'a> = dyn Fn(&Case) -> Then + Send + Sync + 'a;
