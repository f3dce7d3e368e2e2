//! Sessions of programs: a refresh token that changes at every use, and what happens when an old one comes back.
//!
//! A refresh token is `spr_`, the session's id, a secret and a tag. The first secret is random, every next one is
//! derived from the one before under the installation's key: whoever lost the answer to a refresh, or refreshed
//! twice at once, asks again with the old token and gets the same successor. The tag proves that a token was issued
//! here, so that the reuse of a token of any age is told from a made-up one and ends the session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::api::id::{AccountId, SessionId};
use crate::api::oauth::TokenResponse;
use crate::api::secret::SecretText;
use crate::server::auth::keys::{Keys, hash_token, random_token};
use crate::server::auth::{Auth, AuthError, access};
use crate::server::store::sessions::SessionRow;
use crate::server::store::{StoreError, Tx, acts, sessions};

/// Life of a session, in seconds.
pub const LIFE_SECONDS: u32 = 90 * 24 * 3600;
/// How long the token before the last still gets its successor again, in seconds.
pub const GRACE_SECONDS: i64 = 30;
const PREFIX: &str = "spr_";
const ID_CHARS: usize = 26;
const SECRET_CHARS: usize = 43;

/// Why a grant was not turned into tokens.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// An error of RFC 6749 section 5.2 or RFC 8628 section 3.5.
    #[error("{description}")]
    Refused {
        /// The registered word.
        error: &'static str,
        /// For people.
        description: &'static str,
    },
    /// The server could not tell.
    #[error(transparent)]
    Failed(#[from] AuthError),
}

impl From<StoreError> for GrantError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

pub(super) const fn refused(error: &'static str, description: &'static str) -> GrantError {
    GrantError::Refused { error, description }
}

/// A refresh token taken apart.
struct Refresh {
    session: SessionId,
    secret: String,
}

impl Refresh {
    fn parse(keys: &Keys, token: &str) -> Option<Self> {
        let rest = token.strip_prefix(PREFIX)?;
        let session = format!("{}{}", SessionId::PREFIX, rest.get(..ID_CHARS)?)
            .parse()
            .ok()?;
        let secret = rest.get(ID_CHARS..ID_CHARS + SECRET_CHARS)?.to_owned();
        let parsed = Self { session, secret };
        let genuine: bool = parsed.write(keys).as_bytes().ct_eq(token.as_bytes()).into();
        genuine.then_some(parsed)
    }

    fn write(&self, keys: &Keys) -> String {
        let tag = keys.mac(
            "refresh-tag",
            &[self.session.as_str().as_bytes(), self.secret.as_bytes()],
        );
        let id = self.session.as_str().trim_start_matches(SessionId::PREFIX);
        let tag = URL_SAFE_NO_PAD.encode(tag.get(..16).unwrap_or_default());
        format!("{PREFIX}{id}{}{tag}", self.secret)
    }

    fn successor(&self, keys: &Keys) -> Self {
        let next = keys.mac(
            "refresh-next",
            &[self.session.as_str().as_bytes(), self.secret.as_bytes()],
        );
        Self {
            session: self.session.clone(),
            secret: URL_SAFE_NO_PAD.encode(next),
        }
    }
}

impl Auth {
    /// Begins a session in the caller's transaction and answers its first tokens.
    ///
    /// # Errors
    /// Signing or the store fails.
    pub async fn start_session(
        &self,
        tx: &mut Tx,
        account: &AccountId,
        scopes: &str,
        device_name: &str,
    ) -> Result<TokenResponse, AuthError> {
        let now = self.clock.now();
        let refresh = Refresh {
            session: SessionId::new(self.clock.uuid()),
            secret: random_token(&self.clock),
        };
        let token = refresh.write(&self.keys);
        let session = SessionRow {
            id: refresh.session,
            account_id: account.clone(),
            scopes: scopes.to_owned(),
            device_name: device_name.to_owned(),
            refresh_hash: hash_token(&token),
            previous_hash: None,
            rotated_at: now,
            created_at: now,
            expires_at: now.plus_seconds(i64::from(LIFE_SECONDS)),
            revoked_at: None,
        };
        sessions::create(tx, &session).await?;
        acts::by("session", Some(session.id.as_str()), account);
        self.tokens_of(tx, &session, token).await
    }

    /// Turns a refresh token into a fresh pair.
    ///
    /// # Errors
    /// The token is not good; one that was used before, and not just now, ends its session.
    pub async fn refresh(&self, token: &str) -> Result<TokenResponse, GrantError> {
        const NOT_GOOD: GrantError = refused("invalid_grant", "the refresh token is not good (any more)");
        let presented = Refresh::parse(&self.keys, token).ok_or(NOT_GOOD)?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let session = sessions::find(&mut tx, &presented.session)
            .await?
            .filter(|session| session.revoked_at.is_none() && session.expires_at > now)
            .ok_or(NOT_GOOD)?;
        let hash = hash_token(token);
        let next = presented.successor(&self.keys).write(&self.keys);
        if hash == session.refresh_hash {
            if !sessions::rotate(&mut tx, &session.id, &hash, &hash_token(&next), now).await? {
                return Err(NOT_GOOD);
            }
            let tokens = self.tokens_of(&mut tx, &session, next).await?;
            tx.commit().await?;
            return Ok(tokens);
        }
        let just_now = now.seconds_since(session.rotated_at) <= GRACE_SECONDS;
        if just_now && session.previous_hash.as_deref() == Some(hash.as_str()) {
            let tokens = self.tokens_of(&mut tx, &session, next).await?;
            tx.commit().await?;
            return Ok(tokens);
        }
        sessions::revoke(&mut tx, &session.id, now).await?;
        acts::by("session", Some(session.id.as_str()), &session.account_id);
        acts::refused("refresh-token-reused");
        tx.commit().await?;
        tracing::warn!(session = %session.id, "a used refresh token came back; the session was ended");
        Err(refused(
            "invalid_grant",
            "the refresh token was used before; its session has been ended",
        ))
    }

    /// Ends the session that an access or refresh token belongs to; whatever is no such token is passed over.
    ///
    /// # Errors
    /// The store fails.
    pub async fn revoke(&self, token: &str) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        let session = match Refresh::parse(&self.keys, token) {
            Some(refresh) => Some(refresh.session),
            None => self.session_of_access(&mut tx, token).await?,
        };
        let Some(session) = session else { return Ok(()) };
        sessions::revoke(&mut tx, &session, self.clock.now()).await?;
        if let Some(row) = sessions::find(&mut tx, &session).await? {
            acts::by("session", Some(session.as_str()), &row.account_id);
        }
        Ok(tx.commit().await?)
    }

    async fn tokens_of(
        &self,
        tx: &mut Tx,
        session: &SessionRow,
        refresh: String,
    ) -> Result<TokenResponse, AuthError> {
        Ok(TokenResponse {
            access_token: self.issue_access(tx, session).await?,
            token_type: "Bearer".to_owned(),
            expires_in: u64::from(access::LIFE_SECONDS),
            refresh_token: Some(SecretText::new(refresh)),
            scope: session.scopes.clone(),
            issued_token_type: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{GRACE_SECONDS, GrantError};
    use crate::api::oauth::TokenResponse;
    use crate::server::auth::testing::{bench, signed_in};

    fn refresh_of(tokens: &TokenResponse) -> String {
        tokens
            .refresh_token
            .as_ref()
            .expect("a refresh token")
            .expose()
            .to_owned()
    }

    #[tokio::test]
    async fn a_lost_answer_is_given_again() {
        let bench = bench().await;
        let first = refresh_of(&signed_in(&bench.auth, &bench, "read deploy").await);
        let second = refresh_of(&bench.auth.refresh(&first).await.expect("fresh pair"));
        bench.clock.advance_seconds(GRACE_SECONDS);
        let again = refresh_of(&bench.auth.refresh(&first).await.expect("the same pair again"));
        assert_eq!(second, again);
        assert_ne!(first, second);
        assert!(bench.auth.refresh(&second).await.is_ok());
    }

    #[tokio::test]
    async fn an_old_token_ends_the_session() {
        let bench = bench().await;
        let tokens = signed_in(&bench.auth, &bench, "read deploy").await;
        let first = refresh_of(&tokens);
        let second = refresh_of(&bench.auth.refresh(&first).await.expect("fresh pair"));
        bench.clock.advance_seconds(GRACE_SECONDS + 1);
        assert!(matches!(
            bench.auth.refresh(&first).await,
            Err(GrantError::Refused {
                error: "invalid_grant",
                ..
            })
        ));
        assert!(
            bench.auth.refresh(&second).await.is_err(),
            "the whole session must have ended"
        );
        assert!(
            bench
                .auth
                .authenticate(tokens.access_token.expose())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn one_older_than_the_previous_ends_it_even_at_once() {
        let bench = bench().await;
        let first = refresh_of(&signed_in(&bench.auth, &bench, "read deploy").await);
        let second = refresh_of(&bench.auth.refresh(&first).await.expect("fresh pair"));
        let third = refresh_of(&bench.auth.refresh(&second).await.expect("fresh pair"));
        assert!(bench.auth.refresh(&first).await.is_err());
        assert!(bench.auth.refresh(&third).await.is_err());
    }

    #[tokio::test]
    async fn a_made_up_token_ends_nothing() {
        let bench = bench().await;
        let first = refresh_of(&signed_in(&bench.auth, &bench, "read deploy").await);
        let mut forged = first.clone();
        forged.pop();
        forged.push(if first.ends_with('A') { 'B' } else { 'A' });
        assert!(bench.auth.refresh(&forged).await.is_err());
        assert!(bench.auth.refresh(&first).await.is_ok());
    }

    #[tokio::test]
    async fn access_ends_with_the_session_and_after_ten_minutes() {
        let bench = bench().await;
        let tokens = signed_in(&bench.auth, &bench, "read deploy").await;
        let access = tokens.access_token.expose();
        assert_eq!(
            bench.auth.authenticate(access).await.expect("good").account_id,
            bench.account
        );
        bench.clock.advance_seconds(659);
        assert!(
            bench.auth.authenticate(access).await.is_ok(),
            "a minute of skew is forgiven"
        );
        bench.clock.advance_seconds(1);
        assert!(bench.auth.authenticate(access).await.is_err());
        let fresh = bench
            .auth
            .refresh(&refresh_of(&tokens))
            .await
            .expect("fresh pair");
        bench
            .auth
            .revoke(fresh.access_token.expose())
            .await
            .expect("revoked");
        assert!(
            bench
                .auth
                .authenticate(fresh.access_token.expose())
                .await
                .is_err()
        );
        assert!(bench.auth.refresh(&refresh_of(&fresh)).await.is_err());
    }
}
