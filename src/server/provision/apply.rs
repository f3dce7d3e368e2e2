//! The rows that the effects of a step change, in the transaction in which the step is recorded.

use crate::api::id::{ResourceId, TenantId};
use crate::api::operation::OperationStatus;
use crate::api::release::ReleaseStatus;
use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::provision::context::Case;
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::saga::Ending;
use crate::server::store::operations::{OperationRow, Transition};
use crate::server::store::resources::NewResource;
use crate::server::store::tenant_keys::TenantKeyRow;
use crate::server::store::{
    StoreError, Tx, credential_grants, edge_sessions, events, log_chunks, log_positions, metric_blocks,
    operations, receipts, releases, resources, secret_versions, tenant_keys, tenant_life, tenants,
};

/// Writes what steps have made into the ledger: of each its name and what it did.
pub(super) async fn put_made<'a>(
    tx: &mut Tx,
    (clock, now): (&Clock, Time),
    operation: &OperationRow,
    steps: impl Iterator<Item = (&'a str, &'a Effects)>,
) -> Result<(), StoreError> {
    let lines = steps.flat_map(|(step, effects)| {
        let made = effects.made.iter();
        made.map(move |(kind, external_id)| NewResource {
            id: ResourceId::new(clock.uuid()),
            kind,
            external_id,
            step,
        })
    });
    let lines: Vec<NewResource<'_>> = lines.collect();
    resources::put(tx, (&operation.tenant_id, &operation.id), &lines, now).await
}

/// Writes what effects change, all but what was made and the events, in the order in which the rows depend on each other.
pub(super) async fn apply_rows(
    tx: &mut Tx,
    now: Time,
    tenant: &TenantId,
    effects: &Effects,
) -> Result<(), StoreError> {
    for change in &effects.changes {
        apply_change(tx, tenant, change, now).await?;
    }
    for kind in &effects.gone_kinds {
        resources::set_kind_removed(tx, tenant, kind, now).await?;
    }
    for (kind, external_id) in &effects.gone {
        resources::set_removed(tx, tenant, (kind, external_id), now).await?;
    }
    match effects.status {
        Some(status) => tenants::set_status(tx, tenant, status, now).await,
        None => Ok(()),
    }
}

/// Writes the end of an operation in a transaction of the caller, who has made sure that nobody else holds it.
pub(super) async fn conclude_in(
    tx: &mut Tx,
    at: (&Clock, Time),
    case: &Case,
    ending: Ending,
    effects: &Effects,
) -> Result<(), StoreError> {
    put_made(tx, at, &case.operation, std::iter::once(("end", effects))).await?;
    apply_rows(tx, at.1, &case.tenant.id, effects).await?;
    let of = (&case.tenant.id, Some(&case.operation.id));
    events::append_all(tx, of.0, of.1, &effects.events, at.1).await?;
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

async fn apply_change(tx: &mut Tx, tenant: &TenantId, change: &Change, now: Time) -> Result<(), StoreError> {
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
        Change::Receipt(owner, body) => receipts::put(tx, (tenant, owner), body, now).await,
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
