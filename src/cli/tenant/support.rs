//! `systemprompt tenant support`: lets the server's operators in for a time.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use crate::api::id::SupportGrantId;
use crate::api::member::{
    MAX_SUPPORT_SECONDS, MIN_SUPPORT_SECONDS, OpenSupport, SupportAccess, SupportGrant,
};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::parse_duration;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Table;

/// Flags of `systemprompt tenant support`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Let the server's operators in; it ends by itself, and whatever they do is in the audit
    Open(OpenArgs),
    /// End it now
    Close(CloseArgs),
    /// Show when operators were let in, and whether they are now
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
struct OpenArgs {
    /// `read`: they see what a viewer sees; `full`: they do what a developer does
    #[arg(long, value_name = "ACCESS")]
    access: SupportAccess,
    /// For how long, a minute to seven days (`30m`, `2h`)
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_life)]
    life: Duration,
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
struct CloseArgs {
    /// Which one; all that are open unless told
    grant: Option<SupportGrantId>,
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

fn parse_life(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text)?;
    if (MIN_SUPPORT_SECONDS..=MAX_SUPPORT_SECONDS).contains(&life.as_secs()) {
        return Ok(life);
    }
    Err("support is open for a minute to seven days".to_owned())
}

/// Runs the verb.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.verb {
        Verb::Open(args) => open(context, &args).await,
        Verb::Close(args) => close(context, args).await,
        Verb::List(args) => list(context, &args).await,
    }
}

async fn open(context: &Context, args: &OpenArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let wanted = OpenSupport {
        access: args.access,
        expires_in_seconds: args.life.as_secs(),
    };
    let grant = context.client()?.open_support(&id, &wanted).await?;
    let text = format!(
        "operators have `{}` access until {} ({})",
        grant.access.as_str(),
        grant.expires_at,
        grant.id
    );
    context
        .ui()
        .done(&json!({ "tenant_id": id, "grant": grant }), text)?;
    if !context.ui().json() {
        context
            .ui()
            .hint("end it with `systemprompt tenant support close`; see what they did with `systemprompt audit --tenant TENANT`");
    }
    Ok(())
}

async fn close(context: &Context, args: CloseArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let client = context.client()?;
    let ids: Vec<SupportGrantId> = match args.grant {
        Some(grant) => vec![grant],
        None => {
            let all = client.list_support(&id).await?;
            let open = all.into_iter().filter(|grant| grant.open);
            open.map(|grant| grant.id).collect()
        }
    };
    for grant in &ids {
        client.close_support(&id, grant).await?;
    }
    let text = if ids.is_empty() {
        "operators had no access"
    } else {
        "operators have no access any more"
    };
    context
        .ui()
        .done(&json!({ "tenant_id": id, "closed": ids }), text)
}

async fn list(context: &Context, args: &ListArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let grants = context.client()?.list_support(&id).await?;
    context
        .ui()
        .result(&json!({ "tenant_id": id, "grants": grants }), || shown(&grants))
}

fn shown(grants: &[SupportGrant]) -> String {
    if grants.is_empty() {
        return "operators were never let in".to_owned();
    }
    let mut table = Table::new(&["id", "access", "state", "opened by", "opened at", "until"]);
    for grant in grants {
        table.row([
            grant.id.to_string(),
            grant.access.as_str().to_owned(),
            match (&grant.closed_by, grant.open) {
                (Some(by), _) => format!("closed by {by}"),
                (None, true) => "open".to_owned(),
                (None, false) => "over".to_owned(),
            },
            grant.opened_by.clone(),
            grant.opened_at.to_string(),
            grant.closed_at.unwrap_or(grant.expires_at).to_string(),
        ]);
    }
    table.render()
}
