//! `systemprompt deploy`.

use crate::api::id::TenantId;
use crate::cli::context::Context;
use crate::cli::error::CliError;

/// Flags of `systemprompt deploy`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// A deploy to this tenant with every default: what `tenant create` offers at its end.
    #[must_use]
    pub fn for_tenant(_tenant: &TenantId) -> Self {
        Self {}
    }
}

/// Build this project's image, push it and release it.
pub async fn run(_context: &Context, _args: Args) -> Result<(), CliError> {
    Err(CliError::failed("`systemprompt deploy` is not built yet"))
}
