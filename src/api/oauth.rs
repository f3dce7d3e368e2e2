//! Signing in: device authorization (RFC 8628), tokens (RFC 6749), revocation (RFC 7009), metadata (RFC 8414).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::secret::SecretText;

/// The public client that this binary is.
pub const CLIENT_ID: &str = "systemprompt-cli";
/// `grant_type` of a device poll (RFC 8628 section 3.4).
pub const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// `grant_type` of a refresh (RFC 6749 section 6).
pub const REFRESH_GRANT: &str = "refresh_token";

/// `grant_type` of an exchange (RFC 8693 section 2.1).
pub const EXCHANGE_GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What a CI's identity token is (RFC 8693 section 3).
pub const ID_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:id_token";
/// What it is exchanged for.
pub const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

/// What an access token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See tenants, events, logs.
    Read,
    /// Push images, deploy, restart.
    Deploy,
    /// Set secrets, fetch credentials.
    Secrets,
    /// Everything else: create, change, delete, tokens.
    Admin,
}

impl Scope {
    /// Every scope, as a person who signs in gets them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Deploy, Self::Secrets, Self::Admin];

    /// As it is written in `scope`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Secrets => "secrets",
            Self::Admin => "admin",
        }
    }

    /// Reads one word of `scope`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

/// Form of `POST /oauth/device_authorization` (RFC 8628 section 3.1).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceAuthorizationRequest {
    /// Which program asks.
    pub client_id: String,
    /// Scopes, space-separated; all unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Names the machine on the approval page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// Answer to it (RFC 8628 section 3.2).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceAuthorization {
    /// What the program polls with.
    pub device_code: SecretText,
    /// What the person compares and types: `BCDF-GHJK`.
    pub user_code: String,
    /// Where the person types it.
    pub verification_uri: String,
    /// The same with the code filled in; it must still be confirmed there.
    pub verification_uri_complete: String,
    /// Life of both codes, in seconds.
    pub expires_in: u64,
    /// Least seconds between polls.
    pub interval: u64,
}

/// Form of `POST /oauth/token`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TokenRequest {
    /// Which way: a device poll, a refresh or an exchange.
    pub grant_type: String,
    /// Which program asks.
    pub client_id: String,
    /// For a device poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_code: Option<SecretText>,
    /// For a refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<SecretText>,
    /// For an exchange: the identity that the CI gave to its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token: Option<SecretText>,
    /// What that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token_type: Option<String>,
    /// For an exchange: the tenant, by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
}

/// Answer of `POST /oauth/token` (RFC 6749 section 5.1).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenResponse {
    /// Goes into `Authorization: Bearer`.
    pub access_token: SecretText,
    /// Always `Bearer`.
    pub token_type: String,
    /// Life of the access token, in seconds.
    pub expires_in: u64,
    /// Buys the next one; changes at every use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<SecretText>,
    /// What it may do, space-separated.
    pub scope: String,
    /// What an exchange has given (RFC 8693 section 2.2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_token_type: Option<String>,
}

/// Refusal of an OAuth route (RFC 6749 section 5.2, RFC 8628 section 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OAuthError {
    /// `authorization_pending`, `slow_down`, `access_denied`, `expired_token`, `invalid_grant` …
    pub error: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

/// Form of `POST /oauth/revoke` (RFC 7009).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokeRequest {
    /// An access or refresh token.
    pub token: SecretText,
    /// Which program asks.
    pub client_id: String,
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ServerMetadata {
    /// The server's own address.
    pub issuer: String,
    /// Where tokens are had.
    pub token_endpoint: String,
    /// Where a device login begins.
    pub device_authorization_endpoint: String,
    /// Where tokens end.
    pub revocation_endpoint: String,
    /// Where the keys are that access tokens are signed with. Servers from before say nothing of it.
    #[serde(default)]
    pub jwks_uri: String,
    /// Ways that the token endpoint knows.
    pub grant_types_supported: Vec<String>,
    /// Scopes that can be asked for.
    pub scopes_supported: Vec<String>,
    /// Only public clients.
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

/// The keys that access tokens are signed with (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeySet {
    /// The one that signs, the one that signs next, and former ones whose tokens may still be good.
    pub keys: Vec<PublicKey>,
}

/// The public half of one key (RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublicKey {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub used_for: String,
    /// Names it in tokens: its thumbprint (RFC 7638).
    pub kid: String,
    /// The key.
    pub x: String,
}

impl PublicKey {
    /// A key of that name.
    #[must_use]
    pub fn ed25519(kid: String, x: String) -> Self {
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            used_for: "sig".to_owned(),
            kid,
            x,
        }
    }
}
