//! Signing in by GitHub, which knows no OpenID Connect for people: its OAuth (authorization code with `state` and PKCE), then
//! what its API says of the person whose token that is. The token is used for these two questions and dropped.

use serde::Deserialize;
use url::Url;

use crate::api::secret::SecretText;
use crate::server::auth::accounts::normal_email;
use crate::server::auth::asking::{AskError, Asking, word};
use crate::server::auth::issuers::IssuerError;
use crate::server::auth::providers::{ProviderSettings, Returned, Vouched};

/// GitHub itself; every other address is an Enterprise Server, or an enterprise of `ghe.com`.
pub const ADDRESS: &str = "https://github.com";
/// What is asked for: who it is, and their addresses.
pub(super) const SCOPE: &str = "read:user user:email";

/// GitHub answers 200 to refusals, too.
#[derive(Deserialize)]
struct Traded {
    #[serde(default)]
    access_token: Option<SecretText>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct User {
    /// Names can be changed, and given to somebody else.
    id: u64,
}

#[derive(Deserialize)]
struct Email {
    email: String,
    primary: bool,
    verified: bool,
}

/// Where its page is.
pub(super) fn page(address: &str) -> Result<Url, IssuerError> {
    Url::parse(&format!("{address}/login/oauth/authorize"))
        .map_err(|_| IssuerError::keys(address, "its address is none"))
}

/// Where its API is.
fn api(address: &str) -> String {
    match address.strip_prefix("https://") {
        Some("github.com") => "https://api.github.com".to_owned(),
        Some(host) if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        _ => format!("{address}/api/v3"),
    }
}

/// Whether it is this GitHub that has answered (RFC 9207).
pub(super) fn is_from(address: &str, iss: &str) -> bool {
    iss.strip_prefix(address)
        .is_some_and(|rest| ["", "/login/oauth"].contains(&rest))
}

/// Whom it vouches for, that gives itself for a code.
pub(super) async fn user(
    settings: &ProviderSettings,
    asking: &Asking,
    (code, verifier, redirect_uri): Returned<'_>,
) -> Result<Vouched, AskError> {
    let secret = settings.secret.as_ref().map_or("", SecretText::expose);
    let form = [
        ("client_id", settings.client_id.as_str()),
        ("client_secret", secret),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier),
    ];
    let at = format!("{}/login/oauth/access_token", settings.issuer);
    let traded: Traded = asking.send(&at, &form, None).await?;
    let token = match traded {
        Traded {
            error: Some(error), ..
        } => return Err(AskError::Refused(word(&error))),
        Traded {
            access_token: Some(token),
            ..
        } => token,
        Traded { .. } => return Err(AskError::Unwell(format!("`{at}` gives no token"))),
    };
    let api = api(&settings.issuer);
    let user: User = asking.read(&format!("{api}/user"), Some(&token)).await?;
    let emails: Vec<Email> = asking.read(&format!("{api}/user/emails"), Some(&token)).await?;
    let primary = emails.into_iter().find(|email| email.primary && email.verified);
    Ok(Vouched {
        subject: user.id.to_string(),
        email: primary.and_then(|email| normal_email(&email.email).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::{api, is_from};

    #[test]
    fn every_github_has_its_api_elsewhere() {
        assert_eq!(api("https://github.com"), "https://api.github.com");
        assert_eq!(api("https://acme.ghe.com"), "https://api.acme.ghe.com");
        assert_eq!(api("https://git.acme.example"), "https://git.acme.example/api/v3");
    }

    #[test]
    fn another_one_does_not_answer_for_it() {
        assert!(is_from("https://github.com", "https://github.com/login/oauth"));
        for other in [
            "https://github.com.evil.example",
            "https://evil.example",
            "https://github.com/evil",
        ] {
            assert!(!is_from("https://github.com", other), "{other}");
        }
    }
}
