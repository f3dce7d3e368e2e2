//! `systemprompt whoami`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt whoami`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `systemprompt whoami`.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt whoami` is not built yet"))
}
