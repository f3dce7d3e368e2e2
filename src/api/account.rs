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
