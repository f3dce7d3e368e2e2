//! `systemprompt tenant environment`: the names of what a tenant's release sees, and where each comes from.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Table;

/// Shows the environment.
pub(super) async fn run(context: &Context, tenant: TenantArg) -> Result<(), CliError> {
    let id = pick_cloud(context, tenant.text()).await?;
    let entries = context.client()?.list_environment(&id).await?;
    context.ui().result(&json!({ "environment": entries }), || {
        let mut table = Table::new(&["name", "source", "value"]);
        for entry in &entries {
            table.row([entry.name.clone(), entry.source.clone(), entry.value.clone()]);
        }
        table.render()
    })
}
