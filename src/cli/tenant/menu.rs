//! The menu of `systemprompt tenant` without a verb.

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::releases::{self, Act};
use crate::cli::rollback;
use crate::cli::tenant::pick::{Picked, pick};
use crate::cli::tenant::{TenantArg, WorkArgs};
use crate::cli::tenant::{create, delete, edit, events, list, logs, select, show, status, work};
use crate::cli::tenant::{environment, metrics, power, resources, restart, scale};
use crate::cli::ui::Prompt;

const ITEMS: [&str; 24] = [
    "Create",
    "List",
    "Show",
    "Show with secrets",
    "Edit",
    "Deploy",
    "Releases",
    "Show a release",
    "Roll back",
    "Pin a release",
    "Unpin a release",
    "Status",
    "Events",
    "Logs",
    "Metrics",
    "Restart",
    "Scale",
    "Environment",
    "Resources",
    "Operation",
    "Suspend",
    "Activate",
    "Select",
    "Delete",
];

/// Asks for a verb, then for what it needs.
pub(super) async fn run(context: &Context) -> Result<(), CliError> {
    let prompt = Prompt::new("What to do?", "name a verb, as in `systemprompt tenant list`");
    let place = context
        .ui()
        .ask_choice(prompt, ITEMS.map(str::to_owned).to_vec())
        .await?;
    match ITEMS.get(place).copied().unwrap_or_default() {
        "Create" => create::run(context, create::Args::default()).await,
        "List" => list::run(context, list::Args::default()).await,
        "Select" => select::run(context, select::Args::default()).await,
        verb => with_tenant(context, verb).await,
    }
}

async fn with_tenant(context: &Context, verb: &str) -> Result<(), CliError> {
    let id = match pick(context, None).await? {
        Picked::Cloud(id) => id,
        Picked::Local(entry) => entry.id,
    };
    let text = id.to_string();
    match verb {
        "Show" => show::run(context, show::Args::of(text, false)).await,
        "Show with secrets" => show::run(context, show::Args::of(text, true)).await,
        "Edit" => edit::run(context, edit::Args::of(text)).await,
        "Deploy" => crate::cli::deploy::run(context, crate::cli::deploy::Args::for_tenant(&id)).await,
        "Releases" => releases::list(context, &id).await,
        "Show a release" => releases::act_asked(context, &id, Act::Show).await,
        "Pin a release" => releases::act_asked(context, &id, Act::Pin).await,
        "Unpin a release" => releases::act_asked(context, &id, Act::Unpin).await,
        "Roll back" => rollback::run_asked(context, &id).await,
        "Status" => status::run(context, TenantArg::of(text)).await,
        "Events" => events::run(context, events::Args::of(text)).await,
        "Logs" => logs::run(context, logs::Args::of(text)).await,
        "Metrics" => metrics::run(context, metrics::Args::of(text)).await,
        "Scale" => scale::run(context, scale::Args::of(text)).await,
        "Environment" => environment::run(context, TenantArg::of(text)).await,
        "Resources" => resources::run(context, resources::Args::of(text)).await,
        "Operation" => work::run(context, &id).await,
        "Suspend" => power::suspend(context, WorkArgs::of(text)).await,
        "Activate" => power::activate(context, WorkArgs::of(text)).await,
        "Restart" => restart::run(context, WorkArgs::of(text)).await,
        _ => delete::run(context, delete::Args::of(text)).await,
    }
}
