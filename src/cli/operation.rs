//! `systemprompt operation`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt operation`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `systemprompt operation`.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt operation` is not built yet"))
}
