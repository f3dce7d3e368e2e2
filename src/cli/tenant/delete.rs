//! `systemprompt tenant delete`: removes a tenant and everything that it has.

use serde_json::{Value, json};

use crate::api::id::TenantId;
use crate::api::tenant::{Tenant, TenantStatus};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::tenant::pick::{Picked, pick};
use crate::cli::tenant::{TenantArg, local};
use crate::cli::ui::Prompt;
use crate::workspace::Workspace;

/// Flags of `systemprompt tenant delete`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Do not ask for the name
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            ..Self::default()
        }
    }
}

/// Deletes a tenant.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match pick(context, args.tenant.text()).await? {
        Picked::Local(entry) => {
            confirm(context, &args, entry.name.as_str()).await?;
            local::delete(context, &entry).await
        }
        Picked::Cloud(id) => {
            let tenant = context.client()?.get_tenant(&id).await?;
            confirm(context, &args, tenant.name.as_str()).await?;
            delete_cloud(context, &args, &tenant).await
        }
    }
}

async fn confirm(context: &Context, args: &Args, name: &str) -> Result<(), CliError> {
    if args.yes {
        return Ok(());
    }
    let question = format!("This removes `{name}` with its database and files for good. Type its name");
    let typed: String = context
        .ui()
        .ask_text(Prompt::new(&question, "--yes"), None)
        .await?;
    if typed.trim() == name {
        Ok(())
    } else {
        Err(CliError::failed(format!(
            "`{}` is not `{name}`: nothing was removed",
            typed.trim()
        )))
    }
}

async fn delete_cloud(context: &Context, args: &Args, tenant: &Tenant) -> Result<(), CliError> {
    let client = context.client()?;
    if tenant.status == TenantStatus::Deleted {
        // From elsewhere: the server says so to whoever asks for it again.
        forget(context, &tenant.id)?;
    }
    let operation = client.delete_tenant(&tenant.id).await?;
    let title = format!("Deleting `{}`", tenant.name);
    let Some(operation) = wait(context, operation, &title, &args.wait).await? else {
        return Ok(());
    };
    forget(context, &tenant.id)?;
    // The receipt is a courtesy: the deletion has succeeded whether it can be had or not.
    let receipt = client.get_receipt(&tenant.id).await.unwrap_or(Value::Null);
    context.ui().done(
        &json!({ "deleted": tenant.id, "name": tenant.name, "operation": operation, "receipt": receipt }),
        format!("`{}` and everything that it had are gone", tenant.name),
    )
}

/// Takes a tenant of a server that is gone out of the project, whichever command has learnt that it is: its name may
/// be another one's next.
pub(in crate::cli) fn forget(context: &Context, id: &TenantId) -> Result<(), CliError> {
    let Some(workspace) = context.find_workspace() else {
        return Ok(());
    };
    forget_profile(context, workspace, id.as_str())?;
    workspace.change_tenants(|tenants| tenants.remove(id))?;
    Ok(())
}

/// Forgets the profile of a tenant that is gone, and says when the person's own keys are left in it.
pub(super) fn forget_profile(context: &Context, workspace: &Workspace, name: &str) -> Result<(), CliError> {
    if !workspace.forget_profile(name)? {
        let path = workspace.secrets_path(name);
        let path = path.strip_prefix(workspace.root()).unwrap_or(&path);
        context.ui().status(format!(
            "`{}` keeps the keys that you put there yourself",
            path.display()
        ));
    }
    Ok(())
}
