//! `systemprompt login`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt login`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `systemprompt login`.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt login` is not built yet"))
}
