//! `systemprompt server keys`: how the master key stands, and its rotation.

use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::serve::failed;
use crate::cli::ui::Table;
use crate::server::config::DataFlags;
use crate::server::{KeyStatus, Server};

/// Flags of `systemprompt server keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the versions of the master key, and how many tenants' keys each has sealed
    Status(StatusArgs),
    /// Seal every tenant's key with a new version of the master key, beside running servers; finishes what was
    /// interrupted
    Rotate(RotateArgs),
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Debug, clap::Args)]
struct RotateArgs {
    /// Remove the old versions from the key's file at the end: backups from before need them
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
            let status = Server::key_status(args.data, clock).await.map_err(failed)?;
            context.ui().result(&status, || table(&status))
        }
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
