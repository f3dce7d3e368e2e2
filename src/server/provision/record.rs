//! The one place where the engine writes: every transaction of a worker begins with the check of its fence.

use crate::server::provision::context::{Case, Parts};
use crate::server::provision::effects::Effects;
use crate::server::provision::held::Held;
use crate::server::provision::saga::Ending;
use crate::server::provision::written::{Then, ThenOf, Wrote};
use crate::server::store::StoreError;
use crate::server::store::operation_steps::StepRow;
use crate::server::store::operations::OperationRow;

/// Writes what became of steps and, in the same transaction, what follows: steps that are begun, the end of the operation,
/// or its return to the queue. Answers both, and how the operation stands then. `steps` are those of the last write, which
/// nobody but the holder of an operation changes; none where they are to be read.
pub(super) async fn write(
    parts: &Parts,
    (operation, steps): (&OperationRow, &[StepRow]),
    wrote: &Wrote<'_>,
    then_of: &ThenOf<'_>,
) -> Result<(Case, Then), StoreError> {
    let mut held = Held::begin(parts, operation).await?;
    held.write(wrote).await?;
    let mut case = held.case(steps, wrote).await?;
    held.tell_in_order(&mut case, wrote);
    let then = then_of(&case);
    held.follow(&case, &then).await?;
    if let Then::Begin(steps) = &then {
        for begin in steps {
            case.steps[begin.at] = begin.row();
        }
    }
    let place = match (wrote, &then) {
        (Wrote::Done { .. }, _) => "recording",
        (Wrote::Retry { .. }, _) => "retrying",
        (Wrote::Failed { .. }, _) => "failing",
        (Wrote::Dropped(_), _) | (Wrote::Nothing, Then::Release(_) | Then::Wait) => "giving-back",
        (Wrote::Nothing, Then::Begin(_)) => "beginning",
        (Wrote::Nothing, Then::End(..)) => "concluding",
    };
    held.commit(place, wrote).await?;
    Ok((case, then))
}

/// Writes the end of an operation: its state, the tenant's state and the last events, all or nothing.
pub(super) async fn conclude(
    parts: &Parts,
    case: &Case,
    ending: Ending,
    effects: &Effects,
) -> Result<(), StoreError> {
    let mut held = Held::begin(parts, &case.operation).await?;
    held.conclude(case, ending, effects).await?;
    held.commit("concluding", &Wrote::Nothing).await
}
