//! Edge sessions: whether the edge asks who visits a tenant before its app is asked anything.

use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use crate::api::name::SecretKey;

/// Names whom the visitor is, to the app: an account's id, or `<issuer>|<subject>`.
pub const USER_HEADER: &str = "X-Session-User";
/// Names the tenant that was visited.
pub const TENANT_HEADER: &str = "X-Session-Tenant";
/// Proves both: a JWT for the tenant, signed with one of the published keys.
pub const ASSERTION_HEADER: &str = "X-Session-Assertion";
/// The longest text of the setting, in characters.
const LONGEST: usize = 200;

/// Who is let in to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visitors {
    /// Everybody; nobody is asked who they are.
    Off,
    /// The tenant's members.
    Members,
    /// Everybody who has an account on this server.
    Accounts,
    /// Nobody but those for whom the named issuer vouches.
    Issuer,
}

/// Who visits a tenant is found out before its app is asked anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeSessions {
    /// Who is let in.
    pub who: Visitors,
    /// Somebody else who vouches for visitors, beside this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<SessionIssuer>,
}

/// Somebody else whose tokens (JWT) let visitors in, such as Directus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionIssuer {
    /// What the tokens name as their issuer (`iss`): `directus`, or the URL of one that the server allows.
    pub issuer: String,
    /// The tenant's secret that holds the key of the tokens (HS256). Without it they are verified with the keys that the
    /// issuer publishes, and must be for `audience`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// For whom the tokens must be (`aud`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The cookie in which browsers bring a token; `Authorization: Bearer` is looked at in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// What a token calls the visitor: `sub` if nothing is said; `id` at Directus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Where browsers without a token are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in_url: Option<String>,
}

impl EdgeSessions {
    /// The setting as it is kept: nothing where nobody is asked. Both sides call it.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    pub fn checked(mut self) -> Result<Option<Self>, (&'static str, String)> {
        if self.who == Visitors::Off {
            if self.issuer.is_some() {
                return Err(("issuer", "has no meaning where nobody is asked".to_owned()));
            }
            return Ok(None);
        }
        match &mut self.issuer {
            None if self.who == Visitors::Issuer => {
                Err(("issuer", "must be named where it alone lets in".to_owned()))
            }
            None => Ok(Some(self)),
            Some(issuer) => {
                issuer.check()?;
                Ok(Some(self))
            }
        }
    }
}

impl SessionIssuer {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        self.issuer = self.issuer.trim_end_matches('/').to_owned();
        let plain = |text: &str| {
            (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'|')
        };
        let refuse = |field, detail: &str| Err((field, detail.to_owned()));
        if !plain(&self.issuer) {
            return refuse(
                "issuer",
                "must be 1 to 200 plain characters without spaces and `|`",
            );
        }
        if self.secret.is_none() && !is_web(&self.issuer) {
            return refuse(
                "issuer",
                "must be the URL of an issuer that publishes its keys, or have a `secret`",
            );
        }
        if self.secret.is_none() && self.audience.is_none() {
            return refuse("audience", "must be named: an issuer signs tokens for others too");
        }
        if self.audience.as_ref().is_some_and(|audience| !plain(audience)) {
            return refuse("audience", "must be 1 to 200 plain characters without spaces");
        }
        if let Some(Err(why)) = self.secret.as_deref().map(str::parse::<SecretKey>) {
            return Err(("secret", why.to_string()));
        }
        if self.cookie.as_deref().is_some_and(|name| !is_name(name, b"-_.")) {
            return refuse("cookie", "must be the name of a cookie");
        }
        if self.claim.as_deref().is_some_and(|name| !is_name(name, b"_")) {
            return refuse("claim", "must be the name of a claim, like `sub` or `id`");
        }
        if self.sign_in_url.as_deref().is_some_and(|url| !is_web(url)) {
            return refuse("sign_in_url", "must be an `https://` or `http://` URL");
        }
        Ok(())
    }
}

fn is_web(text: &str) -> bool {
    let web =
        |url: &Url| matches!(url.scheme(), "https" | "http") && url.has_host() && url.username().is_empty();
    Url::parse(text).ok().filter(web).is_some()
}

fn is_name(text: &str, more: &[u8]) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::EdgeSessions;

    fn checked(setting: serde_json::Value) -> Result<bool, &'static str> {
        let setting: EdgeSessions = serde_json::from_value(setting).expect("a setting");
        let kept = setting.checked().map_err(|(field, _)| field);
        kept.map(|kept| kept.is_some())
    }

    #[test]
    fn who_may_come_in_is_said_without_doubt() {
        assert_eq!(checked(json!({"who": "off"})), Ok(false));
        assert_eq!(checked(json!({"who": "members"})), Ok(true));
        assert_eq!(checked(json!({"who": "issuer"})), Err("issuer"));
        let directus = json!({"issuer": "directus", "secret": "DIRECTUS_SECRET", "claim": "id",
            "cookie": "directus_session_token", "sign_in_url": "https://cms.example.com/admin/login"});
        assert_eq!(checked(json!({"who": "issuer", "issuer": directus})), Ok(true));
        assert_eq!(checked(json!({"who": "off", "issuer": directus})), Err("issuer"));
    }

    #[test]
    fn an_issuer_that_would_let_in_too_many_is_refused() {
        let with = |change: serde_json::Value| {
            let mut issuer = json!({"issuer": "https://id.example.com/", "audience": "shop"});
            for (name, value) in change.as_object().expect("fields") {
                issuer[name] = value.clone();
            }
            checked(json!({"who": "members", "issuer": issuer}))
        };
        assert_eq!(with(json!({})), Ok(true));
        assert_eq!(with(json!({"audience": null})), Err("audience"));
        assert_eq!(with(json!({"issuer": "directus"})), Err("issuer"));
        assert_eq!(
            with(json!({"issuer": "https://u:p@id.example.com"})),
            Err("issuer")
        );
        assert_eq!(with(json!({"issuer": "a|b", "secret": "KEY"})), Err("issuer"));
        assert_eq!(with(json!({"secret": "JWT_SECRET"})), Err("secret"));
        assert_eq!(with(json!({"cookie": "a=b"})), Err("cookie"));
        assert_eq!(with(json!({"claim": "a.b"})), Err("claim"));
        assert_eq!(
            with(json!({"sign_in_url": "javascript:alert(1)"})),
            Err("sign_in_url")
        );
        assert_eq!(with(json!({"sign_in_url": "//evil.example"})), Err("sign_in_url"));
    }
}
