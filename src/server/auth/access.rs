//! Access tokens: signed for ten minutes (RFC 9068, EdDSA), checked against the ring of keys and the session at every
//! use.

use std::collections::HashMap;
use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::api::id::{AccountId, SessionId};
use crate::api::member::Role;
use crate::api::oauth::CLIENT_ID;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::api_tokens::PREFIX as API_TOKEN_PREFIX;
use crate::server::auth::signing::verifies;
use crate::server::auth::{Auth, AuthError, Credential, Principal, parse_scopes};
use crate::server::store::sessions::SessionRow;
use crate::server::store::{StoreError, Tx, api_tokens, callers, sessions};

/// Life of an access token, in seconds.
pub const LIFE_SECONDS: u32 = 600;
/// How far two clocks may differ, in seconds.
pub(super) const SKEW_SECONDS: i64 = 60;
/// So many tokens are known by sight.
const SEEN_AT_MOST: usize = 4096;
/// What no other token that this server signs says of itself (RFC 9068 section 2.1).
const KIND: &str = "at+jwt";

/// What an access token says (RFC 9068's names where it has them).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    client_id: String,
    jti: String,
    sub: AccountId,
    sid: SessionId,
    scope: String,
    iat: i64,
    exp: i64,
}

impl Auth {
    /// Signs an access token for a session, in a transaction that may write.
    ///
    /// # Errors
    /// Signing or the store fails.
    pub async fn issue_access(&self, tx: &mut Tx, session: &SessionRow) -> Result<SecretText, AuthError> {
        let now = self.clock.now().as_millis().div_euclid(1000);
        let claims = Claims {
            iss: self.issuer.to_string(),
            aud: self.issuer.to_string(),
            client_id: CLIENT_ID.to_owned(),
            jti: self.clock.uuid().to_string(),
            sub: session.account_id.clone(),
            sid: session.id.clone(),
            scope: session.scopes.clone(),
            iat: now,
            exp: now + i64::from(LIFE_SECONDS),
        };
        let signer = self.signer(tx).await?;
        let header = Header {
            typ: Some(KIND.to_owned()),
            kid: Some(signer.kid),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &signer.key)
            .map(SecretText::new)
            .map_err(AuthError::Sign)
    }

    /// Who shows this bearer token.
    ///
    /// # Errors
    /// It is not good (any more), or the store fails.
    pub async fn authenticate(&self, bearer: &str) -> Result<Principal, AuthError> {
        if bearer.starts_with(API_TOKEN_PREFIX) {
            return self.authenticate_api_token(bearer).await;
        }
        const FOREIGN: AuthError = AuthError::Unauthenticated("the access token is not one of this server");
        // What the token says of itself only names rows; then the key in one of them says whether it is ours.
        let kid = key_named_by(bearer).ok_or(FOREIGN)?;
        let named = session_named_by(bearer).ok_or(FOREIGN)?;
        let shown = callers::find_by_session(&mut self.store.look(), &kid, &named)
            .await?
            .filter(|shown| verifies(shown.state, shown.verifies_until, self.clock.now()))
            .ok_or(FOREIGN)?;
        let claims = self.read_claims(bearer, &shown.public_key).ok_or(FOREIGN)?;
        self.check_times(&claims)?;
        if shown.session_of.as_ref() != Some(&claims.sub) || claims.sid != named {
            return Err(AuthError::Unauthenticated("the session has ended"));
        }
        let account = shown
            .caller
            .ok_or(AuthError::Unauthenticated("the account is gone"))?;
        Ok(Principal {
            account_id: account.account_id,
            email: account.email,
            operator: account.operator,
            scopes: parse_scopes(&claims.scope)
                .map_err(|_| AuthError::Unauthenticated("the access token is malformed"))?,
            tenant_id: None,
            credential: Credential::Session(claims.sid),
            expires_at: Time::from_millis(claims.exp * 1000),
            needs: Role::Owner,
        })
    }

    /// Whether what a caller has shown was not ended meanwhile.
    ///
    /// # Errors
    /// The store fails.
    pub async fn lasts(&self, credential: &Credential) -> Result<bool, StoreError> {
        let mut tx = self.store.look();
        match credential {
            Credential::ApiToken(id) => api_tokens::lasts(&mut tx, id).await,
            Credential::Session(id) => {
                let session = sessions::find(&mut tx, id).await?;
                Ok(session.is_some_and(|session| session.revoked_at.is_none()))
            }
        }
    }

    /// The session that an access token belongs to, whether or not the token has ended.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn session_of_access(
        &self,
        tx: &mut Tx,
        token: &str,
    ) -> Result<Option<SessionId>, StoreError> {
        Ok(self.decode(tx, token).await?.map(|claims| claims.sid))
    }

    fn check_times(&self, claims: &Claims) -> Result<(), AuthError> {
        let now = self.clock.now().as_millis().div_euclid(1000);
        if now >= claims.exp + SKEW_SECONDS {
            return Err(AuthError::Unauthenticated("the access token has expired"));
        }
        if claims.iat > now + SKEW_SECONDS {
            return Err(AuthError::Unauthenticated("the access token is from the future"));
        }
        Ok(())
    }

    /// What a token says that this key has signed. A signature that was good for a key stays good for it, so it is looked
    /// at once; whether the key, the session and the time are good is looked at every time.
    fn read_claims(&self, token: &str, public_key: &str) -> Option<Claims> {
        let name: [u8; 32] = Sha256::new()
            .chain_update(public_key)
            .chain_update([0])
            .chain_update(token)
            .finalize()
            .into();
        let known = |seen: &mut HashMap<_, _>| seen.get(&name).cloned();
        if let Some(claims) = known(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Some(claims);
        }
        let key = DecodingKey::from_ed_components(public_key).ok()?;
        let claims = claims_of(token, &key)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_AT_MOST {
            seen.clear();
        }
        seen.insert(name, claims.clone());
        Some(claims)
    }

    /// What a token says that one of our keys has signed.
    async fn decode(&self, tx: &mut Tx, token: &str) -> Result<Option<Claims>, StoreError> {
        let Some(kid) = key_named_by(token) else {
            return Ok(None);
        };
        let key = self.verifier(tx, &kid).await?;
        Ok(key.and_then(|key| claims_of(token, &key)))
    }
}

/// Which key an access token says that it is signed with. How it is signed is not the token's to say.
fn key_named_by(token: &str) -> Option<String> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let ours = header.alg == Algorithm::EdDSA && header.typ.as_deref() == Some(KIND);
    header.kid.filter(|_| ours)
}

/// Which session an access token says that it belongs to, whoever has signed it.
fn session_named_by(token: &str) -> Option<SessionId> {
    #[derive(Deserialize)]
    struct Named {
        sid: SessionId,
    }
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Named>(&claims)
        .ok()
        .map(|named| named.sid)
}

/// What a token says that this key has signed.
fn claims_of(token: &str, key: &DecodingKey) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    // Times are the caller's to check, by the clock that was passed in. The key says whose the token is: the address
    // that it names may have changed since.
    validation.validate_exp = false;
    validation.validate_aud = false;
    let read = jsonwebtoken::decode::<Claims>(token, key, &validation);
    read.ok().map(|data| data.claims)
}

#[cfg(test)]
mod tests {
    use super::{claims_of, key_named_by};
    use crate::server::auth::testing::bench;

    #[tokio::test]
    async fn outside_bytes_as_access_token() {
        let bench = bench().await;
        let mut tx = bench.auth.store.begin().await.expect("transaction");
        let begun = bench
            .auth
            .start_session(&mut tx, &bench.account, "read", "laptop");
        let good = begun.await.expect("session").access_token.expose().to_owned();
        let kid = key_named_by(&good).expect("a key");
        let key = bench
            .auth
            .verifier(&mut tx, &kid)
            .await
            .expect("read")
            .expect("ours");
        assert!(claims_of(&good, &key).is_some());
        crate::mutation::torment(&[good.as_bytes(), b"eyJhbGciOiJub25lIn0.e30."], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let named = key_named_by(&text).is_some_and(|named| named == kid);
            let known = claims_of(&text, &key).is_some();
            assert!(!(named && known) || text == good, "{text}");
            text.split('.').count().min(5)
        });
    }
}
