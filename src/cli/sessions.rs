//! `systemprompt sessions`: the programs and browsers that are signed in to the account, and their end.

use clap::Subcommand;
use serde_json::json;

use crate::api::account::{Session, SessionKind};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::ui::Table;

/// Flags of `systemprompt sessions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the programs and browsers that are signed in
    List,
    /// Sign one of them out, or all but this program
    End(EndArgs),
}

#[derive(Debug, clap::Args)]
struct EndArgs {
    /// The session, as it is listed
    #[arg(required_unless_present = "others")]
    session: Option<String>,
    /// All but the one of this program
    #[arg(long, conflicts_with = "session")]
    others: bool,
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let client = context.client()?;
    match args.verb {
        Verb::List => {
            let sessions = client.list_sessions().await?;
            let document = json!({ "sessions": sessions });
            context.ui().result(&document, || table(&sessions))
        }
        Verb::End(args) => {
            let ending = match args.session {
                Some(session) => vec![session],
                None => {
                    let sessions = client.list_sessions().await?;
                    let others = sessions.into_iter().filter(|session| !session.current);
                    others.map(|session| session.id).collect()
                }
            };
            for session in &ending {
                client.end_session(session).await?;
            }
            let text = match ending.as_slice() {
                [] => "nobody else is signed in".to_owned(),
                [one] => format!("`{one}` is signed out"),
                many => format!("{} sessions are signed out", many.len()),
            };
            context.ui().done(&json!({ "ended": ending }), text)
        }
    }
}

fn table(sessions: &[Session]) -> String {
    let mut table = Table::new(&["session", "what", "name", "since", "last used", "ends"]);
    for session in sessions {
        let what = match (session.kind, &session.signed_in_by) {
            (SessionKind::Program, _) if session.current => "this program".to_owned(),
            (SessionKind::Program, _) => "program".to_owned(),
            (SessionKind::Browser, Some(way)) => format!("browser ({way})"),
            (SessionKind::Browser, None) => "browser".to_owned(),
        };
        let used = session.last_used_at.map_or_else(String::new, |at| at.to_string());
        table.row([
            session.id.clone(),
            what,
            session.name.chars().take(40).collect(),
            session.created_at.to_string(),
            used,
            session.expires_at.to_string(),
        ]);
    }
    table.render()
}
