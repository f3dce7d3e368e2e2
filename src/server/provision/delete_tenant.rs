//! `delete-tenant`: nothing is left but a receipt of what was looked for and not found.

use async_trait::async_trait;

use crate::api::receipt::{Receipt, ReceiptLine};
use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::server::provision::context::{Case, Failure, Parts, StepContext, StepError};
use crate::server::provision::create_tenant::drop_database;
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::rollout::stop_all_but;
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::store::events::NewEvent;
use crate::server::store::resources;
use crate::server::store::secret_versions::{self, SecretScope};

/// The saga.
pub(super) struct DeleteTenant;

const STEPS: &[StepDefinition] = &[
    step("start"),
    step("stop-machines"),
    step("detach-edge"),
    step("drop-database"),
    step("remove-volume"),
    step("remove-app"),
    step("remove-images"),
    step("verify-absent"),
    step("destroy-secrets"),
];

#[async_trait]
impl Saga for DeleteTenant {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    /// What is deleted cannot be brought back: a failure waits for `retry` or `abandon`.
    fn pivot(&self) -> usize {
        0
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        let parts = cx.parts;
        match step {
            "start" => Ok(Effects::none()
                .status(TenantStatus::Deleting)
                .event(NewEvent::new(
                    "tenant_deleting",
                    "everything of the tenant is being removed",
                ))),
            "stop-machines" => stop_all_but(cx, None, parts.settings.grace).await,
            "detach-edge" => {
                let spec = cx.case.spec()?;
                let network = parts.provider.edge_network(&spec);
                parts.edge.detach(&spec.label, network.as_deref()).await?;
                Ok(Effects::none().gone_kinds(&["route", "certificate"]))
            }
            "drop-database" => {
                drop_database(cx).await?;
                Ok(Effects::none().gone_kinds(&["database", "database-role"]))
            }
            "remove-volume" => {
                parts.provider.remove_volume(&cx.case.spec()?).await?;
                Ok(Effects::none().gone_kinds(&["volume"]))
            }
            "remove-app" => {
                parts.provider.remove_app(&cx.case.spec()?).await?;
                Ok(Effects::none().gone_kinds(&["network"]))
            }
            "remove-images" => {
                parts.images.remove_tenant(&cx.case.tenant.id).await?;
                Ok(Effects::none().gone_kinds(&["image"]))
            }
            "verify-absent" => verify_absent(cx).await,
            _ => Ok(Effects::none().change(Change::ForgetSecrets)),
        }
    }

    async fn undo(&self, _step: &str, _cx: &StepContext<'_>) -> Result<Effects, StepError> {
        Ok(Effects::none())
    }

    fn conclude(&self, ending: Ending, _parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => Effects::none()
                .change(Change::GiveBackNames)
                .status(TenantStatus::Deleted)
                .event(NewEvent::new(
                    "tenant_deleted",
                    format!("nothing of `{}` is left; its name is free", case.tenant.name),
                )),
            Ending::Failed | Ending::Undone => Effects::none().status(TenantStatus::Failed),
            Ending::Stuck => stuck(case),
            Ending::Abandoned => abandoned(case).status(TenantStatus::Failed),
        }
    }
}

/// Looks for everything that the ledger ever knew, and writes the receipt only when nothing is left.
async fn verify_absent(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, case) = (cx.parts, cx.case);
    let tenant = &case.tenant;
    let mut left: Vec<String> = parts
        .provider
        .list_resources(&case.spec()?)
        .await?
        .into_iter()
        .map(|made| format!("{} `{}`", made.kind, made.external_id))
        .collect();
    if tenant.database == DatabaseKind::Postgres && parts.databases.exists(&tenant.id).await? {
        left.push("its database or a role of it".to_owned());
    }
    if !left.is_empty() {
        return Err(StepError::Fatal(Box::new(Failure {
            code: "resources-left".to_owned(),
            message: format!("failed to remove everything: {} is still there", left.join(", ")),
            hint: Some("remove it by hand, then `systemprompt tenant retry`".to_owned()),
            ..Failure::default()
        })));
    }
    let receipt = Receipt {
        tenant_id: tenant.id.clone(),
        name: tenant.name.to_string(),
        operation_id: case.operation.id.clone(),
        requested_by: case.operation.requested_by.clone(),
        verified_at: parts.clock.now(),
        resources: lines(cx).await?,
    };
    let count = receipt.resources.len();
    let body = serde_json::to_value(receipt).unwrap_or_default();
    Ok(Effects::none()
        .output(serde_json::json!({ "resources": count }))
        .change(Change::Receipt(body)))
}

async fn lines(cx: &StepContext<'_>) -> Result<Vec<ReceiptLine>, StepError> {
    let tenant = &cx.case.tenant.id;
    let mut tx = cx.parts.store.begin_read().await?;
    let mut lines: Vec<ReceiptLine> = resources::list(&mut tx, tenant)
        .await?
        .into_iter()
        .map(|line| {
            let checked_with = match line.kind.as_str() {
                "database" | "database-role" => "databases",
                "route" | "certificate" => "edge",
                _ => "provider",
            };
            absent(&line.kind, &line.external_id, checked_with)
        })
        .collect();
    lines.push(absent(
        "image",
        &crate::api::registry::tenant_tag(tenant),
        "registry",
    ));
    for (scope, word) in [(SecretScope::User, "user"), (SecretScope::Platform, "platform")] {
        for row in secret_versions::list_latest(&mut tx, tenant, scope).await? {
            lines.push(absent("secret", &format!("{word}/{}", row.key), "store"));
        }
    }
    lines.push(absent("data-key", tenant.as_str(), "store"));
    Ok(lines)
}

fn absent(kind: &str, external_id: &str, checked_with: &str) -> ReceiptLine {
    ReceiptLine {
        kind: kind.to_owned(),
        external_id: external_id.to_owned(),
        found: "absent".to_owned(),
        checked_with: checked_with.to_owned(),
    }
}
