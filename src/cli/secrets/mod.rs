//! `systemprompt secrets`: values go in by prompt, file or standard input, never as an argument, and the server gives none out again.

mod dotenv;
mod export;
mod history;
mod import;
mod set;

use clap::Subcommand;
use serde_json::json;

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::secret::{Secret, SecretChange};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, watch};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::{Prompt, Table};

/// Flags of `systemprompt secrets`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a secret: asks for the value, or reads it from a file or standard input
    Set(set::Args),
    /// Set every entry of a `.env` file
    Import(import::Args),
    /// Write a `.env` file of the values that this project has, and the names of the others
    Export(export::Args),
    /// List secrets: names, versions and who set them, no values
    List(ListArgs),
    /// Show every value that a secret has had: versions, digests and who set them, no values
    History(history::HistoryArgs),
    /// Give a secret an earlier value again
    Rollback(history::RollbackArgs),
    /// Show how the secrets differ from those of a release
    Diff(history::DiffArgs),
    /// Remove a secret
    Unset(UnsetArgs),
}

/// Flags that every change of secrets takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct ChangeArgs {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Do not restart now: the next deploy takes it along
    #[arg(long)]
    stage: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
struct UnsetArgs {
    /// Its name
    key: SecretKey,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.verb {
        Verb::Set(args) => set::run(context, args).await,
        Verb::Import(args) => import::run(context, args).await,
        Verb::Export(args) => export::run(context, args).await,
        Verb::List(args) => list(context, &args).await,
        Verb::History(args) => history::history(context, &args).await,
        Verb::Rollback(args) => history::rollback(context, args).await,
        Verb::Diff(args) => history::diff(context, &args).await,
        Verb::Unset(args) => unset(context, &args).await,
    }
}

/// Asks for name and value of a secret: the menu's way in.
pub(in crate::cli) async fn set_asked(context: &Context, tenant: &TenantId) -> Result<(), CliError> {
    let prompt = Prompt::new(
        "Name of the secret",
        "name it, as in `systemprompt secrets set KEY`",
    );
    let key: SecretKey = context.ui().ask_text(prompt, None).await?;
    set::run(context, set::Args::of(key, tenant)).await
}

async fn list(context: &Context, args: &ListArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let secrets = context.client()?.list_secrets(&id).await?;
    let document = json!({ "tenant_id": id, "secrets": secrets });
    context.ui().result(&document, || table(&secrets))
}

fn table(secrets: &[Secret]) -> String {
    if secrets.is_empty() {
        return "no secrets; set one with `systemprompt secrets set KEY`".to_owned();
    }
    let mut table = Table::new(&["key", "version", "digest", "set by", "set at", "state"]);
    for secret in secrets {
        table.row([
            secret.key.to_string(),
            secret.version.to_string(),
            secret.digest.clone(),
            secret.set_by.clone(),
            secret.set_at.to_string(),
            if secret.staged { "staged" } else { "applied" }.to_owned(),
        ]);
    }
    table.render()
}

async fn unset(context: &Context, args: &UnsetArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.change.tenant.as_deref()).await?;
    let client = context.client()?;
    let change = client.unset_secret(&id, &args.key, args.change.stage).await?;
    let keys = vec![args.key.clone()];
    applied(context, &args.change, &change, keys, "removed").await
}

/// Waits for the release that applies a change, and says what was done.
async fn applied(
    context: &Context,
    args: &ChangeArgs,
    change: &SecretChange,
    keys: Vec<SecretKey>,
    verb: &str,
) -> Result<(), CliError> {
    let names: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    let names = names.join(", ");
    let mut operation = None;
    if let Some(id) = &change.operation_id {
        let begun = context.client()?.get_operation(id).await?;
        operation = Some(if args.wait.detach {
            begun
        } else {
            let ended = watch(context, &begun, "Applying secrets", args.wait.timeout).await?;
            crate::cli::follow::concluded(ended)?
        });
    }
    let it = if keys.len() == 1 { "it" } else { "them" };
    let when = match &operation {
        Some(operation) if args.wait.detach => {
            format!("; a release with {it} is on its way ({})", operation.id)
        }
        Some(_) => format!("; a new release has {it}"),
        None => format!("; the next deploy takes {it} along"),
    };
    context.ui().done(
        &json!({ "keys": keys, "secret": change.secret, "operation": operation }),
        format!("{names} {verb}{when}"),
    )
}
