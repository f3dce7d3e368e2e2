//! `systemprompt serve`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt serve`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the management API.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt serve` is not built yet"))
}
