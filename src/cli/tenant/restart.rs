//! `systemprompt tenant restart`: the same release in a new machine.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::wait;
use crate::cli::tenant::WorkArgs;
use crate::cli::tenant::pick::pick_cloud;

/// Restarts a tenant.
pub(super) async fn run(context: &Context, args: WorkArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let operation = context.client()?.restart_tenant(&id).await?;
    let Some(operation) = wait(context, operation, "Restarting", &args.wait).await? else {
        return Ok(());
    };
    context.ui().done(&json!({ "operation": operation }), "restarted")
}
