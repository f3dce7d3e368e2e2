//! Who calls `/v2/…`: an access token as Bearer, or a credential as Basic password. And the challenge when nobody does.

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::server::registry::Inner;
use crate::server::registry::error::RegistryError;
use crate::server::registry::grant::{Action, Grant};
use crate::server::registry::names::Target;

/// The grant of the request's token; 401 with a challenge when there is none or it is not good.
pub(super) async fn authenticate(
    gate: &Inner,
    headers: &HeaderMap,
    challenge: &Challenge,
) -> Result<Grant, RegistryError> {
    let grant = match authorization(headers) {
        Some(("bearer", token)) => gate.tokens.verify_access(token),
        Some(("basic", text)) => {
            basic(text).and_then(|(_, password)| gate.tokens.verify_credential(&password))
        }
        _ => None,
    };
    match still_good(gate, grant).await? {
        Some(grant) => Ok(grant),
        None => Err(challenge.unauthorized(gate, None)),
    }
}

/// A credential outlives neither its time nor its tenant's namespace.
pub(super) async fn still_good(gate: &Inner, grant: Option<Grant>) -> Result<Option<Grant>, RegistryError> {
    let Some(grant) = grant else { return Ok(None) };
    let removed = gate.store.removed_at(&grant.tenant).await?;
    Ok(removed
        .is_none_or(|removed| grant.minted_at > removed)
        .then_some(grant))
}

/// Lets pass what the token carries; else says whether a new token would help (401) or not (403).
pub(super) fn require(
    gate: &Inner,
    grant: &Grant,
    action: Action,
    challenge: &Challenge,
) -> Result<(), RegistryError> {
    if grant.allows(action) {
        return Ok(());
    }
    match (grant.could_allow(action), action) {
        (true, _) => Err(challenge.unauthorized(gate, Some("insufficient_scope"))),
        (false, Action::Pull) => Err(RegistryError::denied("this credential may not read")),
        (false, Action::Push) => Err(RegistryError::denied("this credential may only pull")),
        (false, Action::Delete) => Err(RegistryError::denied("this credential may not remove anything")),
    }
}

/// What a client must ask a token for, to do what it tried.
pub(super) struct Challenge(Option<String>);

impl Challenge {
    /// For `method` on `target` of the repository `name`.
    pub(super) fn new(name: &str, target: &Target, method: &Method) -> Self {
        // The name goes into a header: nothing that is no name shall get there.
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        if *target == Target::Base || name.is_empty() || !plain {
            return Self(None);
        }
        let actions = match action(target, method) {
            Action::Pull => "pull",
            Action::Push => "pull,push",
            Action::Delete => "delete",
        };
        Self(Some(format!("repository:{name}:{actions}")))
    }

    /// For something that no scope names.
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn unauthorized(&self, gate: &Inner, error: Option<&str>) -> RegistryError {
        let settings = &gate.settings;
        let mut value = format!(
            "Bearer realm=\"{}\",service=\"{}\"",
            settings.realm, settings.registry_host
        );
        if let Some(scope) = &self.0 {
            value.push_str(&format!(",scope=\"{scope}\""));
        }
        if let Some(error) = error {
            value.push_str(&format!(",error=\"{error}\""));
        }
        RegistryError::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "authentication required",
        )
        .with(WWW_AUTHENTICATE, &value)
    }
}

/// What one must be allowed to do for `method` on `target`.
pub(super) fn action(target: &Target, method: &Method) -> Action {
    match target {
        Target::Uploads | Target::Upload(_) => Action::Push,
        _ => match *method {
            Method::GET | Method::HEAD => Action::Pull,
            Method::DELETE => Action::Delete,
            _ => Action::Push,
        },
    }
}

/// Scheme in lower case, and the rest of the `Authorization` header.
pub(super) fn authorization(headers: &HeaderMap) -> Option<(&'static str, &str)> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let scheme = ["bearer", "basic"]
        .into_iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))?;
    Some((scheme, rest.trim()))
}

/// User and password of a Basic header (RFC 7617).
pub(super) fn basic(text: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
