//! A worker's transaction: what it writes together goes to the database together, in one statement for each table.

use crate::api::id::{OperationId, ResourceId, TenantId};
use crate::api::operation::{OperationError, OperationStatus};
use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::failpoint;
use crate::server::provision::apply::{apply_rows, conclude_in, put_made};
use crate::server::provision::context::{Case, Parts};
use crate::server::provision::effects::Effects;
use crate::server::provision::saga::Ending;
use crate::server::provision::written::{Begin, Done, Then, Wrote};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::{OperationRow, Transition};
use crate::server::store::resources::NewResource;
use crate::server::store::{
    StoreError, Tx, events, operation_leases, operation_steps, operations, resources, tenants,
};

/// A worker's transaction; nothing can be written through it once somebody else holds the operation.
pub(super) struct Held<'a> {
    tx: Tx,
    clock: &'a Clock,
    operation: &'a OperationRow,
    now: Time,
    /// The operation as it stood when this was begun; people may have decided something since it was read.
    standing: OperationRow,
    unwritten: Unwritten,
}

/// What is written before the transaction ends.
#[derive(Default)]
struct Unwritten {
    steps: Vec<StepRow>,
    events: Vec<NewEvent>,
    intended: Vec<Intended>,
}

/// What a step is about to make.
struct Intended {
    kind: &'static str,
    name: String,
    step: &'static str,
}

impl<'a> Held<'a> {
    pub(super) async fn begin(parts: &'a Parts, operation: &'a OperationRow) -> Result<Self, StoreError> {
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
            unwritten: Unwritten::default(),
        })
    }

    fn step(&mut self, step: &StepRow) {
        let steps = &mut self.unwritten.steps;
        match steps.iter_mut().find(|other| other.position == step.position) {
            Some(other) => other.clone_from(step),
            None => steps.push(step.clone()),
        }
    }

    fn tell(&mut self, event: &NewEvent) {
        self.unwritten.events.push(event.clone());
    }

    const fn whose(&self) -> (&'a TenantId, &'a OperationId) {
        (&self.operation.tenant_id, &self.operation.id)
    }

    /// Lines of the history say how the tenant stood when they were told: before that changes they are written.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let Unwritten {
            steps,
            events,
            intended,
        } = std::mem::take(&mut self.unwritten);
        let (tenant, operation) = self.whose();
        operation_steps::update(&mut self.tx, operation, &steps, self.now).await?;
        events::append_all(&mut self.tx, tenant, Some(operation), &events, self.now).await?;
        let lines: Vec<NewResource<'_>> = intended
            .iter()
            .map(|intended| NewResource {
                id: ResourceId::new(self.clock.uuid()),
                kind: intended.kind,
                external_id: &intended.name,
                step: intended.step,
            })
            .collect();
        resources::put_intended(&mut self.tx, (tenant, operation), &lines, self.now).await
    }

    /// What a step is about to make stands in the ledger before it is made.
    fn begin_step(&mut self, label: &str, begin: &Begin) {
        self.step(&begin.row());
        if begin.status == StepStatus::Running {
            let step = begin.definition;
            self.unwritten
                .intended
                .extend(step.makes.iter().map(|kind| Intended {
                    kind,
                    name: format!("{label}{}", step.ending),
                    step: step.name,
                }));
        }
        if let Some(event) = &begin.event {
            self.tell(event);
        }
    }

    /// What became of steps.
    pub(super) async fn write(&mut self, wrote: &Wrote<'_>) -> Result<(), StoreError> {
        match wrote {
            Wrote::Nothing => {}
            Wrote::Done { all, cleared } => {
                for other in *cleared {
                    self.step(other);
                }
                self.finish_steps(all).await?;
            }
            Wrote::Retry { row, event } => {
                self.step(row);
                // Of what is taken back nothing is tried again.
                if row.status != StepStatus::Running || self.standing.status != OperationStatus::Undoing {
                    self.tell(event);
                }
            }
            Wrote::Failed {
                row,
                error,
                told,
                undoing,
            } => self.fail_step(row, error, (told, *undoing)).await?,
            Wrote::Dropped(rows) => rows.iter().for_each(|row| self.step(row)),
        }
        Ok(())
    }

    async fn finish_steps(&mut self, all: &[Done<'_>]) -> Result<(), StoreError> {
        let makers: Vec<&str> = all
            .iter()
            .filter(|done| done.makes)
            .map(|done| done.row.name.as_str())
            .collect();
        if !makers.is_empty() {
            let whose = self.whose();
            resources::forget_intended(&mut self.tx, whose, &makers).await?;
        }
        let made = all.iter().map(|done| (done.row.name.as_str(), done.effects));
        put_made(&mut self.tx, (self.clock, self.now), self.operation, made).await?;
        for done in all {
            let (row, status, effects) = (done.row, done.status, done.effects);
            let mut ended = StepRow {
                status,
                // What is taken back keeps why it failed: it is the only place where that stands.
                error: row.error.clone().filter(|_| status == StepStatus::Undone),
                ..row.clone()
            };
            if !effects.output.is_null() {
                ended.output = effects.output.clone();
            }
            self.step(&ended);
            apply_rows(&mut self.tx, self.now, &self.operation.tenant_id, effects).await?;
        }
        Ok(())
    }

    /// What steps that run side by side have to tell is told in the order of the plan: whoever is done before those that
    /// come before it leaves it in its row, and the last of them tells it.
    pub(super) fn tell_in_order(&mut self, case: &mut Case, wrote: &Wrote<'_>) {
        let Wrote::Done { all, .. } = wrote else { return };
        for (index, done) in all.iter().enumerate() {
            self.tell_done(case, done, &all[index + 1..]);
        }
    }

    /// `rest`: steps behind this one whose turn is yet to come.
    fn tell_done(&mut self, case: &mut Case, done: &Done<'_>, rest: &[Done<'_>]) {
        let (row, events) = (done.row, &done.effects.events);
        let (before, after): (Vec<&StepRow>, Vec<&StepRow>) = case
            .steps
            .iter()
            .filter(|other| other.position != row.position)
            .partition(|other| other.position < row.position);
        let is_done = |row: &&StepRow| row.status == StepStatus::Done;
        if done.status != StepStatus::Done || before.iter().all(is_done) {
            let has_its_turn = |row: &&StepRow| !rest.iter().any(|other| other.row.position == row.position);
            let later = after
                .into_iter()
                .take_while(|row| done.status == StepStatus::Done && is_done(row) && has_its_turn(row));
            let later: Vec<NewEvent> = later.flat_map(left_to_tell).collect();
            for event in events.iter().chain(&later) {
                self.tell(event);
            }
            return;
        }
        let kept = case.steps.iter_mut().find(|other| other.position == row.position);
        if let (Some(kept), false) = (kept, events.is_empty()) {
            if !kept.output.is_object() {
                kept.output = serde_json::json!({});
            }
            kept.output[TOLD_LATER] = serde_json::json!(events);
            self.step(kept);
        }
    }

    async fn fail_step(
        &mut self,
        row: &StepRow,
        error: &OperationError,
        (told, undoing): (&[NewEvent], bool),
    ) -> Result<(), StoreError> {
        self.step(row);
        let id = &self.operation.id;
        // Another one has failed before, or somebody wished it to be taken back: that is why it ends.
        if undoing && self.standing.status == OperationStatus::Undoing {
            return Ok(());
        }
        for event in told {
            self.tell(event);
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

    /// What comes next.
    pub(super) async fn follow(&mut self, case: &Case, then: &Then) -> Result<(), StoreError> {
        match then {
            Then::Wait => Ok(()),
            Then::Begin(steps) => {
                for begin in steps {
                    self.begin_step(&case.tenant.label, begin);
                }
                Ok(())
            }
            Then::End(ending, effects) => self.conclude(case, *ending, effects).await,
            Then::Release(run_at) => {
                let key = (&self.operation.id, self.operation.fence);
                operation_leases::release(&mut self.tx, key, *run_at, self.now).await
            }
        }
    }

    /// The end of the operation.
    pub(super) async fn conclude(
        &mut self,
        case: &Case,
        ending: Ending,
        effects: &Effects,
    ) -> Result<(), StoreError> {
        self.flush().await?;
        conclude_in(&mut self.tx, (self.clock, self.now), case, ending, effects).await
    }

    /// The operation as it stands with what was just written. `steps` are those of the last write; none where they are to
    /// be read.
    pub(super) async fn case(&mut self, steps: &[StepRow], wrote: &Wrote<'_>) -> Result<Case, StoreError> {
        let id = &self.operation.id;
        // A failure turns the operation too.
        if matches!(wrote, Wrote::Failed { .. }) {
            self.flush().await?;
            return Case::load_in(&mut self.tx, id).await;
        }
        let mut steps = match steps {
            [] => operation_steps::list(&mut self.tx, id).await?,
            steps => steps.to_vec(),
        };
        for changed in &self.unwritten.steps {
            if let Some(step) = steps.iter_mut().find(|step| step.position == changed.position) {
                *step = changed.clone();
            }
        }
        Ok(Case {
            operation: self.standing.clone(),
            tenant: tenants::get(&mut self.tx, &self.operation.tenant_id).await?,
            steps,
        })
    }

    /// Everything is written and nothing of it lasts yet; then all of it does.
    pub(super) async fn commit(mut self, place: &str, wrote: &Wrote<'_>) -> Result<(), StoreError> {
        self.flush().await?;
        match wrote {
            Wrote::Done { all, .. } => {
                for done in *all {
                    failpoint::within(|| done.scope.to_owned(), async { failpoint::pass(place) }).await;
                }
            }
            _ => failpoint::pass(place),
        }
        self.tx.commit().await
    }
}

/// Where a step's row keeps what is told once those before it are done.
const TOLD_LATER: &str = "told_later";

fn left_to_tell(row: &StepRow) -> Vec<NewEvent> {
    let left = row.output.get(TOLD_LATER).cloned().unwrap_or_default();
    serde_json::from_value(left).unwrap_or_default()
}
