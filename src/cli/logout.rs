//! `systemprompt logout`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt logout`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `systemprompt logout`.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt logout` is not built yet"))
}
