//! `systemprompt login --oidc`: what a CI job can prove by itself, in exchange for a token of one tenant.

use crate::api::secret::SecretText;
use crate::cli::context::{Context, server_name};
use crate::cli::error::{CliError, Kind};
use crate::client::Client;
use crate::client::session::{Credential, StoreError, Tokens};
use crate::client::trust::IdentityRequest;
use crate::server::clock::Clock;

/// Where GitHub Actions says how a job gets its identity.
const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const GITHUB_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// Where GitLab puts it, as `id_tokens` of the job says.
const IDENTITY: &str = "SYSTEMPROMPT_ID_TOKEN";

/// Signs a job in.
pub(super) async fn sign_in(context: &Context, tenant: Option<&str>) -> Result<(Tokens, String), CliError> {
    let tenant = tenant_text(context, tenant)?;
    let client = context.client_with(Credential::None)?;
    // The audience is the server's own name for itself, which need not be the address that was typed.
    let server = client.server_metadata().await?.issuer;
    let identity = identity(context, &server).await?;
    let response = client.exchange_identity(identity, &tenant).await.map_err(|error| {
        let refused = error.code() == Some("invalid_grant");
        let error = CliError::from(error);
        if !refused {
            return error;
        }
        error
            .hint("the tenant's owner lets a repository in with `systemprompt tenant trust add --repository OWNER/NAME --ref BRANCH`")
            .hint(format!("the identity must be for the audience `{server}`"))
    })?;
    Ok((Tokens::granted(response, context.clock().now()), tenant))
}

/// The tenant as it was named; the server knows it by its id or its name.
fn tenant_text(context: &Context, flag: Option<&str>) -> Result<String, CliError> {
    if let Some(text) = flag {
        return Ok(text.to_owned());
    }
    if let Some(text) = context.named_tenant()? {
        return Ok(text);
    }
    let selected = match context.find_workspace() {
        Some(workspace) => workspace
            .read_tenants()?
            .default_tenant()
            .map(|entry| entry.id.to_string()),
        None => None,
    };
    selected.ok_or_else(|| {
        CliError::usage("no tenant is named: the token of a job is for one tenant")
            .code("answer-missing")
            .hint("name it with `--tenant TENANT` or `SYSTEMPROMPT_TENANT`")
    })
}

/// A job that can prove again who it is, when its token has ended before the job has.
pub struct Renewal {
    client: Client,
    request: IdentityRequest,
    clock: Clock,
}

impl Renewal {
    /// New tokens for the tenant.
    ///
    /// # Errors
    /// The CI gives no identity, or the server does not let the job in any more.
    pub async fn tokens(&self, tenant: &str) -> Result<Tokens, StoreError> {
        let server = self.client.server_metadata().await?.issuer;
        let identity = self.request.identity(&server).await?;
        let response = self.client.exchange_identity(identity, tenant).await?;
        Ok(Tokens::granted(response, self.clock.now()))
    }
}

/// How this job can prove again who it is, if it can. An identity of GitLab works once.
pub(super) fn renewal(context: &Context) -> Result<Option<Renewal>, CliError> {
    let Some(request) = github(context)? else {
        return Ok(None);
    };
    Ok(Some(Renewal {
        client: context.client_with(Credential::None)?,
        request,
        clock: context.clock().clone(),
    }))
}

fn github(context: &Context) -> Result<Option<IdentityRequest>, CliError> {
    let environment = context.environment();
    let (Some(url), Some(token)) = (
        environment.variable(GITHUB_URL),
        environment.variable(GITHUB_TOKEN),
    ) else {
        return Ok(None);
    };
    let url = url
        .parse()
        .map_err(|error| CliError::failed(format!("`{GITHUB_URL}` does not hold a URL")).because(error))?;
    Ok(Some(IdentityRequest {
        url,
        token: SecretText::new(token),
    }))
}

async fn identity(context: &Context, audience: &str) -> Result<SecretText, CliError> {
    if let Some(request) = github(context)? {
        return request.identity(audience).await.map_err(|error| {
            CliError::new(
                Kind::Unreachable,
                "failed to get the identity of this job from GitHub",
            )
            .because(error)
            .hint("run the job again")
        });
    }
    let environment = context.environment();
    if let Some(identity) = environment.variable(IDENTITY) {
        return Ok(SecretText::new(identity));
    }
    Err(CliError::usage("this is no CI job that can prove who it is")
        .code("no-identity")
        .hint("on GitHub Actions, give the job `permissions: { id-token: write, contents: read }`")
        .hint(format!(
            "on GitLab, give it `id_tokens: {{ {IDENTITY}: {{ aud: {} }} }}`",
            server_name(&context.server_url()?)
        ))
        .hint("elsewhere, sign in with an API token: `systemprompt login --with-token < FILE`"))
}
