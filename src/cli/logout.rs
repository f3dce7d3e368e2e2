//! `systemprompt logout`: the session ends on the server and is forgotten here.

use serde_json::json;

use crate::api::oauth::{CLIENT_ID, RevokeRequest};
use crate::api::secret::SecretText;
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
    let revoked = match session.refresh_token {
        // The refresh token stands for the whole session.
        Some(token) => revoke(context, token).await,
        None => {
            context
                .ui()
                .status("the API token is forgotten here; it stays valid until it ends or is deleted");
            false
        }
    };
    store.forget(&server).await?;
    if context.environment().variable("SYSTEMPROMPT_TOKEN").is_some() {
        context
            .ui()
            .warning("`SYSTEMPROMPT_TOKEN` is still set: commands go on to use it");
    }
    context.ui().done(
        &json!({ "server": server, "signed_out": true, "revoked": revoked }),
        format!("signed out of {server}"),
    )
}

/// Ends the session on the server; one that cannot be reached does not keep anybody signed in here.
async fn revoke(context: &Context, token: SecretText) -> bool {
    let request = RevokeRequest {
        token,
        client_id: CLIENT_ID.to_owned(),
    };
    let revoked = match context.client_with(Credential::None) {
        Ok(client) => client.revoke(&request).await.map_err(CliError::from),
        Err(error) => Err(error),
    };
    if let Err(error) = &revoked {
        context.ui().warning(format!(
            "the session is forgotten here but was not ended on the server: {}",
            error.message()
        ));
    }
    revoked.is_ok()
}
