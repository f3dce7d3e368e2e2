//! `systemprompt tenant sessions`: whether visitors are asked who they are, and who is let in.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::api::edge_session::{EdgeSessions, SessionIssuer, Visitors};
use crate::api::id::TenantId;
use crate::api::tenant::TenantPatch;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::tenant::show::visitors;
use crate::client::tenants::Changed;

/// Flags of `systemprompt tenant sessions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT", global = true)]
    tenant: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show who is let in; what `sessions` alone does
    Show,
    /// Ask every visitor who they are, and tell the app in `X-Session-User`
    On(Box<OnArgs>),
    /// Ask nobody any more
    Off(WaitArgs),
}

#[derive(Debug, clap::Args)]
struct OnArgs {
    /// Who is let in
    #[arg(long, value_enum, default_value_t = Who::Members)]
    who: Who,
    /// Somebody else who vouches for visitors: `directus`, or the URL of an issuer that the server allows
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// The tenant's secret that holds the key of the issuer's tokens; without it they are verified with its published keys
    #[arg(long, value_name = "KEY", requires = "issuer")]
    issuer_secret: Option<String>,
    /// For whom the issuer's tokens must be
    #[arg(long, value_name = "AUDIENCE", requires = "issuer")]
    audience: Option<String>,
    /// The cookie in which browsers bring the issuer's token
    #[arg(long, value_name = "NAME", requires = "issuer")]
    cookie: Option<String>,
    /// What the issuer's tokens call the visitor [default: sub, and `id` at Directus]
    #[arg(long, value_name = "NAME", requires = "issuer")]
    claim: Option<String>,
    /// Where browsers are sent that bring no token
    #[arg(long, value_name = "URL", requires = "issuer")]
    sign_in_url: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Who {
    /// The tenant's members
    Members,
    /// Everybody who has an account on the server
    Accounts,
    /// Nobody but those for whom `--issuer` vouches
    Issuer,
}

/// Runs the verb; without one, shows.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let tenant = args.tenant.as_deref();
    match args.verb {
        None | Some(Verb::Show) => show(context, tenant).await,
        Some(Verb::On(args)) => {
            let wait = args.wait.clone();
            let sessions = wanted(*args);
            sessions
                .clone()
                .checked()
                .map_err(|(field, detail)| CliError::usage(format!("{} {detail}", flag(field))))?;
            set(context, tenant, sessions, &wait).await
        }
        Some(Verb::Off(wait)) => {
            let off = EdgeSessions {
                who: Visitors::Off,
                issuer: None,
            };
            set(context, tenant, off, &wait).await
        }
    }
}

fn flag(field: &str) -> String {
    match field {
        "secret" => "`--issuer-secret`".to_owned(),
        other => format!("`--{}`", other.replace('_', "-")),
    }
}

fn wanted(args: OnArgs) -> EdgeSessions {
    let is_directus = args.issuer.as_deref() == Some("directus");
    let claim = args.claim.or(is_directus.then(|| "id".to_owned()));
    EdgeSessions {
        who: match args.who {
            Who::Members => Visitors::Members,
            Who::Accounts => Visitors::Accounts,
            Who::Issuer => Visitors::Issuer,
        },
        issuer: args.issuer.map(|issuer| SessionIssuer {
            issuer,
            secret: args.issuer_secret,
            audience: args.audience,
            cookie: args.cookie,
            claim,
            sign_in_url: args.sign_in_url,
        }),
    }
}

async fn show(context: &Context, tenant: Option<&str>) -> Result<(), CliError> {
    let id = pick_cloud(context, tenant).await?;
    let sessions = context.client()?.get_tenant(&id).await?.sessions;
    let document = json!({ "tenant_id": id, "sessions": sessions });
    context.ui().result(&document, || match &sessions {
        Some(sessions) => format!("visitors are asked who they are; let in: {}", visitors(sessions)),
        None => {
            "visitors are not asked who they are: change it with `systemprompt tenant sessions on`".to_owned()
        }
    })
}

async fn set(
    context: &Context,
    tenant: Option<&str>,
    sessions: EdgeSessions,
    args: &WaitArgs,
) -> Result<(), CliError> {
    let id: TenantId = pick_cloud(context, tenant).await?;
    let patch = TenantPatch {
        sessions: Some(sessions),
        ..TenantPatch::default()
    };
    if let Changed::Operation(operation) = context.client()?.edit_tenant(&id, &patch).await? {
        let title = "Telling the edge who is let in";
        if wait(context, *operation, title, args).await?.is_none() {
            return Ok(());
        }
    }
    let tenant = context.client()?.get_tenant(&id).await?;
    let text = match &tenant.sessions {
        Some(sessions) => format!(
            "visitors of {} are asked who they are; let in: {}",
            tenant.url,
            visitors(sessions)
        ),
        None => format!("visitors of {} are not asked who they are", tenant.url),
    };
    context
        .ui()
        .done(&json!({ "tenant_id": id, "sessions": tenant.sessions }), text)
}
