//! `systemprompt identities`: who of other providers lets in to the account, and their end.

use clap::Subcommand;
use serde_json::json;

use crate::api::account::Identity;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::ui::Table;

/// Flags of `systemprompt identities`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the identities (of Google, GitHub …) by which one signs in to the account
    List,
    /// Take one away: it lets nobody in any more, and browsers that its provider let in are signed out
    Unlink(UnlinkArgs),
}

#[derive(Debug, clap::Args)]
struct UnlinkArgs {
    /// The identity, as it is listed
    identity: String,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let client = context.client()?;
    match args.verb {
        Verb::List => {
            let identities = client.list_identities().await?;
            let document = json!({ "identities": identities });
            context.ui().result(&document, || table(&identities))
        }
        Verb::Unlink(args) => {
            client.remove_identity(&args.identity).await?;
            let text = format!("`{}` lets nobody in any more", args.identity);
            context.ui().done(&json!({ "unlinked": args.identity }), text)
        }
    }
}

fn table(identities: &[Identity]) -> String {
    if identities.is_empty() {
        return "nobody of another provider lets in to the account".to_owned();
    }
    let mut table = Table::new(&["identity", "provider", "address", "connected", "last used"]);
    for identity in identities {
        table.row([
            identity.id.clone(),
            format!("{} ({})", identity.provider, identity.issuer),
            identity.email.clone(),
            identity.created_at.to_string(),
            identity.last_used_at.to_string(),
        ]);
    }
    table.render()
}
