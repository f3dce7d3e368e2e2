//! `systemprompt services`.

use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt services`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs inside a tenant.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt services` is not built yet"))
}
