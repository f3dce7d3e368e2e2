//! The reconciler: compares the ledger with what the provider has, every few minutes and on demand.
//!
//! What is ours is mended by an operation of the tenant, so that it is as durable and as visible as everything else.
//! What does not carry our labels is not even seen.

use std::time::Duration;

use crate::api::drift::{Drift, ReconcileReport};
use crate::api::id::{OperationId, TenantId};
use crate::api::operation::OperationStatus;
use crate::api::tenant::{DatabaseKind, Resource, TenantStatus};
use crate::server::providers::{MachineState, Made, ProviderError, TenantSpec};
use crate::server::provision::Provision;
use crate::server::provision::context::{Parts, StepError};
use crate::server::provision::told::told_drift;
use crate::server::provision::work::{EnqueueError, NewOperation, Work};
use crate::server::store::events::NewEvent;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, events, operations, resources, tenant_life, tenants};

/// A tenant whose repair failed is tried again after this, in seconds.
const AFTER_FAILURE_SECONDS: i64 = 3600;
/// Who asks for repairs that nobody has asked for.
const SELF: &str = "the reconciler";

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The provider does not answer.
    #[error("failed to ask the provider what there is")]
    Provider(#[from] ProviderError),
    /// The store failed.
    #[error("failed to read the ledger")]
    Store(#[from] StoreError),
}

/// What was found, and the operations that mend it.
#[derive(Clone, Debug, Default)]
pub struct Reconciled {
    /// What was found.
    pub report: ReconcileReport,
    /// The operations that mend it.
    pub operations: Vec<OperationId>,
}

impl Provision {
    /// Compares every tenant that nobody works on with the provider; mends unless `dry_run`.
    ///
    /// # Errors
    /// The provider or the store does not answer.
    pub async fn reconcile(&self, dry_run: bool, by: Option<&str>) -> Result<Reconciled, ReconcileError> {
        let parts = &self.0.parts;
        let mut found = Reconciled::default();
        found.report.dry_run = dry_run;
        let mut tx = parts.store.begin_read().await?;
        // Whoever asks again, because an answer was lost, is told of the repairs that are under way.
        found.operations = operations::list_unfinished(&mut tx, Work::Repair.kind()).await?;
        drop(tx);
        let mut after = None;
        loop {
            let mut tx = parts.store.begin_read().await?;
            let resting = tenant_life::list_resting(&mut tx, after.as_ref()).await?;
            drop(tx);
            for tenant in &resting {
                self.compare(tenant, (dry_run, by), &mut found).await?;
            }
            after = match resting.last() {
                Some(last) => Some(last.id.clone()),
                None => break,
            };
        }
        let mut left = self.leftovers(dry_run).await?;
        found.report.drift.append(&mut left);
        if !found.operations.is_empty() {
            self.wake();
        }
        told_drift(&found.report);
        Ok(found)
    }

    /// Compares one tenant with the provider, and mends it unless `dry_run`.
    async fn compare(
        &self,
        tenant: &TenantRow,
        (dry_run, by): (bool, Option<&str>),
        found: &mut Reconciled,
    ) -> Result<(), ReconcileError> {
        let parts = &self.0.parts;
        found.report.tenants += 1;
        let mut drift = match examine(parts, tenant).await {
            Ok(drift) => drift,
            Err(error) => {
                // One tenant that cannot be looked at must not hide the others.
                let error: &dyn std::error::Error = &error;
                tracing::warn!(tenant = %tenant.id, error, "failed to compare a tenant with its ledger");
                return Ok(());
            }
        };
        if !dry_run && drift.iter().any(|one| one.action == MEND) {
            let mended = self.mend(tenant, &drift, by).await?;
            for one in drift.iter_mut().filter(|one| one.action == MEND) {
                match &mended {
                    Ok(id) => one.operation_id = Some(id.clone()),
                    Err(why) => {
                        REPORT.clone_into(&mut one.action);
                        one.detail.clone_from(why);
                    }
                }
            }
            found.operations.extend(mended.ok());
        }
        found.report.drift.append(&mut drift);
        Ok(())
    }

    /// Queues the repair, and writes what was found into the tenant's history.
    async fn mend(
        &self,
        tenant: &TenantRow,
        drift: &[Drift],
        by: Option<&str>,
    ) -> Result<Result<OperationId, String>, StoreError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let mut tx = parts.store.begin().await?;
        if tenants::get_locked(&mut tx, &tenant.id).await?.last_event_seq != tenant.last_event_seq {
            return Ok(Err("something was done to it meanwhile; look again".to_owned()));
        }
        let last = operations::find_newest(&mut tx, &tenant.id, Work::Repair.kind()).await?;
        let failed_lately = last.filter(|last| {
            let since = last.finished_at.map_or(0, |at| now.seconds_since(at));
            last.status == OperationStatus::Failed && since < AFTER_FAILURE_SECONDS
        });
        if let Some(failed) = failed_lately.filter(|_| by.is_none()) {
            return Ok(Err(format!(
                "the last repair failed: `systemprompt operation show {}`",
                failed.id
            )));
        }
        let lines: Vec<String> = drift
            .iter()
            .map(|one| format!("{} `{}` is {}", one.kind, one.external_id, one.found))
            .collect();
        let told = NewEvent::new("drift_found", lines.join(", ")).with(serde_json::json!({ "drift": drift }));
        events::append(&mut tx, &tenant.id, None, &told, now).await?;
        let new = NewOperation {
            tenant_id: tenant.id.clone(),
            work: Work::Repair,
            requested_by: by.unwrap_or(SELF).to_owned(),
        };
        match self.enqueue(&mut tx, new).await {
            Ok(id) => {
                tx.commit().await?;
                self.announce(&tenant.id);
                Ok(Ok(id))
            }
            // Somebody was faster: their work comes first, and the next look sees what it leaves.
            Err(EnqueueError::Store(error)) => Err(error),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// What carries our labels and belongs to no living tenant.
    async fn leftovers(&self, dry_run: bool) -> Result<Vec<Drift>, ReconcileError> {
        let parts = &self.0.parts;
        let mut drift = Vec::new();
        for owner in parts.provider.list_tenants().await? {
            let Ok(id) = owner.parse::<TenantId>() else {
                continue;
            };
            let mut tx = parts.store.begin_read().await?;
            let known = tenants::find(&mut tx, &id).await?;
            drop(tx);
            match known {
                None => drift.extend(strangers(parts, &id).await?),
                Some(tenant) if tenant.status == TenantStatus::Deleted => {
                    drift.extend(remains(parts, &tenant, dry_run).await?);
                }
                Some(_) => {}
            }
        }
        Ok(drift)
    }

    /// Compares now and then, until the server stops.
    pub(super) async fn reconcile_for_ever(&self) {
        let every = self.0.parts.settings.reconcile_every;
        // The first look comes soon: much may have happened while no server ran.
        let mut wait = every / 10;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.signals.stop.cancelled() => return,
            }
            wait = every;
            let looked = tokio::select! {
                looked = self.reconcile(false, None) => looked,
                () = self.0.signals.stop.cancelled() => return,
            };
            if let Err(error) = looked {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "failed to compare the ledger with the provider");
                wait = every.min(Duration::from_secs(30));
            }
        }
    }
}

const MEND: &str = "mend";
const REPORT: &str = "report";

fn drift(tenant: &TenantRow, (kind, external_id): (&str, &str), (found, action): (&str, &str)) -> Drift {
    let detail = match (kind, found) {
        ("volume", "missing") => "its data is lost: restore a backup, or delete the tenant",
        ("database", "missing") => "its data is lost: restore it, or delete the tenant",
        ("network" | "volume", "surplus") => {
            "the ledger does not know it: remove it by hand if nobody needs it"
        }
        _ => "",
    };
    Drift {
        tenant_id: tenant.id.to_string(),
        tenant: Some(tenant.name.to_string()),
        kind: kind.to_owned(),
        external_id: external_id.to_owned(),
        found: found.to_owned(),
        action: action.to_owned(),
        detail: detail.to_owned(),
        operation_id: None,
    }
}

fn spec(tenant: &TenantRow) -> TenantSpec {
    TenantSpec {
        tenant_id: tenant.id.clone(),
        label: tenant.label.clone(),
        network_slot: tenant.network_slot.unwrap_or_default(),
        region: tenant.region.clone(),
        // Nothing is made with it.
        operation_id: OperationId::new(uuid::Uuid::nil()),
    }
}

/// Everything in which a tenant's ledger and the world differ.
async fn examine(parts: &Parts, tenant: &TenantRow) -> Result<Vec<Drift>, StepError> {
    let mut tx = parts.store.begin_read().await?;
    let ledger = resources::list(&mut tx, &tenant.id).await?;
    drop(tx);
    let spec = spec(tenant);
    let there = parts.provider.list_resources(&spec).await?;
    let present: Vec<&Resource> = ledger.iter().filter(|line| line.state == "present").collect();
    let mut found = Vec::new();
    for line in &present {
        let what = (line.kind.as_str(), line.external_id.as_str());
        let is_there = there
            .iter()
            .any(|made| (made.kind, made.external_id.as_str()) == what);
        match line.kind.as_str() {
            "volume" if !is_there => found.push(drift(tenant, what, ("missing", REPORT))),
            "network" | "machine" if !is_there => found.push(drift(tenant, what, ("missing", MEND))),
            "machine" => {
                let state = parts.provider.machine_state(&line.external_id).await?;
                if matches!(state, MachineState::Exited { .. }) {
                    found.push(drift(tenant, what, ("ended", MEND)));
                }
            }
            "database" | "route" if !is_reached(parts, tenant, &line.kind).await? => {
                let action = if line.kind == "route" { MEND } else { REPORT };
                found.push(drift(tenant, what, ("missing", action)));
            }
            _ => {}
        }
    }
    found.extend(there.iter().filter_map(|made| surplus(tenant, &present, made)));
    // What is lost would be hidden by a repair around it.
    if found
        .iter()
        .any(|one| one.found == "missing" && one.action == REPORT)
    {
        for one in &mut found {
            REPORT.clone_into(&mut one.action);
        }
    }
    Ok(found)
}

/// Whether a tenant's database is there, or the edge's way to it.
async fn is_reached(parts: &Parts, tenant: &TenantRow, kind: &str) -> Result<bool, StepError> {
    if kind == "route" {
        let network = parts.provider.edge_network(&spec(tenant));
        return Ok(parts.edge.attached(&tenant.label, network.as_deref()).await?);
    }
    let is_file = tenant.database == DatabaseKind::Sqlite;
    Ok(is_file || parts.databases.exists(&tenant.id).await?)
}

fn surplus(tenant: &TenantRow, present: &[&Resource], made: &Made) -> Option<Drift> {
    let is_known = present
        .iter()
        .any(|line| line.kind == made.kind && line.external_id == made.external_id);
    let action = match made.kind {
        "machine" | "command" => MEND,
        _ => REPORT,
    };
    (!is_known).then(|| drift(tenant, (made.kind, &made.external_id), ("surplus", action)))
}

/// What a deleted tenant has left: it has a receipt that says that nothing is left.
async fn remains(parts: &Parts, tenant: &TenantRow, dry_run: bool) -> Result<Vec<Drift>, ReconcileError> {
    let spec = spec(tenant);
    let there = parts.provider.list_resources(&spec).await?;
    if !dry_run && !there.is_empty() {
        for made in there
            .iter()
            .filter(|made| matches!(made.kind, "machine" | "command"))
        {
            parts
                .provider
                .stop_machine(&made.external_id, Duration::ZERO)
                .await?;
        }
        parts.provider.remove_volume(&spec).await?;
        parts.provider.remove_app(&spec).await?;
    }
    let lines = there.iter().map(|made| Drift {
        detail: "the tenant is deleted".to_owned(),
        ..drift(tenant, (made.kind, &made.external_id), ("surplus", MEND))
    });
    Ok(lines.collect())
}

/// What carries our labels and names a tenant that this database never had: another copy of it may.
async fn strangers(parts: &Parts, id: &TenantId) -> Result<Vec<Drift>, ReconcileError> {
    let spec = TenantSpec {
        tenant_id: id.clone(),
        label: String::new(),
        network_slot: 0,
        region: String::new(),
        operation_id: OperationId::new(uuid::Uuid::nil()),
    };
    let there = parts.provider.list_resources(&spec).await?;
    let lines = there.into_iter().map(|made| Drift {
        tenant_id: id.to_string(),
        tenant: None,
        kind: made.kind.to_owned(),
        external_id: made.external_id,
        found: "surplus".to_owned(),
        action: REPORT.to_owned(),
        detail: "this server's database does not know the tenant: remove it by hand if nobody else does"
            .to_owned(),
        operation_id: None,
    });
    Ok(lines.collect())
}
