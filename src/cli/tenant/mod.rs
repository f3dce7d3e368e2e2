//! `systemprompt tenant`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt tenant`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `systemprompt tenant`.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt tenant` is not built yet"))
}
