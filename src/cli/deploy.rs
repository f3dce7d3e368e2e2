//! `systemprompt deploy`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt deploy`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Build this project's image, push it and release it.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt deploy` is not built yet"))
}
