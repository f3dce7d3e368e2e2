//! Who signs the identities of CI jobs and of people: the issuers that the operator allows, and their keys (OpenID Connect
//! Discovery 1.0, RFC 7517), kept for a while and asked for again when a token names a key that is new.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::api::time::Time;
use crate::server::auth::asking::{AskError, Asking};
use crate::server::clock::Clock;

/// What the identities of jobs may be signed with. None of them has a key that is shared.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// For how long keys are used without a look, in seconds.
const FRESH_SECONDS: i64 = 600;
/// How often a key that is not known makes the server ask again, in seconds.
const ASK_AGAIN_SECONDS: i64 = 5;

/// Why an identity was not believed.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The operator does not allow the issuer.
    #[error("the issuer is not one that this server allows")]
    NotAllowed,
    /// It is no token, or signed in a way that is not taken.
    #[error("the identity is not a signed token that can be read")]
    Unreadable,
    /// The signature is of none of the issuer's keys.
    #[error("the identity is signed by no key of its issuer")]
    Signature,
    /// The issuer was asked, and has refused.
    #[error("`{issuer}` refuses: `{word}`")]
    Refused {
        /// Who.
        issuer: String,
        /// In its word.
        word: String,
    },
    /// The issuer cannot be asked, for its keys or anything else.
    #[error("failed to ask `{issuer}`: {why}")]
    Keys {
        /// Of whom.
        issuer: String,
        /// What went wrong.
        why: String,
    },
}

impl IssuerError {
    pub(super) fn keys(issuer: &str, why: impl Into<String>) -> Self {
        Self::Keys {
            issuer: issuer.to_owned(),
            why: why.into(),
        }
    }

    pub(super) fn asked(issuer: &str, error: AskError) -> Self {
        match error {
            AskError::Unwell(why) => Self::keys(issuer, why),
            AskError::Refused(word) => Self::Refused {
                issuer: issuer.to_owned(),
                word,
            },
        }
    }
}

/// The issuers that are allowed. Cheap to clone.
#[derive(Clone)]
pub struct Issuers(Arc<Inner>);

struct Inner {
    allowed: Vec<String>,
    clock: Clock,
    asking: Asking,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    discovery: Discovery,
    keys: JwkSet,
    asked_at: Time,
}

/// What an issuer says of itself.
#[derive(Clone, Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    pub(super) authorization_endpoint: Option<String>,
    #[serde(default)]
    pub(super) token_endpoint: Option<String>,
    #[serde(default)]
    pub(super) userinfo_endpoint: Option<String>,
    #[serde(default)]
    pub(super) token_endpoint_auth_methods_supported: Vec<String>,
}

impl Discovery {
    fn addresses(&self) -> impl Iterator<Item = &String> {
        let others = [
            &self.authorization_endpoint,
            &self.token_endpoint,
            &self.userinfo_endpoint,
        ];
        others.into_iter().flatten().chain([&self.jwks_uri])
    }
}

impl Issuers {
    /// These are allowed, without a slash at their end. Nobody is asked before a token of theirs comes.
    #[must_use]
    pub fn new(allowed: Vec<String>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            allowed,
            clock,
            asking: Asking::new(),
            known: Mutex::default(),
        }))
    }

    /// Which are allowed.
    #[must_use]
    pub fn allowed(&self) -> &[String] {
        &self.0.allowed
    }

    /// What a token of `issuer` says, once its signature was found good. Times and audience are the caller's to check.
    ///
    /// # Errors
    /// The issuer is not allowed, its keys cannot be had, or the signature is not theirs.
    pub async fn verify<T: DeserializeOwned>(&self, issuer: &str, token: &str) -> Result<T, IssuerError> {
        if !self.0.allowed.iter().any(|allowed| allowed == issuer) {
            return Err(IssuerError::NotAllowed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| IssuerError::Unreadable)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(IssuerError::Unreadable);
        }
        let kid = header.kid.ok_or(IssuerError::Unreadable)?;
        let key = self.key(issuer, &kid).await?;
        let same = key
            .common
            .key_algorithm
            .is_none_or(|it| it.to_string() == format!("{:?}", header.alg));
        let signs = key
            .common
            .public_key_use
            .as_ref()
            .is_none_or(|it| *it == PublicKeyUse::Signature);
        if !same || !signs {
            return Err(IssuerError::Signature);
        }
        let key = DecodingKey::from_jwk(&key).map_err(|_| IssuerError::Signature)?;
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode::<T>(token, &key, &validation)
            .map(|read| read.claims)
            .map_err(|_| IssuerError::Signature)
    }

    async fn key(&self, issuer: &str, kid: &str) -> Result<Jwk, IssuerError> {
        // Held while somebody asks: many jobs that begin together ask once.
        let mut known = self.0.known.lock().await;
        let now = self.0.clock.now();
        if let Some(known) = known.get(issuer) {
            let age = now.seconds_since(known.asked_at);
            let found = known.keys.find(kid);
            match found {
                Some(key) if (0..FRESH_SECONDS).contains(&age) => return Ok(key.clone()),
                None if (0..ASK_AGAIN_SECONDS).contains(&age) => return Err(IssuerError::Signature),
                _ => {}
            }
        }
        let asked = self.ask(issuer, now).await?;
        let found = asked.keys.find(kid).cloned();
        known.insert(issuer.to_owned(), asked);
        found.ok_or(IssuerError::Signature)
    }

    /// What an issuer says of itself.
    pub(super) async fn discovery(&self, issuer: &str) -> Result<Discovery, IssuerError> {
        if !self.0.allowed.iter().any(|allowed| allowed == issuer) {
            return Err(IssuerError::NotAllowed);
        }
        let mut known = self.0.known.lock().await;
        let now = self.0.clock.now();
        if let Some(known) = known.get(issuer)
            && (0..FRESH_SECONDS).contains(&now.seconds_since(known.asked_at))
        {
            return Ok(known.discovery.clone());
        }
        let asked = self.ask(issuer, now).await?;
        let discovery = asked.discovery.clone();
        known.insert(issuer.to_owned(), asked);
        Ok(discovery)
    }

    /// What its addresses are asked with.
    pub(super) fn asking(&self) -> &Asking {
        &self.0.asking
    }

    async fn ask(&self, issuer: &str, now: Time) -> Result<Known, IssuerError> {
        let asked = self.ask_for_keys(issuer).await;
        let (discovery, keys) = asked.map_err(|error| IssuerError::asked(issuer, error))?;
        Ok(Known {
            discovery,
            keys,
            asked_at: now,
        })
    }

    async fn ask_for_keys(&self, issuer: &str) -> Result<(Discovery, JwkSet), AskError> {
        let at = format!("{issuer}/.well-known/openid-configuration");
        let discovery: Discovery = self.0.asking.read(&at, None).await?;
        if discovery.issuer.trim_end_matches('/') != issuer {
            return Err(AskError::Unwell(format!("`{at}` is of `{}`", discovery.issuer)));
        }
        // Keys that came over an open line would be anybody's.
        let open = |address: &&String| issuer.starts_with("https://") && !address.starts_with("https://");
        if let Some(open) = discovery.addresses().find(open) {
            return Err(AskError::Unwell(format!("`{open}` is not secure")));
        }
        // One key that is of a new kind is no reason to refuse the others.
        let set: serde_json::Value = self.0.asking.read(&discovery.jwks_uri, None).await?;
        let keys = set["keys"].as_array().cloned().unwrap_or_default();
        let keys = keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok())
            .collect();
        Ok((discovery, JwkSet { keys }))
    }
}
