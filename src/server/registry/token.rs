//! The two kinds of token: the credential that a person or the server holds, and the access token it is traded for.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::api::id::TenantId;
use crate::api::registry::REPOSITORY;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::registry::GateAccess;
use crate::server::registry::grant::{Action, Grant, granted};

/// A credential lives no longer than this; what must outlast every credential (tombstones) counts on it.
pub(super) const LONGEST_SECONDS: u32 = 24 * 3600;
/// An access token lives no longer than this.
const ACCESS_SECONDS: i64 = 900;
/// The Docker token contract: clients take anything below for 60 all the same.
const SHORTEST_ANSWER_SECONDS: i64 = 60;

/// What a credential is traded for.
pub(super) struct AccessToken {
    /// The token.
    pub(super) token: String,
    /// For how long the client may take it to be good.
    pub(super) expires_in_seconds: i64,
    /// When it was made.
    pub(super) issued_at: Time,
}

/// Makes and verifies both kinds.
pub(super) struct Tokens {
    clock: Clock,
    credential: Keys,
    access: Keys,
}

struct Keys {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    tenant: TenantId,
    max: Level,
    minted_ms: i64,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Vec<Access>>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Pull,
    Push,
    Manage,
}

#[derive(Serialize, Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<Action>,
}

impl Tokens {
    /// Derives one key for each kind, so that no token of one kind can pass for the other.
    pub(super) fn new(signing_key: &[u8; 32], clock: Clock) -> Self {
        Self {
            clock,
            credential: Keys::derive(signing_key, b"systemprompt gate credential v1"),
            access: Keys::derive(signing_key, b"systemprompt gate access token v1"),
        }
    }

    /// Makes a credential.
    pub(super) fn mint_credential(
        &self,
        tenant: &TenantId,
        access: GateAccess,
        ttl_seconds: u32,
    ) -> (SecretText, Time) {
        let now = self.clock.now();
        let ttl = i64::from(ttl_seconds.min(LONGEST_SECONDS));
        // Whole seconds, so that the time told is the time checked.
        let exp = now.as_millis().div_euclid(1000) + ttl;
        let token = self.credential.sign(&Claims {
            tenant: tenant.clone(),
            max: access.into(),
            minted_ms: now.as_millis(),
            iat: now.as_millis().div_euclid(1000),
            exp,
            jti: self.clock.uuid().simple().to_string(),
            access: None,
        });
        (SecretText::new(token), Time::from_millis(exp * 1000))
    }

    /// What the credential `text` lets do, if it is one of ours and has not ended.
    pub(super) fn verify_credential(&self, text: &str) -> Option<Grant> {
        let claims = self.credential.verify(text, self.clock.now())?;
        let access = GateAccess::from(claims.max);
        Some(claims.grant(access.actions().to_vec()))
    }

    /// What the access token `text` lets do, if it is one of ours and has not ended.
    pub(super) fn verify_access(&self, text: &str) -> Option<Grant> {
        let mut claims = self.access.verify(text, self.clock.now())?;
        let actions = claims
            .access
            .take()?
            .into_iter()
            .filter(|access| access.kind == "repository" && access.name == REPOSITORY)
            .flat_map(|access| access.actions)
            .collect();
        Some(claims.grant(actions))
    }

    /// Trades a verified credential for a token that carries what of `scopes` the credential allows.
    pub(super) fn trade(&self, credential: &Grant, scopes: &[&str]) -> AccessToken {
        let now = self.clock.now();
        let iat = now.as_millis().div_euclid(1000);
        let exp = credential
            .expires_at
            .as_millis()
            .div_euclid(1000)
            .min(iat + ACCESS_SECONDS);
        let actions = granted(scopes, credential);
        let access = match actions.is_empty() {
            true => Vec::new(),
            false => {
                vec![Access {
                    kind: "repository".to_owned(),
                    name: REPOSITORY.to_owned(),
                    actions,
                }]
            }
        };
        let token = self.access.sign(&Claims {
            tenant: credential.tenant.clone(),
            max: credential.access.into(),
            minted_ms: credential.minted_at.as_millis(),
            iat,
            exp,
            jti: self.clock.uuid().simple().to_string(),
            access: Some(access),
        });
        AccessToken {
            token,
            expires_in_seconds: (exp - iat).max(SHORTEST_ANSWER_SECONDS),
            issued_at: now,
        }
    }
}

impl Keys {
    fn derive(signing_key: &[u8; 32], purpose: &[u8]) -> Self {
        // Padded to HMAC's block (which is what HMAC does with a shorter key), so that there is no length to refuse.
        let mut block = [0; 64];
        block[..signing_key.len()].copy_from_slice(signing_key);
        let key = Hmac::<Sha256>::new(&block.into())
            .chain_update(purpose)
            .finalize()
            .into_bytes();
        Self {
            encoding: EncodingKey::from_secret(&key),
            decoding: DecodingKey::from_secret(&key),
        }
    }

    fn sign(&self, claims: &Claims) -> String {
        // HS256 over plain strings and numbers cannot fail; an empty token is refused by everything.
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding).unwrap_or_default()
    }

    fn verify(&self, text: &str, now: Time) -> Option<Claims> {
        let mut rules = Validation::new(Algorithm::HS256);
        // Time is the clock's, which tests hold; the library would ask the machine.
        rules.validate_exp = false;
        rules.validate_aud = false;
        rules.required_spec_claims.clear();
        let claims: Claims = decode(text, &self.decoding, &rules)?;
        (now.as_millis() < claims.exp * 1000).then_some(claims)
    }
}

impl Claims {
    fn grant(self, actions: Vec<Action>) -> Grant {
        Grant {
            tenant: self.tenant,
            access: self.max.into(),
            minted_at: Time::from_millis(self.minted_ms),
            expires_at: Time::from_millis(self.exp * 1000),
            actions,
        }
    }
}

impl From<GateAccess> for Level {
    fn from(access: GateAccess) -> Self {
        match access {
            GateAccess::Pull => Self::Pull,
            GateAccess::Push => Self::Push,
            GateAccess::Manage => Self::Manage,
        }
    }
}

impl From<Level> for GateAccess {
    fn from(level: Level) -> Self {
        match level {
            Level::Pull => Self::Pull,
            Level::Push => Self::Push,
            Level::Manage => Self::Manage,
        }
    }
}

fn decode<T: DeserializeOwned>(text: &str, key: &DecodingKey, rules: &Validation) -> Option<T> {
    jsonwebtoken::decode(text, key, rules)
        .ok()
        .map(|data| data.claims)
}

#[cfg(test)]
mod tests {
    use crate::api::id::TenantId;
    use crate::server::clock::Clock;
    use crate::server::registry::GateAccess;
    use crate::server::registry::token::Tokens;

    #[test]
    fn outside_bytes_as_registry_token() {
        let clock = Clock::system();
        let tokens = Tokens::new(&[7; 32], clock.clone());
        let tenant = TenantId::new(clock.uuid());
        let (good, _) = tokens.mint_credential(&tenant, GateAccess::Push, 600);
        assert!(tokens.verify_credential(good.expose()).is_some());
        let good = good.expose().to_owned();
        crate::mutation::torment(&[good.as_bytes(), b"e30.e30.", b"a.b.c"], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            // Nothing but the token itself is one: not even another writing of its last character.
            let credential = tokens.verify_credential(&text).is_some();
            assert!(!credential || text == good, "{text}");
            assert!(tokens.verify_access(&text).is_none());
            text.split('.').count().min(5)
        });
    }
}
