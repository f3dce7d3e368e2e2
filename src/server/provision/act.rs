//! One try of one step.

use crate::server::provision::Inner;
use crate::server::provision::context::{Case, StepContext, StepError};
use crate::server::provision::drive::Checkpoint;
use crate::server::provision::effects::Effects;
use crate::server::provision::patience::gave_up;
use crate::server::provision::saga::saga_of;
use crate::server::provision::written::Begin;
use crate::server::store::operation_steps::StepStatus;
use crate::server::store::operations::OperationRow;

/// Runs a step, or takes it back.
pub(super) async fn act(inner: &Inner, case: &Case, begin: &Begin) -> Result<Effects, StepError> {
    inner.checkpoint(Checkpoint::Begun).await;
    let cx = StepContext {
        parts: &inner.parts,
        case,
        stop: &inner.signals.stop,
    };
    let (step, before) = (begin.definition, &begin.before);
    let outcome = match (saga_of(&case.operation.kind), begin.status) {
        // A step that ends the process every time must not do so for ever.
        _ if before.attempts >= inner.parts.settings.attempts => Err(gave_up(step, before.error.as_deref())),
        (Some(saga), StepStatus::Undoing) => saga.undo(step.name, &cx).await,
        (Some(saga), _) => saga.run(step.name, &cx).await,
        // Nobody claims what it does not know.
        (None, _) => Err(StepError::Stopped),
    };
    inner.checkpoint(Checkpoint::Acted).await;
    outcome
}

/// By which name its places are known to tests.
pub(super) fn scope(operation: &OperationRow, begin: &Begin) -> String {
    let undo = match begin.status {
        StepStatus::Undoing => "/undo",
        _ => "",
    };
    format!("{}/{}{undo}", operation.kind, begin.definition.name)
}
