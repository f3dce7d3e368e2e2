//! Access tokens: signed for ten minutes (JWT, HS256 under a derived key), checked against the session at every use.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::api::id::{AccountId, SessionId};
use crate::api::member::Role;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::api_tokens::PREFIX as API_TOKEN_PREFIX;
use crate::server::auth::{Auth, AuthError, Credential, Principal, parse_scopes};
use crate::server::store::{accounts, sessions};

/// Life of an access token, in seconds.
pub const LIFE_SECONDS: u32 = 600;
/// How far two clocks may differ, in seconds.
const SKEW_SECONDS: i64 = 60;
const PURPOSE: &str = "access-token";

/// What an access token says (RFC 9068's names where it has them).
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: AccountId,
    sid: SessionId,
    scope: String,
    iat: i64,
    exp: i64,
}

impl Auth {
    /// Signs an access token for a session.
    ///
    /// # Errors
    /// Signing fails.
    pub fn issue_access(
        &self,
        session: &SessionId,
        account: &AccountId,
        scope: &str,
    ) -> Result<SecretText, AuthError> {
        let now = self.clock.now().as_millis().div_euclid(1000);
        let claims = Claims {
            sub: account.clone(),
            sid: session.clone(),
            scope: scope.to_owned(),
            iat: now,
            exp: now + i64::from(LIFE_SECONDS),
        };
        let key = EncodingKey::from_secret(&self.keys.derive(PURPOSE));
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
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
        let claims = self.read_access(bearer)?;
        let mut tx = self.store.begin_read().await?;
        let session = sessions::find(&mut tx, &claims.sid)
            .await?
            .filter(|session| session.revoked_at.is_none() && session.account_id == claims.sub)
            .ok_or(AuthError::Unauthenticated("the session has ended"))?;
        let account = accounts::find(&mut tx, &claims.sub)
            .await?
            .ok_or(AuthError::Unauthenticated("the account is gone"))?;
        Ok(Principal {
            account_id: account.id,
            email: account.email,
            operator: account.operator,
            scopes: parse_scopes(&claims.scope)
                .map_err(|_| AuthError::Unauthenticated("the access token is malformed"))?,
            tenant_id: None,
            credential: Credential::Session(session.id),
            expires_at: Time::from_millis(claims.exp * 1000),
            needs: Role::Owner,
        })
    }

    /// The session that an access token belongs to, whether or not the token has ended.
    #[must_use]
    pub fn session_of_access(&self, token: &str) -> Option<SessionId> {
        self.decode(token).map(|claims| claims.sid)
    }

    fn read_access(&self, token: &str) -> Result<Claims, AuthError> {
        let claims = self.decode(token).ok_or(AuthError::Unauthenticated(
            "the access token is not one of this server",
        ))?;
        let now = self.clock.now().as_millis().div_euclid(1000);
        if now >= claims.exp + SKEW_SECONDS {
            return Err(AuthError::Unauthenticated("the access token has expired"));
        }
        if claims.iat > now + SKEW_SECONDS {
            return Err(AuthError::Unauthenticated("the access token is from the future"));
        }
        Ok(claims)
    }

    fn decode(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        // Checked by the caller against the clock that was passed in.
        validation.validate_exp = false;
        let key = DecodingKey::from_secret(&self.keys.derive(PURPOSE));
        jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .ok()
            .map(|data| data.claims)
    }
}

#[cfg(test)]
mod tests {
    use crate::api::id::SessionId;
    use crate::server::auth::testing::bench;

    #[tokio::test]
    async fn outside_bytes_as_access_token() {
        let bench = bench().await;
        let session = SessionId::new(bench.clock.uuid());
        let good = bench.auth.issue_access(&session, &bench.account, "read");
        let good = good.expect("signed").expose().to_owned();
        assert!(bench.auth.session_of_access(&good).is_some());
        crate::mutation::torment(&[good.as_bytes(), b"eyJhbGciOiJub25lIn0.e30."], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let known = bench.auth.session_of_access(&text).is_some();
            assert!(!known || text == good, "{text}");
            text.split('.').count().min(5)
        });
    }
}
