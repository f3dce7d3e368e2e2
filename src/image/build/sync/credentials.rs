//! What BuildKit asks of the user's registries: user name and password. The tokens it gets for itself.

use std::collections::HashMap;

use bollard::auth::DockerCredentials;
use bollard::moby::filesync::v1::auth_server::Auth;
use bollard::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

/// What is known, by host.
pub(super) struct Credentials(pub(super) HashMap<String, DockerCredentials>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Auth for Credentials {
    /// Nothing of both is the answer for a registry that needs none.
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Answer<CredentialsResponse> {
        let known = self
            .0
            .get(&request.into_inner().host)
            .cloned()
            .unwrap_or_default();
        // As the docker CLI: an identity token goes without a user name.
        let answer = match known.identitytoken.filter(|token| !token.is_empty()) {
            Some(secret) => CredentialsResponse {
                username: String::new(),
                secret,
            },
            None => CredentialsResponse {
                username: known.username.unwrap_or_default(),
                secret: known.password.unwrap_or_default(),
            },
        };
        Ok(Response::new(answer))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Answer<FetchTokenResponse> {
        Err(unknown())
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Answer<GetTokenAuthorityResponse> {
        Err(unknown())
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Answer<VerifyTokenAuthorityResponse> {
        Err(unknown())
    }
}

/// BuildKit then fetches its token with the credentials, as from clients that were before this method.
fn unknown() -> Status {
    Status::unimplemented("ask for the credentials")
}
