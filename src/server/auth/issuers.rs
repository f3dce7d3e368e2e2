//! Who signs the identities of CI jobs: the issuers that the operator allows, and their keys (OpenID Connect Discovery
//! 1.0, RFC 7517), kept for a while and asked for again when a token names a key that is new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::api::time::Time;
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
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest document that is read, in bytes.
const LONGEST: usize = 256 * 1024;

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
    /// The issuer's keys cannot be had.
    #[error("failed to get the keys of `{issuer}`: {why}")]
    Keys {
        /// Of whom.
        issuer: String,
        /// What went wrong.
        why: String,
    },
}

/// The issuers that are allowed. Cheap to clone.
#[derive(Clone)]
pub struct Issuers(Arc<Inner>);

struct Inner {
    allowed: Vec<String>,
    clock: Clock,
    http: Option<reqwest::Client>,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    keys: JwkSet,
    asked_at: Time,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    /// These are allowed, without a slash at their end. Nobody is asked before a token of theirs comes.
    #[must_use]
    pub fn new(allowed: Vec<String>, clock: Clock) -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build();
        Self(Arc::new(Inner {
            allowed,
            clock,
            http: http.ok(),
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
        let keys = self.ask(issuer).await.map_err(|why| IssuerError::Keys {
            issuer: issuer.to_owned(),
            why,
        })?;
        let found = keys.find(kid).cloned();
        known.insert(issuer.to_owned(), Known { keys, asked_at: now });
        found.ok_or(IssuerError::Signature)
    }

    async fn ask(&self, issuer: &str) -> Result<JwkSet, String> {
        let at = format!("{issuer}/.well-known/openid-configuration");
        let discovery: Discovery = self.read(&at).await?;
        if discovery.issuer.trim_end_matches('/') != issuer {
            return Err(format!("`{at}` is of `{}`", discovery.issuer));
        }
        // Keys that came over an open line would be anybody's.
        if !discovery.jwks_uri.starts_with("https://") && issuer.starts_with("https://") {
            return Err(format!("`{}` is not secure", discovery.jwks_uri));
        }
        // One key that is of a new kind is no reason to refuse the others.
        let set: serde_json::Value = self.read(&discovery.jwks_uri).await?;
        let keys = set["keys"].as_array().cloned().unwrap_or_default();
        let keys = keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok())
            .collect();
        Ok(JwkSet { keys })
    }

    async fn read<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let http = self.0.http.as_ref().ok_or("there is no client to ask with")?;
        let failed = |error: reqwest::Error| format!("`{url}` does not answer well: {}", error.without_url());
        let mut answer = http
            .get(url)
            .send()
            .await
            .map_err(failed)?
            .error_for_status()
            .map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                return Err(format!("`{url}` answers with more than {LONGEST} bytes"));
            }
        }
        serde_json::from_slice(&body)
            .map_err(|error| format!("`{url}` does not answer as it should: {error}"))
    }
}
