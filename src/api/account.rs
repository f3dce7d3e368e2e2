//! Accounts and API tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::{AccountId, TenantId, TokenId};
use crate::api::oauth::Scope;
use crate::api::secret::SecretText;
use crate::api::time::Time;

/// `GET /me`: who the token speaks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// Names the account.
    pub account_id: AccountId,
    /// Signs in with it.
    pub email: String,
    /// Whether it may operate the server.
    pub operator: bool,
    /// What this token may do.
    pub scopes: Vec<Scope>,
    /// The one tenant that this token is for, if it is for one.
    pub tenant_id: Option<TenantId>,
    /// `session` or `api_token`.
    pub credential: String,
    /// When this token ends.
    pub expires_at: Time,
}

/// `POST /tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// For the list.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Only this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// Life in seconds, at most 90 days.
    pub expires_in_seconds: u64,
}

/// An API token as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    /// Names the token; not the token itself.
    pub id: TokenId,
    /// For the list.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Only this tenant.
    pub tenant_id: Option<TenantId>,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// When it was last used.
    pub last_used_at: Option<Time>,
    /// The token itself, in the answer that made it and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretText>,
}

/// What is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionKind {
    /// A command line, or another program, with tokens.
    Program,
    /// A browser, with a cookie.
    Browser,
}

/// Somebody elsewhere who lets in to the account: a person of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// Names it.
    pub id: String,
    /// As the operator has called the provider.
    pub provider: String,
    /// Who vouches.
    pub issuer: String,
    /// Who it is there.
    pub subject: String,
    /// The address that the provider named when it was connected.
    pub email: String,
    /// When it was connected.
    pub created_at: Time,
    /// When it last let somebody in.
    pub last_used_at: Time,
}

/// A program or a browser that is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Names it; nothing that it shows can be guessed from that.
    pub id: String,
    /// What it is.
    pub kind: SessionKind,
    /// As the program called its machine, or the browser itself.
    pub name: String,
    /// What a program may do.
    pub scopes: Vec<Scope>,
    /// By what a browser was let in: `password`, `link`, or the name of a provider.
    pub signed_in_by: Option<String>,
    /// When it signed in.
    pub created_at: Time,
    /// When a program last had new tokens.
    pub last_used_at: Option<Time>,
    /// When it ends by itself.
    pub expires_at: Time,
    /// Whether it is the one that asks.
    pub current: bool,
}
