//! `systemprompt server`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt server`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Looks after the management API's own data.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt server` is not built yet"))
}
