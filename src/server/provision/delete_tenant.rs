//! `delete-tenant`: nothing is left but a receipt of what was looked for and not found.

use async_trait::async_trait;

use crate::api::receipt::{Receipt, ReceiptLine};
use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::server::edge::Traffic;
use crate::server::failpoint;
use crate::server::provision::context::{Case, Failure, Parts, StepContext, StepError};
use crate::server::provision::create_tenant::drop_database;
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::rollout::stop_all_but;
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::store::events::NewEvent;
use crate::server::store::secret_versions::{self, SecretScope};
use crate::server::store::{credential_grants, resources, tenant_keys};

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
    step("destroy-secrets"),
    step("verify-absent"),
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
            "stop-machines" => {
                // Visitors are told at once, instead of waiting for machines that end.
                let spec = cx.case.spec()?;
                let network = parts.provider.edge_network(&spec);
                if parts.edge.attached(&spec.label, network.as_deref()).await? {
                    parts.edge.switch(&spec.label, Traffic::Nobody).await?;
                }
                stop_all_but(cx, None, parts.settings.grace).await
            }
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
                let removed = parts.images.remove_tenant(&cx.case.tenant.id);
                failpoint::call("images.remove_tenant", removed).await?;
                Ok(Effects::none().gone_kinds(&["image"]))
            }
            "destroy-secrets" => destroy_secrets(cx).await,
            _ => verify_absent(cx).await,
        }
    }

    async fn undo(&self, _step: &str, _cx: &StepContext<'_>) -> Result<Effects, StepError> {
        Ok(Effects::none())
    }

    fn conclude(&self, ending: Ending, _parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => Effects::none()
                // Once more: a line that was on its way may have come since.
                .change(Change::ForgetObserved)
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

/// Destroys values, grants and the data key, so that no copy of the database can be read either. The names stay in
/// the step's output, for the receipt.
async fn destroy_secrets(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let tenant = &cx.case.tenant.id;
    let mut tx = cx.parts.store.begin_read().await?;
    let mut names = Vec::new();
    for (scope, word) in [(SecretScope::User, "user"), (SecretScope::Platform, "platform")] {
        for row in secret_versions::list_latest(&mut tx, tenant, scope).await? {
            names.push(format!("{word}/{}", row.key));
        }
    }
    Ok(Effects::none()
        .output(serde_json::json!({ "secrets": names }))
        .change(Change::ForgetSecrets)
        .change(Change::ForgetObserved))
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
    let network = parts.provider.edge_network(&case.spec()?);
    if parts.edge.attached(&tenant.label, network.as_deref()).await? {
        left.push("the edge's way to it".to_owned());
    }
    let images = parts.images.has_any(&tenant.id);
    if failpoint::call("images.has_any", images).await? {
        left.push("images of it".to_owned());
    }
    left.extend(sealed_things(cx).await?);
    if !left.is_empty() {
        return Err(StepError::Fatal(Box::new(Failure {
            code: "resources-left".to_owned(),
            message: format!("failed to remove everything: {} is still there", left.join(", ")),
            hint: Some("remove it by hand".to_owned()),
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
        .change(Change::Receipt(cx.case.tenant.owner_id.clone(), body)))
}

/// What the store still has that should not be readable any more.
async fn sealed_things(cx: &StepContext<'_>) -> Result<Vec<String>, StepError> {
    let tenant = &cx.case.tenant.id;
    let mut left = Vec::new();
    let mut tx = cx.parts.store.begin_read().await?;
    if tenant_keys::find(&mut tx, tenant).await?.is_some() {
        left.push("its data key".to_owned());
    }
    for scope in [SecretScope::User, SecretScope::Platform] {
        for row in secret_versions::list_latest(&mut tx, tenant, scope).await? {
            left.push(format!("the secret `{}`", row.key));
        }
    }
    if credential_grants::find_open(&mut tx, tenant, cx.parts.clock.now())
        .await?
        .is_some()
    {
        left.push("a one-time grant of its credentials".to_owned());
    }
    Ok(left)
}

async fn lines(cx: &StepContext<'_>) -> Result<Vec<ReceiptLine>, StepError> {
    let tenant = &cx.case.tenant.id;
    let mut tx = cx.parts.store.begin_read().await?;
    let mut lines: Vec<ReceiptLine> = resources::list(&mut tx, tenant)
        .await?
        .into_iter()
        .map(|line| {
            let (found, checked_with) = match line.kind.as_str() {
                "database" | "database-role" => ("absent", "databases"),
                "route" => ("absent", "edge"),
                // In the edge's own cache, of no use without the route.
                "certificate" => ("expires", "edge"),
                _ => ("absent", "provider"),
            };
            receipt_line((&line.kind, &line.external_id), found, checked_with)
        })
        .collect();
    let image = crate::api::registry::tenant_tag(tenant);
    lines.push(receipt_line(("image", &image), "absent", "registry"));
    let secrets: Vec<String> = cx.case.output("destroy-secrets", "secrets").unwrap_or_default();
    for name in &secrets {
        lines.push(receipt_line(("secret", name), "absent", "store"));
    }
    lines.push(receipt_line(("data-key", tenant.as_str()), "absent", "store"));
    lines.push(receipt_line(("logs", tenant.as_str()), "absent", "store"));
    lines.push(receipt_line(("metrics", tenant.as_str()), "absent", "store"));
    Ok(lines)
}

fn receipt_line((kind, external_id): (&str, &str), found: &str, checked_with: &str) -> ReceiptLine {
    ReceiptLine {
        kind: kind.to_owned(),
        external_id: external_id.to_owned(),
        found: found.to_owned(),
        checked_with: checked_with.to_owned(),
    }
}
