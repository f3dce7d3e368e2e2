//! Signing in, and who is signed in.

use crate::api::account::Me;
use crate::api::health::Health;
use crate::api::oauth::{
    DeviceAuthorization, DeviceAuthorizationRequest, RevokeRequest, ServerMetadata, TokenRequest,
    TokenResponse,
};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

/// Where tokens are had.
pub(super) const TOKEN: &str = "/api/v1/oauth/token";

impl Client {
    /// Begins a device login.
    pub async fn authorize_device(
        &self,
        request: &DeviceAuthorizationRequest,
    ) -> Result<DeviceAuthorization, ClientError> {
        self.call(Call::form("/api/v1/oauth/device_authorization", request)?)
            .await
    }

    /// Asks for tokens.
    pub async fn token(&self, request: &TokenRequest) -> Result<TokenResponse, ClientError> {
        self.call(Call::form(TOKEN, request)?).await
    }

    /// What the server says of its sign-in, its own name among it (RFC 8414).
    pub async fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        self.call(Call::get("/.well-known/oauth-authorization-server").open())
            .await
    }

    /// Ends a token, and the session that it belongs to.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<(), ClientError> {
        self.call::<serde::de::IgnoredAny>(Call::form("/api/v1/oauth/revoke", request)?)
            .await
            .map(|_| ())
    }

    /// Who the token speaks for.
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.call(Call::get("/api/v1/me")).await
    }

    /// How the server is.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.call(Call::get("/health").open()).await
    }
}
