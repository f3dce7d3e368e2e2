//! Who visits a tenant, as the edge is told: the way of a browser's sign-in to the tenant's host, the session there, and
//! the assertion that the app gets.
//!
//! A browser is sent from the tenant's host to this server's with a `state` that it keeps there, sealed; it comes back with
//! a code that is good once, for a minute, for that state and that tenant. The session there lasts as long as the one
//! behind it: to sign out here is to be signed out everywhere, at once.

use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::api::edge_session::{EdgeSessions, Visitors};
use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::secret::SecretText;
use crate::server::auth::accounts::Browser;
use crate::server::auth::keys::{hash_token, random_token};
use crate::server::auth::{Auth, AuthError, Principal};
use crate::server::store::accounts::AccountRow;
use crate::server::store::edge_sessions::{self, EdgeCodeRow};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, accounts, members, web_sessions};

/// Life of a code, in seconds.
const CODE_SECONDS: i64 = 60;
/// Life of an assertion, in seconds: it is for the request that it comes with.
const ASSERTION_SECONDS: i64 = 60;
/// What no other token that this server signs says of itself.
const KIND: &str = "session+jwt";
const AWAY: &str = "visit-of-a-tenant";

/// Somebody who visits a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The account's id, or `<issuer>|<subject>`.
    pub user: String,
    /// The account's address.
    pub email: Option<String>,
}

impl From<AccountRow> for Visitor {
    fn from(account: AccountRow) -> Self {
        Self {
            user: account.id.to_string(),
            email: Some(account.email),
        }
    }
}

/// What a browser keeps at the tenant's host while it is here.
#[derive(Serialize, Deserialize)]
pub struct AwayVisit {
    label: String,
    state: String,
    /// Where it goes on to.
    pub next: String,
    ends: i64,
}

/// What an assertion says.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a TenantId,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    jti: String,
    iat: i64,
    exp: i64,
}

impl Auth {
    /// Sends a browser here from a tenant's host: what goes with it, and what it keeps there, sealed.
    ///
    /// # Errors
    /// It cannot be sealed.
    pub fn begin_visit(&self, label: &str, next: &str) -> Result<(String, String), AuthError> {
        let away = AwayVisit {
            label: label.to_owned(),
            state: random_token(&self.clock),
            next: next.to_owned(),
            ends: self.ends(),
        };
        Ok((away.state.clone(), self.seal_for_browser(AWAY, &away)?))
    }

    /// What a browser has kept that comes back to this tenant's host with this state; `None` for any other.
    #[must_use]
    pub fn back_from_visit(&self, kept: &str, (label, state): (&str, &str)) -> Option<AwayVisit> {
        let away: AwayVisit = self.open_of_browser(AWAY, kept)?;
        let same: bool = away.state.as_bytes().ct_eq(state.as_bytes()).into();
        Some(away).filter(|away| same && away.label == label && away.ends > self.seconds())
    }

    /// Makes the code that carries a sign-in to a tenant's host.
    ///
    /// # Errors
    /// The store fails.
    pub async fn issue_edge_code(
        &self,
        tenant: &TenantId,
        (browser, state): (&Browser, &str),
    ) -> Result<SecretText, AuthError> {
        let code = random_token(&self.clock);
        let row = EdgeCodeRow {
            code_hash: hash_token(&code),
            state_hash: hash_token(state),
            tenant_id: tenant.clone(),
            web_session_hash: browser.session_hash.clone(),
            expires_at: self.clock.now().plus_seconds(CODE_SECONDS),
        };
        let mut tx = self.store.begin().await?;
        edge_sessions::create_code(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(SecretText::new(code))
    }

    /// Begins the session of a browser at a tenant's host, in place of the one that it brings; answers its cookie, or
    /// nothing where the code is not good for it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn enter(
        &self,
        tenant: &TenantId,
        (code, state): (&str, &str),
        former: Option<&str>,
    ) -> Result<Option<SecretText>, AuthError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let found = edge_sessions::use_code(&mut tx, &hash_token(code), now).await?;
        let good = found.filter(|row| row.tenant_id == *tenant && row.state_hash == hash_token(state));
        let browser = match good {
            Some(row) => web_sessions::find(&mut tx, &row.web_session_hash, now).await?,
            None => None,
        };
        let entered = match browser {
            None => None,
            Some(browser) => {
                if let Some(former) = former {
                    edge_sessions::delete(&mut tx, &hash_token(former)).await?;
                }
                let cookie = random_token(&self.clock);
                edge_sessions::create(&mut tx, &hash_token(&cookie), (tenant, &browser), now).await?;
                Some(SecretText::new(cookie))
            }
        };
        // A code that was brought is used up, whether it was good or not.
        tx.commit().await?;
        Ok(entered)
    }

    /// Whom a browser is known as at the tenant's host.
    ///
    /// # Errors
    /// The store fails.
    pub async fn visitor_of(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        cookie: &str,
    ) -> Result<Option<AccountRow>, AuthError> {
        let found = edge_sessions::find(tx, (&hash_token(cookie), tenant), self.clock.now()).await?;
        match found {
            Some(browser) => Ok(accounts::find(tx, &browser.account_id).await?),
            None => Ok(None),
        }
    }

    /// Signs the browser out that is known so at the tenant's host: there, here, and at every other tenant.
    ///
    /// # Errors
    /// The store fails.
    pub async fn leave(&self, tenant: &TenantId, cookie: &str) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        let hash = hash_token(cookie);
        if let Some(browser) = edge_sessions::find(&mut tx, (&hash, tenant), self.clock.now()).await? {
            web_sessions::delete(&mut tx, &browser.token_hash).await?;
        }
        edge_sessions::delete(&mut tx, &hash).await?;
        Ok(tx.commit().await?)
    }

    /// Whether somebody with this account is let in to the tenant.
    ///
    /// # Errors
    /// The store fails.
    pub async fn is_let_in(
        &self,
        tx: &mut Tx,
        (tenant, sessions): (&TenantRow, &EdgeSessions),
        account: &AccountRow,
    ) -> Result<bool, AuthError> {
        Ok(match sessions.who {
            Visitors::Accounts => true,
            Visitors::Members => members::role_of(tx, &tenant.id, &account.id).await?.is_some(),
            Visitors::Off | Visitors::Issuer => false,
        })
    }

    /// The account of a program that shows one of this server's tokens at a tenant's host, where the token is good for it.
    ///
    /// # Errors
    /// The token lacks the scope `read`, is for another tenant, or the store fails.
    pub async fn visitor_with_token(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        principal: &Principal,
    ) -> Result<Option<AccountRow>, AuthError> {
        principal.require(Scope::Read)?;
        if principal.tenant_id.as_ref().is_some_and(|only| only != tenant) {
            return Err(AuthError::Forbidden("the token is for another tenant"));
        }
        Ok(accounts::find(tx, &principal.account_id).await?)
    }

    /// What the app can verify with the published keys: who visits it now.
    ///
    /// # Errors
    /// Signing or the store fails.
    pub async fn assert_visitor(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        visitor: &Visitor,
    ) -> Result<String, AuthError> {
        let now = self.seconds();
        let claims = Claims {
            iss: &self.issuer,
            aud: tenant,
            sub: &visitor.user,
            email: visitor.email.as_deref(),
            jti: self.clock.uuid().to_string(),
            iat: now,
            exp: now + ASSERTION_SECONDS,
        };
        let signer = self.signer(tx).await?;
        let header = Header {
            typ: Some(KIND.to_owned()),
            kid: Some(signer.kid),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &signer.key).map_err(AuthError::Sign)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::Visitor;
    use crate::api::id::TenantId;
    use crate::server::auth::AuthError;
    use crate::server::auth::testing::bench;

    #[tokio::test]
    async fn an_assertion_is_no_access_token() {
        let bench = bench().await;
        bench.auth.prepare_ring().await.expect("a ring");
        let mut tx = bench.auth.store.begin_read().await.expect("transaction");
        let tenant = TenantId::new(Uuid::from_u128(1));
        let visitor = Visitor {
            user: bench.account.to_string(),
            email: None,
        };
        let assertion = bench.auth.assert_visitor(&mut tx, &tenant, &visitor).await;
        drop(tx);
        let refused = bench.auth.authenticate(&assertion.expect("signed")).await;
        assert!(
            matches!(refused, Err(AuthError::Unauthenticated(_))),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_browser_comes_back_only_where_it_was_sent_from() {
        let bench = bench().await;
        let (state, kept) = bench.auth.begin_visit("acme", "/report?x=1").expect("begun");
        let back = |kept: &str, label, state: &str| bench.auth.back_from_visit(kept, (label, state));
        let known = back(&kept, "acme", &state).expect("known");
        assert_eq!(known.next, "/report?x=1");
        assert!(back(&kept, "bolt", &state).is_none(), "another host");
        assert!(back(&kept, "acme", "another").is_none(), "another state");
        assert!(back("bm90IG91cnM", "acme", &state).is_none(), "not sealed here");
        bench.clock.advance_seconds(601);
        assert!(back(&kept, "acme", &state).is_none(), "too late");
    }
}
