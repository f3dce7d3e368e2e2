//! `repair`: what a tenant's ledger says is there, and is not, is made again; what nobody knows is removed.
//!
//! Every step looks before it acts, so that nothing that is well is touched. A volume or a database that is gone is
//! not made again by this: an empty one would only hide the loss.

use async_trait::async_trait;

use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::server::databases::DatabaseError;
use crate::server::edge::Traffic;
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::rollout::{self, stop_all_but};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::provision::secrets::{database_slot, password_key, platform_value, require_tenant_key};
use crate::server::store::events::NewEvent;
use crate::server::store::releases::ReleaseRow;

/// The saga.
pub(super) struct Repair;

const STEPS: &[StepDefinition] = &[
    // A machine whose network is gone cannot be brought back into one: it is made anew.
    step("stop-cut-off"),
    step("restore-networks"),
    step("restore-route"),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("remove-surplus"),
];

#[async_trait]
impl Saga for Repair {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "stop-cut-off" => return stop_cut_off(cx).await,
            "restore-networks" => return restore_networks(cx).await,
            "restore-route" => return restore_route(cx).await,
            _ => {}
        }
        let serving = serving(cx).await?;
        let Some(serving) = serving else {
            return match step {
                "remove-surplus" => remove_surplus(cx, None).await,
                _ => Ok(Effects::none()),
            };
        };
        let (release, slot) = (&serving.release, cx.case.tenant.login_slot);
        match step {
            "start-machine" => start_machine(cx, &serving).await,
            "pull" | "wait-ready" => rollout::bring(cx, step, (release, slot)).await,
            "switch-traffic" => {
                let spec = cx.case.spec()?;
                let machine = rollout::machine_of(cx)?;
                cx.parts.provider.attach_traffic(&spec, &machine).await?;
                rollout::ask_first(cx).await?;
                let traffic = Traffic::To(release.number);
                cx.parts.edge.switch(&spec.label, traffic).await?;
                Ok(Effects::none())
            }
            _ => remove_surplus(cx, Some(&rollout::machine_of(cx)?)).await,
        }
    }

    /// What was made again is what shall be there: nothing of it is taken back.
    async fn undo(&self, _step: &str, _cx: &StepContext<'_>) -> Result<Effects, StepError> {
        Ok(Effects::none())
    }

    fn conclude(&self, ending: Ending, _parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => Effects::none().event(NewEvent::new(
                "drift_mended",
                "everything is there again that the ledger has",
            )),
            Ending::Failed | Ending::Undone => {
                let message = match &case.operation.error {
                    Some(error) => format!("failed to mend what was found: {}", error.message),
                    None => "what was found is not mended".to_owned(),
                };
                Effects::none().event(NewEvent::new("repair_failed", message))
            }
            Ending::Stuck => stuck(case),
            Ending::Abandoned => abandoned(case),
        }
    }
}

/// The release that shall serve now.
async fn serving(cx: &StepContext<'_>) -> Result<Option<ReleaseRow>, StepError> {
    if cx.case.tenant.status == TenantStatus::Suspended {
        return Ok(None);
    }
    rollout::current_release(cx).await
}

async fn stop_cut_off(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let spec = cx.case.spec()?;
    let there = cx.parts.provider.list_resources(&spec).await?;
    // Its volume may have the same name.
    let is_there = |network: &str| {
        there
            .iter()
            .any(|made| made.kind == "network" && made.external_id == network)
    };
    let is_cut_off = cx
        .parts
        .provider
        .private_network(&spec)
        .is_some_and(|network| !is_there(&network));
    if is_cut_off {
        return stop_all_but(cx, None, cx.parts.settings.grace).await;
    }
    Ok(Effects::none())
}

async fn restore_networks(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant, spec) = (cx.parts, &cx.case.tenant, cx.case.spec()?);
    let made = parts.provider.create_app(&spec).await?;
    if tenant.database == DatabaseKind::Postgres {
        if !parts.databases.exists(&tenant.id).await? {
            // Making it again would give the tenant an empty one.
            return Err(DatabaseError::Fatal {
                code: "database-missing",
                what: format!("failed to find the database of `{}`", tenant.name),
                hint: Some("restore it, or delete the tenant: `systemprompt tenant delete`".to_owned()),
                source: None,
            }
            .into());
        }
        let mut tx = parts.store.begin_read().await?;
        let key = require_tenant_key(&mut tx, &tenant.id).await?;
        let name = password_key(tenant.login_slot);
        let password = platform_value(&mut tx, parts, (&tenant.id, &key), name).await?;
        drop(tx);
        // It is there and is adopted; its server is let into the network again.
        let network = parts.provider.private_network(&spec);
        let slot = database_slot(tenant.login_slot);
        parts
            .databases
            .create(&tenant.id, network.as_deref(), slot, &password)
            .await?;
    }
    Ok(Effects::none().made(made))
}

async fn restore_route(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, spec) = (cx.parts, cx.case.spec()?);
    let network = parts.provider.edge_network(&spec);
    if !parts.edge.attached(&spec.label, network.as_deref()).await? {
        parts.edge.attach(&spec.label, network.as_deref()).await?;
        if cx.case.tenant.status == TenantStatus::Suspended {
            parts.edge.switch(&spec.label, Traffic::Suspended).await?;
        }
    }
    Ok(Effects::none())
}

/// An equal machine is adopted, and started where it has ended.
async fn start_machine(cx: &StepContext<'_>, serving: &ReleaseRow) -> Result<Effects, StepError> {
    let release = &serving.release;
    let spec = rollout::machine_spec(cx, release, cx.case.tenant.login_slot).await?;
    let made = cx.parts.provider.start_machine(&spec).await?;
    Ok(Effects::none()
        .output(serde_json::json!({ "machine": made.external_id }))
        .change(Change::Machine(release.number, Some(made.external_id.clone())))
        .made([made]))
}

async fn remove_surplus(cx: &StepContext<'_>, keep: Option<&str>) -> Result<Effects, StepError> {
    let effects = stop_all_but(cx, keep, cx.parts.settings.grace).await?;
    rollout::clear_commands(cx).await?;
    Ok(effects)
}
