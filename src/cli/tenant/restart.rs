//! `systemprompt tenant restart`: the same release in a new machine.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;

/// Flags of `systemprompt tenant restart`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            wait: WaitArgs::default(),
        }
    }
}

/// Restarts a tenant.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let operation = context.client()?.restart_tenant(&id).await?;
    let Some(operation) = wait(context, operation, "Restarting", &args.wait).await? else {
        return Ok(());
    };
    context.ui().done(&json!({ "operation": operation }), "restarted")
}
