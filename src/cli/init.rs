//! `systemprompt init`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt init`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Writes the `.systemprompt` folder into a project.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt init` is not built yet"))
}
