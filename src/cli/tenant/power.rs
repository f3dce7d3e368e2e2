//! `systemprompt tenant suspend` and `activate`: stop what runs and keep everything else, and start it again.

use serde_json::json;

use crate::api::operation::Operation;
use crate::api::tenant::{Tenant, TenantStatus};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::wait;
use crate::cli::tenant::WorkArgs;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::tenant::show::shown;

/// Suspends a tenant; one that is suspended stays so.
pub(super) async fn suspend(context: &Context, args: WorkArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let client = context.client()?;
    let report = client.tenant_status(&id).await?;
    if report.tenant.status == TenantStatus::Suspended && report.current_operation.is_none() {
        let text = format!("`{}` is suspended already", report.tenant.name);
        return tell(context, &report.tenant, None, text);
    }
    let operation = client.suspend_tenant(&id).await?;
    let Some(operation) = wait(context, operation, "Suspending", &args.wait).await? else {
        return Ok(());
    };
    let tenant = client.get_tenant(&id).await?;
    let text = format!(
        "`{}` is suspended: its data is kept, and visitors see a page that says so",
        tenant.name
    );
    tell(context, &tenant, Some(&operation), text)
}

/// Activates a tenant; one that is active stays so.
pub(super) async fn activate(context: &Context, args: WorkArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let client = context.client()?;
    let report = client.tenant_status(&id).await?;
    let is_active = matches!(
        report.tenant.status,
        TenantStatus::Running | TenantStatus::AwaitingDeploy
    );
    if is_active && report.current_operation.is_none() {
        let text = format!("`{}` is active already", report.tenant.name);
        return tell(context, &report.tenant, None, text);
    }
    let operation = client.activate_tenant(&id).await?;
    let Some(operation) = wait(context, operation, "Activating", &args.wait).await? else {
        return Ok(());
    };
    let tenant = client.get_tenant(&id).await?;
    let text = match tenant.status {
        TenantStatus::Running => format!("`{}` is active again at {}", tenant.name, tenant.url),
        _ => format!(
            "`{}` is active again; nothing was deployed to it yet",
            tenant.name
        ),
    };
    tell(context, &tenant, Some(&operation), text)
}

fn tell(
    context: &Context,
    tenant: &Tenant,
    operation: Option<&Operation>,
    text: String,
) -> Result<(), CliError> {
    let document = json!({
        "tenant": shown(tenant),
        "changed": operation.is_some(),
        "operation": operation,
    });
    context.ui().done(&document, text)
}
