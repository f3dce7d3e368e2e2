//! `systemprompt tenant select`: the tenant that commands in this project mean.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::pick::{Picked, pick};
use crate::cli::tenant::{TenantArg, credentials};
use crate::cli::ui::Prompt;

/// Flags of `systemprompt tenant select`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
}

/// Selects a tenant.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let workspace = context.workspace()?;
    let picked = match args.tenant.text() {
        Some(text) => pick(context, Some(text)).await?,
        None => choose(context).await?,
    };
    let (id, name) = match picked {
        Picked::Local(entry) => (entry.id, entry.name),
        Picked::Cloud(id) => {
            let tenant = context.client()?.get_tenant(&id).await?;
            credentials::register(workspace, &tenant)?;
            (id, tenant.name)
        }
    };
    workspace.change_tenants(|tenants| tenants.selected = Some(id.clone()))?;
    context.ui().done(
        &json!({ "selected": id, "name": name }),
        format!("commands in this project mean `{name}` now"),
    )
}

/// A menu even when one is selected already: that is what is to be changed.
async fn choose(context: &Context) -> Result<Picked, CliError> {
    let tenants = context.client()?.list_tenants().await?;
    let kept = context.workspace()?.read_tenants()?;
    let mut names: Vec<String> = tenants.iter().map(|tenant| tenant.name.to_string()).collect();
    for entry in &kept.tenants {
        if !names.iter().any(|name| name == entry.name.as_str()) {
            names.push(entry.name.to_string());
        }
    }
    let place = context
        .ui()
        .ask_choice(Prompt::new("Which tenant?", "TENANT"), names.clone())
        .await?;
    pick(context, names.get(place).map(String::as_str)).await
}
