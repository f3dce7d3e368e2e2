//! The one place where the engine writes: every transaction of a worker begins with the check of its fence.

use crate::api::id::{OperationId, ResourceId};
use crate::api::operation::{OperationError, OperationStatus};
use crate::api::release::ReleaseStatus;
use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::failpoint;
use crate::server::provision::context::{Case, Parts};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::saga::{Ending, StepDefinition};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::Transition;
use crate::server::store::resources::MadeBy;
use crate::server::store::tenant_keys::TenantKeyRow;
use crate::server::store::{
    Store, StoreError, Tx, credential_grants, edge_sessions, events, log_chunks, log_positions,
    metric_blocks, operation_leases, operation_steps, operations, receipts, releases, resources,
    secret_versions, tenant_keys, tenant_life, tenants,
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
    case: &'a Case,
    now: Time,
    /// How the operation stands now; people may have decided something since it was read.
    status: OperationStatus,
}

impl<'a> Held<'a> {
    async fn begin(parts: &'a Parts, case: &'a Case) -> Result<Self, StoreError> {
        let now = parts.clock.now();
        let mut tx = parts.store.begin().await?;
        let key = (&case.operation.id, case.operation.fence);
        let status = operation_leases::check_fence(&mut tx, key, now).await?;
        Ok(Self {
            tx,
            clock: &parts.clock,
            case,
            now,
            status,
        })
    }

    async fn step(&mut self, step: &StepRow) -> Result<(), StoreError> {
        operation_steps::update(&mut self.tx, &self.case.operation.id, step, self.now).await
    }

    async fn tell(&mut self, event: &NewEvent) -> Result<(), StoreError> {
        let (tenant, operation) = (&self.case.tenant.id, &self.case.operation.id);
        events::append(&mut self.tx, tenant, Some(operation), event, self.now)
            .await
            .map(drop)
    }

    async fn apply(&mut self, step: &str, effects: &Effects) -> Result<(), StoreError> {
        apply(&mut self.tx, (self.clock, self.now), (self.case, step), effects).await
    }

    /// Everything is written and nothing of it lasts yet; then all of it does.
    async fn commit(self, written: &str) -> Result<(), StoreError> {
        failpoint::pass(written);
        self.tx.commit().await
    }
}

/// Writes that a step is begun: what it is about to make stands in the ledger before it is made. Answers `false`, with
/// nothing written, when somebody has wished meanwhile that the operation is taken back.
pub(super) async fn begin_step(
    parts: &Parts,
    case: &Case,
    (definition, status): (&StepDefinition, StepStatus),
    event: Option<NewEvent>,
    row: &StepRow,
) -> Result<bool, StoreError> {
    let mut held = Held::begin(parts, case).await?;
    if status == StepStatus::Running && held.status == OperationStatus::Undoing {
        return Ok(false);
    }
    held.step(&StepRow {
        status,
        attempts: row.attempts + 1,
        ..row.clone()
    })
    .await?;
    if status == StepStatus::Running {
        for kind in definition.makes {
            let (id, by) = (
                ResourceId::new(parts.clock.uuid()),
                made_by(case, definition.name),
            );
            let line = (*kind, case.tenant.label.as_str());
            resources::put_intended(&mut held.tx, &id, (&case.tenant.id, by), line, held.now).await?;
        }
    }
    if let Some(event) = &event {
        held.tell(event).await?;
    }
    held.commit("beginning").await?;
    Ok(true)
}

/// Writes what a step did, run or taken back; answers how the operation stands then. Where that was the last one, its end
/// is written with it, if `ending_of` is there to say what that means.
pub(super) async fn finish_step(
    parts: &Parts,
    case: &Case,
    (row, status): (&StepRow, StepStatus),
    effects: &Effects,
    ending_of: Option<&EndingOf<'_>>,
) -> Result<(Case, Option<Ending>), StoreError> {
    let mut held = Held::begin(parts, case).await?;
    let by = made_by(case, &row.name);
    resources::forget_intended(&mut held.tx, &case.tenant.id, by).await?;
    let output = if effects.output.is_null() {
        &row.output
    } else {
        &effects.output
    };
    held.step(&StepRow {
        status,
        output: output.clone(),
        // What is taken back keeps why it failed: it is the only place where that stands.
        error: row.error.clone().filter(|_| status == StepStatus::Undone),
        ..row.clone()
    })
    .await?;
    held.apply(&row.name, effects).await?;
    let after = load_in(&mut held.tx, &case.operation.id).await?;
    let end = ending_of.and_then(|ending_of| ending_of(&after));
    if let Some((ending, effects)) = &end {
        conclude_in(&mut held.tx, (&parts.clock, held.now), &after, *ending, effects).await?;
    }
    held.commit("recording").await?;
    Ok((after, end.map(|(ending, _)| ending)))
}

/// How an operation that stands so ends, and what is written then; `None` while something is left to do.
pub(super) type EndingOf<'a> = dyn Fn(&Case) -> Option<(Ending, Effects)> + Send + Sync + 'a;

/// Writes that a step is tried again at `run_at`, and gives the operation back to the queue.
pub(super) async fn retry_step(
    parts: &Parts,
    case: &Case,
    row: &StepRow,
    (event, run_at): (&NewEvent, Time),
) -> Result<(), StoreError> {
    let mut held = Held::begin(parts, case).await?;
    held.step(row).await?;
    held.tell(event).await?;
    let key = (&case.operation.id, case.operation.fence);
    operation_leases::release(&mut held.tx, key, run_at, held.now).await?;
    held.commit("retrying").await
}

/// Writes that a step failed for good. The operation stays with the worker, which asks what comes next.
pub(super) async fn fail_step(
    parts: &Parts,
    case: &Case,
    row: &StepRow,
    (error, told, undoing): (&OperationError, &[NewEvent], bool),
) -> Result<(), StoreError> {
    let mut held = Held::begin(parts, case).await?;
    held.step(row).await?;
    for event in told {
        held.tell(event).await?;
    }
    let id = &case.operation.id;
    if undoing && held.status == OperationStatus::Running {
        let turn = Transition {
            to: OperationStatus::Undoing,
            error: Some(error.clone()),
            result: None,
        };
        operations::transition(&mut held.tx, id, &turn, held.now).await?;
    } else {
        operations::set_error(&mut held.tx, id, error).await?;
    }
    held.commit("failing").await
}

/// Gives an operation back without having done anything, at a stop of the server. The try does not count.
pub(super) async fn give_back(parts: &Parts, case: &Case, row: Option<&StepRow>) -> Result<(), StoreError> {
    let mut held = Held::begin(parts, case).await?;
    if let Some(row) = row {
        held.step(row).await?;
    }
    let key = (&case.operation.id, case.operation.fence);
    operation_leases::release(&mut held.tx, key, held.now, held.now).await?;
    held.commit("giving-back").await
}

/// Writes the end of an operation: its state, the tenant's state and the last events, all or nothing.
pub(super) async fn conclude(
    parts: &Parts,
    case: &Case,
    ending: Ending,
    effects: &Effects,
) -> Result<(), StoreError> {
    let mut held = Held::begin(parts, case).await?;
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
    apply(tx, at, (case, "end"), effects).await?;
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

fn made_by<'a>(case: &'a Case, step: &'a str) -> MadeBy<'a> {
    MadeBy {
        operation: &case.operation.id,
        step,
    }
}

/// Writes effects in the order in which they depend on each other: rows, ledger, state, events.
async fn apply(
    tx: &mut Tx,
    (clock, now): (&Clock, Time),
    (case, step): (&Case, &str),
    effects: &Effects,
) -> Result<(), StoreError> {
    let tenant = &case.tenant.id;
    for change in &effects.changes {
        apply_change(tx, case, change, now).await?;
    }
    for (kind, external_id) in &effects.made {
        let (id, by) = (ResourceId::new(clock.uuid()), made_by(case, step));
        resources::put(tx, &id, (tenant, by), (kind, external_id), now).await?;
    }
    for kind in &effects.gone_kinds {
        resources::set_kind_removed(tx, tenant, kind, now).await?;
    }
    for (kind, external_id) in &effects.gone {
        resources::set_removed(tx, tenant, (kind, external_id), now).await?;
    }
    if let Some(status) = effects.status {
        tenants::set_status(tx, tenant, status, now).await?;
    }
    for event in &effects.events {
        events::append(tx, tenant, Some(&case.operation.id), event, now).await?;
    }
    Ok(())
}

async fn apply_change(tx: &mut Tx, case: &Case, change: &Change, now: Time) -> Result<(), StoreError> {
    let tenant = &case.tenant.id;
    match change {
        Change::Release(release) => {
            // The image was verified to be there; older releases of it can run again too.
            releases::set_kept(tx, tenant, &release.digest).await?;
            releases::insert(tx, tenant, release).await
        }
        Change::ReleaseFailed(number) => {
            releases::set_status(tx, tenant, *number, ReleaseStatus::Failed).await
        }
        Change::ReleaseActive(number) => releases::activate(tx, tenant, *number, now).await,
        Change::Migrations(number, mark) => releases::set_migrations(tx, tenant, *number, mark).await,
        Change::Machine(number, id) => releases::set_machine(tx, tenant, *number, id.as_deref()).await,
        Change::LoginSlot(slot) => tenants::set_login_slot(tx, tenant, *slot, now).await,
        Change::Jwt(jwt) => tenant_life::set_jwt(tx, tenant, jwt, now).await,
        Change::Sessions(sessions) => edge_sessions::set(tx, tenant, sessions.as_ref(), now).await,
        Change::Memory(memory_mb) => tenants::set_memory(tx, tenant, *memory_mb, now).await,
        Change::TenantKey(key) => {
            let row = TenantKeyRow {
                master_version: key.master_version,
                sealed_key: key.sealed_key.clone(),
            };
            tenant_keys::insert(tx, tenant, &row, now).await
        }
        Change::Secret(scope, row) => secret_versions::insert(tx, tenant, *scope, row).await,
        Change::Grant(grant) => credential_grants::insert(tx, tenant, grant).await,
        Change::RevokeGrants => credential_grants::remove_all(tx, tenant).await,
        Change::Receipt(body) => receipts::put(tx, (tenant, &case.tenant.owner_id), body, now).await,
        Change::ForgetSecrets => {
            credential_grants::remove_all(tx, tenant).await?;
            secret_versions::remove_all(tx, tenant).await?;
            tenant_keys::remove(tx, tenant).await
        }
        Change::ForgetObserved => {
            log_positions::remove_all(tx, tenant).await?;
            log_chunks::remove_all(tx, tenant).await?;
            metric_blocks::remove_all(tx, tenant).await
        }
        Change::GiveBackNames => tenants::give_back_names(tx, tenant, now).await,
    }
}
