//! What a provider of OpenID Connect says of a person, and whether it is for this sign-in (OpenID Connect Core 1.0).

use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::server::auth::Auth;
use crate::server::auth::accounts::normal_email;
use crate::server::auth::exchange::Audience;
use crate::server::auth::oidc::OidcError;
use crate::server::auth::providers::{Provider, ProviderSettings, Returned, Vouched};

const SKEW_SECONDS: i64 = 60;

/// What an identity says.
#[derive(Debug, Deserialize)]
struct Identity {
    iss: String,
    sub: String,
    aud: Audience,
    #[serde(default)]
    azp: Option<String>,
    exp: i64,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(flatten)]
    address: Address,
}

/// What is said of an address, in an identity or besides.
#[derive(Debug, Deserialize)]
struct Address {
    #[serde(default)]
    email: Option<String>,
    /// Some write it as text.
    #[serde(default)]
    email_verified: Option<serde_json::Value>,
}

/// What a provider tells besides.
#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    #[serde(flatten)]
    address: Address,
}

impl Auth {
    /// Whom a provider of OpenID Connect vouches for. Where its identity names no address, it is asked for one.
    pub(super) async fn vouched_for(
        &self,
        provider: &Provider,
        with: Returned<'_>,
        nonce: &str,
    ) -> Result<Vouched, OidcError> {
        let (identity, token): (Identity, _) = provider.identity(with).await?;
        self.check_identity(&identity, provider, nonce)?;
        let address = match token {
            Some(token) if identity.address.email.is_none() => {
                match provider.userinfo::<UserInfo>(&token).await? {
                    // Section 5.3.2: of another person nothing is believed.
                    Some(told) if told.sub != identity.sub => {
                        return Err(OidcError::NotForUs("it tells about another person"));
                    }
                    Some(told) => told.address,
                    None => identity.address,
                }
            }
            _ => identity.address,
        };
        Ok(Vouched {
            subject: identity.sub,
            email: address.verified(),
        })
    }

    fn check_identity(
        &self,
        identity: &Identity,
        provider: &ProviderSettings,
        nonce: &str,
    ) -> Result<(), OidcError> {
        let wrong = |what| Err(OidcError::NotForUs(what));
        let shown = identity.nonce.as_deref().unwrap_or_default();
        let same: bool = shown.as_bytes().ct_eq(nonce.as_bytes()).into();
        match identity {
            _ if identity.iss.trim_end_matches('/') != provider.issuer => wrong("another issuer"),
            _ if !identity.aud.names(&provider.client_id) => wrong("another audience"),
            _ if identity
                .azp
                .as_ref()
                .is_some_and(|azp| *azp != provider.client_id) =>
            {
                wrong("it was given to somebody else")
            }
            _ if self.seconds() >= identity.exp.saturating_add(SKEW_SECONDS) => wrong("it has expired"),
            _ if !same => wrong("another nonce"),
            _ if identity.sub.is_empty() || identity.sub.len() > 255 => wrong("it names nobody"),
            _ => Ok(()),
        }
    }
}

impl Address {
    /// The address that the provider says is the person's.
    fn verified(&self) -> Option<String> {
        let verified = match &self.email_verified {
            Some(serde_json::Value::Bool(verified)) => *verified,
            Some(serde_json::Value::String(word)) => word == "true",
            _ => false,
        };
        let email = self.email.as_deref().filter(|_| verified)?;
        normal_email(email).ok()
    }
}
