//! `systemprompt tenant resources`: the ledger, everything that a tenant has or had outside of the server's own data.

use serde_json::json;

use crate::api::tenant::Resource;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Table;

/// Flags of `systemprompt tenant resources`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Also what was removed since
    #[arg(long, short)]
    all: bool,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            all: false,
        }
    }
}

/// Shows the ledger.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let mut resources = context.client()?.list_resources(&id).await?;
    let all = resources.len();
    if !args.all {
        resources.retain(|resource| resource.state != "removed");
    }
    let hidden = all - resources.len();
    context
        .ui()
        .result(&json!({ "resources": resources }), || text(&resources))?;
    if hidden > 0 && !context.ui().json() {
        context
            .ui()
            .status(format!("{hidden} more were removed since; see them with `--all`"));
    }
    Ok(())
}

fn text(resources: &[Resource]) -> String {
    if resources.is_empty() {
        return "it has nothing".to_owned();
    }
    let mut table = Table::new(&["kind", "name", "state", "made by", "since"]);
    for resource in resources {
        table.row([
            resource.kind.clone(),
            resource.external_id.clone(),
            resource.state.clone(),
            resource.step.clone(),
            resource.updated_at.to_string(),
        ]);
    }
    table.render()
}
