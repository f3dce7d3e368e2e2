//! `systemprompt logout`: the session ends on the server and is forgotten here.

use serde_json::json;

use crate::api::oauth::{CLIENT_ID, RevokeRequest};
use crate::cli::context::{Context, server_name};
use crate::cli::error::CliError;
use crate::client::session::Credential;

/// Flags of `systemprompt logout`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Signs out.
pub async fn run(context: &Context, _args: Args) -> Result<(), CliError> {
    let store = context.credentials()?;
    let server = server_name(&context.server_url()?);
    let found = store.find(&server).await?;
    let Some((session, _)) = found else {
        return context.ui().done(
            &json!({ "server": server, "signed_out": false, "revoked": false }),
            format!("you were not signed in to {server}"),
        );
    };
    // The refresh token stands for the whole session.
    let token = session.refresh_token.unwrap_or(session.access_token);
    let request = RevokeRequest {
        token,
        client_id: CLIENT_ID.to_owned(),
    };
    let revoked = context.client_with(Credential::None)?.revoke(&request).await;
    store.forget(&server).await?;
    if let Err(error) = &revoked {
        context.ui().warning(format!(
            "the session is forgotten here but was not ended on the server: {error}"
        ));
    }
    if context.environment().variable("SYSTEMPROMPT_TOKEN").is_some() {
        context
            .ui()
            .warning("`SYSTEMPROMPT_TOKEN` is still set: commands go on to use it");
    }
    context.ui().done(
        &json!({ "server": server, "signed_out": true, "revoked": revoked.is_ok() }),
        format!("signed out of {server}"),
    )
}
