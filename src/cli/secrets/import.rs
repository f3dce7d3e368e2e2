//! `systemprompt secrets import`: every entry of a `.env` file.

use std::path::PathBuf;

use crate::api::name::{InvalidName, SecretKey};
use crate::api::secret::{SecretText, SetSecret};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::secrets::dotenv::{self, Entry};
use crate::cli::secrets::{ChangeArgs, applied};
use crate::cli::tenant::pick::pick_cloud;

/// Flags of `systemprompt secrets import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    #[arg(value_name = "FILE", default_value = ".env")]
    file: PathBuf,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Imports secrets.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let file = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| CliError::failed(format!("failed to read `{file}`")).because(error))?;
    let text = SecretText::new(text);
    let entries = dotenv::parse(text.expose()).map_err(|error| {
        CliError::usage(format!("`{file}`, line {}: {}", error.line, error.what)).code("dotenv-syntax")
    })?;
    // Everything is checked before anything is sent: half an import is worse than none.
    let secrets = checked(context, &file, entries)?;
    let Some((last, others)) = secrets.split_last() else {
        return Err(CliError::usage(format!(
            "`{file}` has no entry that can be a secret"
        )));
    };
    let id = pick_cloud(context, args.change.tenant.as_deref()).await?;
    let client = context.client()?;
    for secret in others {
        // Staged, so that one release takes them all along.
        client.set_secret(&id, secret, true).await?;
    }
    let change = client.set_secret(&id, last, args.change.stage).await?;
    let keys = secrets.iter().map(|secret| secret.key.clone()).collect();
    applied(context, &args.change, &change, keys, "set").await
}

fn checked(context: &Context, file: &str, entries: Vec<Entry>) -> Result<Vec<SetSecret>, CliError> {
    let mut secrets: Vec<SetSecret> = Vec::new();
    for entry in entries {
        let key: SecretKey = match entry.key.parse() {
            Ok(key) => key,
            Err(InvalidName::ReservedKey(key)) => {
                context.ui().warning(format!(
                    "`{file}`, line {}: `{key}` is left out: the platform sets it itself",
                    entry.line
                ));
                continue;
            }
            Err(error) => {
                return Err(CliError::usage(format!(
                    "`{file}`, line {}: `{}`: {error}",
                    entry.line, entry.key
                )));
            }
        };
        if entry.value.expose().is_empty() {
            context.ui().warning(format!(
                "`{file}`, line {}: `{key}` is left out: it is empty",
                entry.line
            ));
            continue;
        }
        // As in a shell, the last one wins.
        secrets.retain(|secret| secret.key != key);
        secrets.push(SetSecret {
            key,
            value: entry.value,
        });
    }
    Ok(secrets)
}
