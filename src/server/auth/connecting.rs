//! An identity that no account is connected with yet, and an account that has the same address: whoever is signed in to that
//! account connects them. That a provider calls somebody so is no proof.

use serde::{Deserialize, Serialize};

use crate::server::auth::accounts::{Browser, Newcomer, WebSignIn};
use crate::server::auth::keys::hash_token;
use crate::server::auth::oidc::OidcError;
use crate::server::auth::providers::ProviderSettings;
use crate::server::auth::{Auth, AuthError};
use crate::server::store::identities::IdentityRow;
use crate::server::store::{StoreError, acts, identities};

/// Names an identity in addresses and in the audit; neither its issuer nor its subject fits there.
#[must_use]
pub fn identity_id(identity: &IdentityRow) -> String {
    let both = format!("{}\n{}", identity.issuer, identity.subject);
    let digest = hash_token(&both);
    format!("idn_{}", digest.get(..26).unwrap_or(&digest))
}

const WAITING: &str = "identity-to-connect";

/// An identity that waits to be connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// Which provider.
    pub provider: String,
    issuer: String,
    subject: String,
    /// The address that it vouches for.
    pub email: String,
    /// Where to go on.
    pub next: String,
    ends: i64,
}

impl Auth {
    /// What a browser keeps until its person has signed in to the account: sealed.
    pub(super) fn wait_for_proof(
        &self,
        provider: &ProviderSettings,
        (subject, email, next): (String, String, String),
    ) -> Result<String, AuthError> {
        let waiting = Waiting {
            provider: provider.name.clone(),
            issuer: provider.issuer.clone(),
            subject,
            email,
            next,
            ends: self.ends(),
        };
        self.seal_for_browser(WAITING, &waiting)
    }

    /// The identity that a browser has kept to have it connected, while it may be.
    #[must_use]
    pub fn waiting_identity(&self, kept: &str) -> Option<Waiting> {
        let waiting: Waiting = self.open_of_browser(WAITING, kept)?;
        (waiting.ends > self.seconds()).then_some(waiting)
    }

    /// Connects it with the account that the browser is signed in to; the browser is given another session.
    ///
    /// # Errors
    /// It is of another address, or connected already.
    pub async fn connect(
        &self,
        waiting: &Waiting,
        browser: &Browser,
        newcomer: Newcomer,
    ) -> Result<WebSignIn, OidcError> {
        if waiting.email != browser.account.email {
            return Err(OidcError::OtherAddress {
                identity: waiting.email.clone(),
                account: browser.account.email.clone(),
            });
        }
        let identity = IdentityRow {
            issuer: waiting.issuer.clone(),
            subject: waiting.subject.clone(),
            provider: waiting.provider.clone(),
            account_id: browser.account.id.clone(),
            email: waiting.email.clone(),
            created_at: self.clock.now(),
        };
        let mut tx = self.store.begin().await?;
        match identities::insert(&mut tx, &identity).await {
            Err(StoreError::Duplicate(_)) => return Err(OidcError::Connected),
            inserted => inserted?,
        }
        acts::about(&waiting.provider);
        let newcomer = newcomer.by(&waiting.provider);
        let signed_in = self
            .start_web_session(&mut tx, &browser.account.id, newcomer)
            .await?;
        tx.commit().await?;
        Ok(signed_in)
    }
}
