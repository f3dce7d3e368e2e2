//! `systemprompt tenant`: a menu without a verb, and every verb as a command of its own.

pub mod create;
pub mod pick;
pub mod show;

mod cloud;
mod credentials;
pub(in crate::cli) mod delete;
mod edit;
mod environment;
mod events;
mod list;
mod local;
mod logs;
mod members;
mod menu;
mod metrics;
mod power;
mod resources;
mod restart;
mod retry;
mod scale;
mod select;
mod sessions;
mod status;
mod support;
mod trust;
mod work;

use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::WaitArgs;

/// Flags of `systemprompt tenant`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a tenant: on a server, or a database on this machine
    Create(create::Args),
    /// List the tenants of your account and of this project
    List(list::Args),
    /// Show a tenant; with `--secrets` its credentials too
    Show(show::Args),
    /// Rename, resize, suspend or activate a tenant, or give it new credentials
    Edit(edit::Args),
    /// Choose the tenant that commands in this project mean
    Select(select::Args),
    /// Remove a tenant and everything that it has
    Delete(delete::Args),
    /// Show how every part of a tenant is
    Status(TenantArg),
    /// Show a tenant's history
    Events(events::Args),
    /// Show what a tenant prints
    Logs(logs::Args),
    /// Show what a tenant uses and how it answers
    Metrics(metrics::Args),
    /// Replace what runs by the same release
    Restart(WorkArgs),
    /// Give a tenant another size of memory
    Scale(scale::Args),
    /// Show the names of what a release sees, and where each comes from
    Environment(TenantArg),
    /// Show everything that a tenant has, by the names that its provider knows
    Resources(resources::Args),
    /// Say who may do what to a tenant
    Members(members::Args),
    /// Let the server's operators in for a time
    Support(support::Args),
    /// Stop what runs and keep everything else; visitors see a page that says so
    Suspend(WorkArgs),
    /// Start again what was suspended
    Activate(WorkArgs),
    /// Ask visitors who they are before the app is asked anything, or not any more
    Sessions(sessions::Args),
    /// Let CI jobs deploy without a stored secret
    Trust(trust::Args),
    /// Take up a creation that failed
    Retry(WorkArgs),
}

/// The tenant that a command means.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TenantArg {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(value_name = "TENANT", id = "tenant_position")]
    position: Option<String>,
    /// The same, as a flag
    #[arg(long = "tenant", value_name = "TENANT", conflicts_with = "tenant_position")]
    flag: Option<String>,
}

impl TenantArg {
    /// This tenant.
    #[must_use]
    pub fn of(text: impl Into<String>) -> Self {
        Self {
            position: Some(text.into()),
            flag: None,
        }
    }

    /// What was said, if anything.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.position.as_deref().or(self.flag.as_deref())
    }
}

/// A tenant that something is done to, and whether to wait for its end.
#[derive(Debug, Default, clap::Args)]
struct WorkArgs {
    #[command(flatten)]
    tenant: TenantArg,
    #[command(flatten)]
    wait: WaitArgs,
}

impl WorkArgs {
    /// What the menu asks for.
    fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            wait: WaitArgs::default(),
        }
    }
}

/// Runs the verb, or asks for one.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.verb {
        None => menu::run(context).await,
        Some(Verb::Create(args)) => create::run(context, args).await,
        Some(Verb::List(args)) => list::run(context, args).await,
        Some(Verb::Show(args)) => show::run(context, args).await,
        Some(Verb::Edit(args)) => edit::run(context, args).await,
        Some(Verb::Select(args)) => select::run(context, args).await,
        Some(Verb::Delete(args)) => delete::run(context, args).await,
        Some(Verb::Status(args)) => status::run(context, args).await,
        Some(Verb::Events(args)) => events::run(context, args).await,
        Some(Verb::Logs(args)) => logs::run(context, args).await,
        Some(Verb::Metrics(args)) => metrics::run(context, args).await,
        Some(Verb::Scale(args)) => scale::run(context, args).await,
        Some(Verb::Environment(args)) => environment::run(context, args).await,
        Some(Verb::Resources(args)) => resources::run(context, args).await,
        Some(Verb::Restart(args)) => restart::run(context, args).await,
        Some(Verb::Members(args)) => members::run(context, args).await,
        Some(Verb::Support(args)) => support::run(context, args).await,
        Some(Verb::Suspend(args)) => power::suspend(context, args).await,
        Some(Verb::Activate(args)) => power::activate(context, args).await,
        Some(Verb::Sessions(args)) => sessions::run(context, args).await,
        Some(Verb::Trust(args)) => trust::run(context, args).await,
        Some(Verb::Retry(args)) => retry::run(context, args).await,
    }
}
