//! `systemprompt secrets`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt secrets`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `systemprompt secrets`.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt secrets` is not built yet"))
}
