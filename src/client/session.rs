//! Tokens: where they come from, and refreshing them without being asked.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::api::oauth::TokenResponse;
use crate::api::secret::SecretText;
use crate::api::time::Time;

/// What went wrong in the store.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// The tokens of one session with one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Goes into `Authorization: Bearer`.
    pub access_token: SecretText,
    /// Buys the next pair; absent for a token that was given by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<SecretText>,
    /// When the access token ends, by this machine's clock (so a server whose clock is off does no harm).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

impl Tokens {
    /// What the server gave at `now`.
    #[must_use]
    pub fn granted(response: TokenResponse, now: Time) -> Self {
        let life = i64::try_from(response.expires_in).unwrap_or(0);
        Self {
            access_token: response.access_token,
            refresh_token: response.refresh_token,
            expires_at: Some(now.plus_seconds(life)),
        }
    }

    /// Whether the access token has ended or is about to.
    #[must_use]
    pub fn is_stale(&self, now: Time) -> bool {
        self.expires_at
            .is_some_and(|expires_at| expires_at.seconds_since(now) <= 20)
    }
}

/// Where the tokens of one server are kept.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// The tokens as they are kept now.
    async fn load(&self) -> Result<Option<Tokens>, StoreError>;
    /// Keeps these from now on.
    async fn save(&self, tokens: &Tokens) -> Result<(), StoreError>;
    /// New tokens by another way than a refresh token, where there is one.
    async fn renew(&self) -> Result<Option<Tokens>, StoreError> {
        Ok(None)
    }
    /// Keeps other processes from refreshing until the answer is dropped: a refresh token works once.
    async fn lock(&self) -> Result<Box<dyn Send>, StoreError>;
}

/// What goes into `Authorization`.
#[derive(Clone)]
pub enum Credential {
    /// Nothing: only open routes answer.
    None,
    /// A token that is used as it is.
    Token(SecretText),
    /// A session that is refreshed.
    Session(std::sync::Arc<dyn TokenStore>),
}
