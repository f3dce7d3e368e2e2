//! `systemprompt tenant retry`: takes up a creation that failed.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::wait;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::tenant::{WorkArgs, cloud};

/// Retries a creation.
pub(super) async fn run(context: &Context, args: WorkArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let operation = context.client()?.retry_provision(&id).await?;
    let Some(operation) = wait(context, operation, "Creating the tenant", &args.wait).await? else {
        return Ok(());
    };
    if context.find_workspace().is_some() {
        return cloud::finish(context, &id, &operation).await;
    }
    context.ui().done(
        &json!({ "operation": operation }),
        "the tenant is ready for a deploy",
    )
}
