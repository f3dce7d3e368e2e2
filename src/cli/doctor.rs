//! `systemprompt doctor`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Checks what deploying needs.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt doctor` is not built yet"))
}
