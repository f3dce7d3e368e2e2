//! `systemprompt server keys`: how the master key and the keys of access tokens stand, and their rotation.

use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::serve::failed;
use crate::cli::ui::Table;
use crate::server::config::DataFlags;
use crate::server::{KeyState, KeyStatus, RingKey, Server};

/// What `keys status` prints.
#[derive(serde::Serialize)]
struct Keys {
    #[serde(flatten)]
    master: KeyStatus,
    signing: Vec<RingKey>,
}

/// Flags of `systemprompt server keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the versions of the master key with how many tenants' keys each has sealed, and the keys that sign access
    /// tokens
    Status(StatusArgs),
    /// Seal every tenant's key with a new version of the master key, beside running servers; finishes what was
    /// interrupted; with `--signing`: the keys that access tokens are signed with
    Rotate(RotateArgs),
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Debug, clap::Args)]
struct RotateArgs {
    /// Rotate the keys that access tokens are signed with: the next one signs, the former one verifies what it has
    /// signed. The master key stays as it is
    #[arg(long)]
    signing: bool,
    /// Remove the old versions from the key's file at the end: backups from before need them. With `--signing`: every
    /// access token ends now, and programs that are signed in get another one by themselves
    #[arg(long)]
    forget_old: bool,
    #[command(flatten)]
    data: DataFlags,
}

/// Looks at the master key, or rotates it.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let clock = context.clock();
    match args.command {
        Command::Status(args) => {
            let keys = Keys {
                master: Server::key_status(args.data.clone(), clock)
                    .await
                    .map_err(failed)?,
                signing: Server::ring(args.data, clock).await.map_err(failed)?,
            };
            let tables = || format!("{}\n\n{}", table(&keys.master), ring_table(&keys.signing));
            context.ui().result(&keys, tables)
        }
        Command::Rotate(args) if args.signing => rotate_signing(context, args).await,
        Command::Rotate(args) => {
            let ui = context.ui();
            let told = |done: u64| ui.status(format!("{done} tenants' keys are sealed anew"));
            let rotated = Server::rotate_key(args.data, clock, args.forget_old, told)
                .await
                .map_err(failed)?;
            let begun = if rotated.added {
                format!("version {} of the master key is new", rotated.version)
            } else {
                format!("version {} of the master key seals", rotated.version)
            };
            let old = match rotated.forgotten.as_slice() {
                [] => "the old versions are still there".to_owned(),
                gone => format!(
                    "gone: {}",
                    gone.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
                ),
            };
            ui.done(
                &rotated,
                format!(
                    "{begun}; {} tenants' keys were sealed anew; {old}",
                    rotated.rewrapped
                ),
            )?;
            if rotated.forgotten.is_empty() {
                ui.hint("back the new key up, then let the old one go: `systemprompt server keys rotate --forget-old`");
            }
            Ok(())
        }
    }
}

async fn rotate_signing(context: &Context, args: RotateArgs) -> Result<(), CliError> {
    let ring = Server::rotate_ring(args.data, context.clock(), args.forget_old)
        .await
        .map_err(failed)?;
    let signs = ring.iter().find(|key| key.state == KeyState::Signs);
    let signs = signs.map_or("", |key| key.kid.as_str());
    let before = if args.forget_old {
        "every access token from before has ended"
    } else {
        "tokens of the former key are good until they end, in at most 12 minutes"
    };
    let document = serde_json::json!({ "signing": ring });
    context
        .ui()
        .done(&document, format!("`{signs}` signs access tokens; {before}"))
}

fn ring_table(ring: &[RingKey]) -> String {
    let mut table = Table::new(&["key of access tokens", "made", "state"]);
    for key in ring {
        let state = match (key.state, key.verifies_until) {
            (KeyState::Signs, _) => "signs".to_owned(),
            (KeyState::Next, _) => "signs next".to_owned(),
            (KeyState::Former, until) => {
                format!(
                    "verifies until {}",
                    until.map_or_else(String::new, |at| at.to_string())
                )
            }
        };
        table.row([key.kid.clone(), key.created_at.to_string(), state]);
    }
    table.render()
}

fn table(status: &KeyStatus) -> String {
    let mut table = Table::new(&["version", "tenants' keys", "state"]);
    for version in &status.versions {
        let state = if version.version == status.current {
            "seals"
        } else if version.there {
            "opens"
        } else {
            "MISSING"
        };
        table.row([
            version.version.to_string(),
            version.tenants.to_string(),
            state.to_owned(),
        ]);
    }
    table.render()
}
