//! The one place where the engine writes: every transaction of a worker begins with the check of its fence.

use crate::api::id::{OperationId, ResourceId};
use crate::api::operation::{OperationError, OperationStatus};
use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::failpoint;
use crate::server::provision::apply::apply_rows;
use crate::server::provision::context::{Case, Parts};
use crate::server::provision::effects::Effects;
use crate::server::provision::saga::Ending;
use crate::server::provision::written::{Begin, Then, ThenOf, Wrote};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::{OperationRow, Transition};
use crate::server::store::resources::MadeBy;
use crate::server::store::{
    Store, StoreError, Tx, events, operation_leases, operation_steps, operations, resources, tenants,
};

/// Reads an operation as it stands.
pub(super) async fn load(store: &Store, id: &OperationId) -> Result<Case, StoreError> {
    let mut tx = store.begin_read().await?;
    load_in(&mut tx, id).await
}

/// Reads an operation as it stands, in a transaction of the caller.
pub(super) async fn load_in(tx: &mut Tx, id: &OperationId) -> Result<Case, StoreError> {
    let operation = operations::get(tx, id).await?;
    let tenant = tenants::get(tx, &operation.tenant_id).await?;
    let steps = operation_steps::list(tx, id).await?;
    Ok(Case {
        operation,
        tenant,
        steps,
    })
}

/// A worker's transaction; nothing can be written through it once somebody else holds the operation.
struct Held<'a> {
    tx: Tx,
    clock: &'a Clock,
    operation: &'a OperationRow,
    now: Time,
    /// The operation as it stood when this was begun; people may have decided something since it was read.
    standing: OperationRow,
    /// Its steps as far as they were written since.
    steps: Vec<StepRow>,
}

impl<'a> Held<'a> {
    async fn begin(parts: &'a Parts, operation: &'a OperationRow) -> Result<Self, StoreError> {
        let now = parts.clock.now();
        let mut tx = parts.store.begin().await?;
        let key = (&operation.id, operation.fence);
        let standing = operation_leases::check_fence(&mut tx, key, now).await?;
        Ok(Self {
            tx,
            clock: &parts.clock,
            operation,
            now,
            standing,
            steps: Vec::new(),
        })
    }

    async fn step(&mut self, step: &StepRow) -> Result<(), StoreError> {
        operation_steps::update(&mut self.tx, &self.operation.id, step, self.now).await?;
        self.steps.push(step.clone());
        Ok(())
    }

    async fn tell(&mut self, event: &NewEvent) -> Result<(), StoreError> {
        let (tenant, operation) = (&self.operation.tenant_id, &self.operation.id);
        events::append(&mut self.tx, tenant, Some(operation), event, self.now)
            .await
            .map(drop)
    }

    fn by<'b>(&self, step: &'b str) -> MadeBy<'b>
    where
        'a: 'b,
    {
        MadeBy {
            operation: &self.operation.id,
            step,
        }
    }

    /// What a step is about to make stands in the ledger before it is made.
    async fn begin_step(&mut self, label: &str, begin: &Begin) -> Result<(), StoreError> {
        self.step(&begin.row()).await?;
        if begin.status == StepStatus::Running {
            for kind in begin.definition.makes {
                let id = ResourceId::new(self.clock.uuid());
                let by = self.by(begin.definition.name);
                let of = (&self.operation.tenant_id, by);
                resources::put_intended(&mut self.tx, &id, of, (*kind, label), self.now).await?;
            }
        }
        match &begin.event {
            Some(event) => self.tell(event).await,
            None => Ok(()),
        }
    }

    async fn write(&mut self, wrote: &Wrote<'_>) -> Result<(), StoreError> {
        match wrote {
            Wrote::Nothing => Ok(()),
            Wrote::Done {
                row,
                status,
                effects,
                makes,
                cleared,
            } => {
                for other in *cleared {
                    self.step(other).await?;
                }
                if *makes {
                    let by = self.by(&row.name);
                    resources::forget_intended(&mut self.tx, &self.operation.tenant_id, by).await?;
                }
                self.finish_step((row, *status), effects).await
            }
            Wrote::Retry { row, event } => {
                self.step(row).await?;
                // Of what is taken back nothing is tried again.
                if row.status == StepStatus::Running && self.standing.status == OperationStatus::Undoing {
                    return Ok(());
                }
                self.tell(event).await
            }
            Wrote::Failed {
                row,
                error,
                told,
                undoing,
            } => self.fail_step(row, error, (told, *undoing)).await,
            Wrote::Dropped(rows) => {
                for row in *rows {
                    self.step(row).await?;
                }
                Ok(())
            }
        }
    }

    async fn finish_step(
        &mut self,
        (row, status): (&StepRow, StepStatus),
        effects: &Effects,
    ) -> Result<(), StoreError> {
        let mut done = StepRow {
            status,
            // What is taken back keeps why it failed: it is the only place where that stands.
            error: row.error.clone().filter(|_| status == StepStatus::Undone),
            ..row.clone()
        };
        if !effects.output.is_null() {
            done.output = effects.output.clone();
        }
        self.step(&done).await?;
        let at = (self.clock, self.now);
        apply_rows(&mut self.tx, at, (self.operation, &row.name), effects).await
    }

    /// What steps that run side by side have to tell is told in the order of the plan: whoever is done before those that
    /// come before it leaves it in its row, and the last of them tells it.
    async fn tell_in_order(&mut self, case: &mut Case, wrote: &Wrote<'_>) -> Result<(), StoreError> {
        let Wrote::Done {
            row, status, effects, ..
        } = wrote
        else {
            return Ok(());
        };
        let (before, after): (Vec<&StepRow>, Vec<&StepRow>) = case
            .steps
            .iter()
            .filter(|other| other.position != row.position)
            .partition(|other| other.position < row.position);
        let is_done = |row: &&StepRow| row.status == StepStatus::Done;
        if *status != StepStatus::Done || before.iter().all(is_done) {
            let later = after
                .into_iter()
                .take_while(is_done)
                .filter(|_| *status == StepStatus::Done);
            let later: Vec<NewEvent> = later.flat_map(left_to_tell).collect();
            for event in effects.events.iter().chain(&later) {
                self.tell(event).await?;
            }
            return Ok(());
        }
        let done = case.steps.iter_mut().find(|other| other.position == row.position);
        if let (Some(done), false) = (done, effects.events.is_empty()) {
            if !done.output.is_object() {
                done.output = serde_json::json!({});
            }
            done.output[TOLD_LATER] = serde_json::json!(effects.events);
            self.step(done).await?;
        }
        Ok(())
    }

    async fn fail_step(
        &mut self,
        row: &StepRow,
        error: &OperationError,
        (told, undoing): (&[NewEvent], bool),
    ) -> Result<(), StoreError> {
        self.step(row).await?;
        let id = &self.operation.id;
        // Another one has failed before, or somebody wished it to be taken back: that is why it ends.
        if undoing && self.standing.status == OperationStatus::Undoing {
            return Ok(());
        }
        for event in told {
            self.tell(event).await?;
        }
        if undoing && self.standing.status == OperationStatus::Running {
            let turn = Transition {
                to: OperationStatus::Undoing,
                error: Some(error.clone()),
                result: None,
            };
            operations::transition(&mut self.tx, id, &turn, self.now).await
        } else {
            operations::set_error(&mut self.tx, id, error).await
        }
    }

    async fn follow(&mut self, case: &Case, then: &Then) -> Result<(), StoreError> {
        match then {
            Then::Wait => Ok(()),
            Then::Begin(steps) => {
                for begin in steps {
                    self.begin_step(&case.tenant.label, begin).await?;
                }
                Ok(())
            }
            Then::End(ending, effects) => {
                conclude_in(&mut self.tx, (self.clock, self.now), case, *ending, effects).await
            }
            Then::Release(run_at) => {
                let key = (&self.operation.id, self.operation.fence);
                operation_leases::release(&mut self.tx, key, *run_at, self.now).await
            }
        }
    }

    /// The operation as it stands with what was just written.
    async fn case(&mut self, steps: &[StepRow], wrote: &Wrote<'_>) -> Result<Case, StoreError> {
        // A failure turns the operation too.
        if steps.is_empty() || matches!(wrote, Wrote::Failed { .. }) {
            return load_in(&mut self.tx, &self.operation.id).await;
        }
        let mut steps = steps.to_vec();
        for written in &self.steps {
            if let Some(step) = steps.iter_mut().find(|step| step.position == written.position) {
                *step = written.clone();
            }
        }
        Ok(Case {
            operation: self.standing.clone(),
            tenant: tenants::get(&mut self.tx, &self.operation.tenant_id).await?,
            steps,
        })
    }

    /// Everything is written and nothing of it lasts yet; then all of it does.
    async fn commit(self, written: &str) -> Result<(), StoreError> {
        failpoint::pass(written);
        self.tx.commit().await
    }
}

/// Where a step's row keeps what is told once those before it are done.
const TOLD_LATER: &str = "told_later";

fn left_to_tell(row: &StepRow) -> Vec<NewEvent> {
    let left = row.output.get(TOLD_LATER).cloned().unwrap_or_default();
    serde_json::from_value(left).unwrap_or_default()
}

/// Writes what became of a step and, in the same transaction, what follows: steps that are begun, the end of the operation,
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
    held.tell_in_order(&mut case, wrote).await?;
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
    held.commit(place).await?;
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
    conclude_in(&mut held.tx, (&parts.clock, held.now), case, ending, effects).await?;
    held.commit("concluding").await
}

/// The same in a transaction of the caller, who has made sure that nobody else holds the operation.
pub(super) async fn conclude_in(
    tx: &mut Tx,
    at: (&Clock, Time),
    case: &Case,
    ending: Ending,
    effects: &Effects,
) -> Result<(), StoreError> {
    apply_rows(tx, at, (&case.operation, "end"), effects).await?;
    for event in &effects.events {
        events::append(tx, &case.tenant.id, Some(&case.operation.id), event, at.1).await?;
    }
    let end = Transition {
        to: match ending {
            Ending::Succeeded => OperationStatus::Succeeded,
            Ending::Failed => OperationStatus::Failed,
            Ending::Undone => OperationStatus::Undone,
            Ending::Stuck => OperationStatus::Stuck,
            Ending::Abandoned => OperationStatus::Abandoned,
        },
        error: effects.error.clone(),
        result: effects.result.clone(),
    };
    operations::transition(tx, &case.operation.id, &end, at.1).await
}
