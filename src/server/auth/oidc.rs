//! Signing in by a provider (authorization code with PKCE): what goes there with the browser,
//! what comes back, and whose account it is.
//!
//! What the server must know again when the browser comes back is kept by the browser itself, sealed: nobody else can
//! bring it, and any server of the database can open it. An identity lets in to the account that it is connected with, and
//! to no other. It is connected by whoever is signed in to that account, and only where the provider vouches for the same
//! address.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::api::id::AccountId;
use crate::server::auth::accounts::{Newcomer, WebSignIn};
use crate::server::auth::github;
use crate::server::auth::issuers::IssuerError;
use crate::server::auth::keys::random_token;
use crate::server::auth::providers::{Provider, ProviderKind, ProviderSettings, Vouched};
use crate::server::auth::{Auth, AuthError};
use crate::server::store::accounts::AccountRow;
use crate::server::store::identities::IdentityRow;
use crate::server::store::{StoreError, Tx, accounts, acts, identities};

/// For how long a person may be at the provider, in seconds; and at connecting what it said.
const LIFE_SECONDS: i64 = 600;
const AWAY: &str = "sign-in-by-provider";

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The browser brings nothing that it was given here, or too late.
    #[error("the sign-in was not begun in this browser, or too long ago")]
    NotBegun,
    /// The provider sent the person back without an identity.
    #[error("the provider did not let the person in: `{0}`")]
    Denied(String),
    /// The provider cannot be asked, or has answered what nobody can believe.
    #[error("failed to have the provider vouch for the person")]
    Provider(#[source] IssuerError),
    /// What came is signed by nobody who may, or cannot be read.
    #[error("the identity is not believed")]
    Forged(#[source] IssuerError),
    /// What the provider has signed is not for this sign-in.
    #[error("the identity is not for this sign-in: {0}")]
    NotForUs(&'static str),
    /// The provider does not say that the address is the person's.
    #[error("the provider does not vouch for an address")]
    Unverified,
    /// Nobody here has that address.
    #[error("there is no account of `{0}`")]
    NoAccount(String),
    /// It is connected with an account already.
    #[error("the identity is connected with an account already")]
    Connected,
    /// It is of another address than the account.
    #[error("the identity is of `{identity}`, and the account of `{account}`")]
    OtherAddress {
        /// As the provider says.
        identity: String,
        /// Of the account.
        account: String,
    },
    /// The server could not tell.
    #[error(transparent)]
    Failed(#[from] AuthError),
}

impl From<IssuerError> for OidcError {
    fn from(error: IssuerError) -> Self {
        match error {
            IssuerError::Unreadable | IssuerError::Signature => Self::Forged(error),
            // The code is not good (any more): RFC 6749, and as GitHub says it.
            IssuerError::Refused { word, .. }
                if ["invalid_grant", "bad_verification_code"].contains(&word.as_str()) =>
            {
                Self::Denied(word)
            }
            error => Self::Provider(error),
        }
    }
}

impl From<StoreError> for OidcError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// Where a browser goes, and what it keeps meanwhile.
pub struct Begun {
    /// The provider's page.
    pub location: String,
    /// Sealed; comes back with the browser.
    pub kept: String,
}

/// How a person came back.
pub enum Arrival {
    /// Let in, and where to go on.
    SignedIn(WebSignIn, String),
    /// An account has this address; whoever signs in to it may connect the identity, which the browser keeps, sealed.
    ToConnect(String),
}

/// What comes back with the browser in the address.
#[derive(Debug, Default, Deserialize)]
pub struct Answer {
    /// What the identity is had for.
    pub code: Option<String>,
    /// Which sign-in it answers.
    pub state: Option<String>,
    /// Who answers (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

/// A sign-in under way.
#[derive(Serialize, Deserialize)]
struct Away {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    next: String,
    ends: i64,
}

impl Auth {
    /// Begins a sign-in; `redirect_uri` is where the provider sends the browser back to, `next` where it goes on then.
    ///
    /// # Errors
    /// The provider cannot be asked where its page is.
    pub async fn begin_at_provider(
        &self,
        provider: &Provider,
        redirect_uri: &str,
        next: &str,
    ) -> Result<Begun, OidcError> {
        let mut location = provider.page().await.map_err(OidcError::Provider)?;
        let token = || random_token(&self.clock);
        let away = Away {
            provider: provider.name.clone(),
            state: token(),
            nonce: token(),
            verifier: token(),
            next: next.to_owned(),
            ends: self.ends(),
        };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(away.verifier.as_bytes()));
        location
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", &away.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        match provider.kind {
            ProviderKind::OpenId => location
                .query_pairs_mut()
                .append_pair("scope", "openid email")
                .append_pair("nonce", &away.nonce),
            ProviderKind::GitHub => location.query_pairs_mut().append_pair("scope", github::SCOPE),
        };
        Ok(Begun {
            location: location.into(),
            kept: self.seal_for_browser(AWAY, &away)?,
        })
    }

    /// Takes back what a browser brings from a provider, with what it has kept.
    ///
    /// # Errors
    /// It was not begun here, the provider vouches for nobody, or nobody here has that address.
    pub async fn finish_at_provider(
        &self,
        provider: &Provider,
        (kept, answer): (&str, &Answer),
        (redirect_uri, newcomer): (&str, Newcomer),
    ) -> Result<Arrival, OidcError> {
        let away: Away = self.open_of_browser(AWAY, kept).ok_or(OidcError::NotBegun)?;
        let state = answer.state.as_deref().unwrap_or_default();
        let same: bool = away.state.as_bytes().ct_eq(state.as_bytes()).into();
        if !same || away.provider != provider.name || away.ends <= self.seconds() {
            return Err(OidcError::NotBegun);
        }
        let from = answer.iss.as_deref().map(|iss| iss.trim_end_matches('/'));
        let same = |from: &str| match provider.kind {
            ProviderKind::OpenId => from == provider.issuer,
            ProviderKind::GitHub => github::is_from(&provider.issuer, from),
        };
        if from.is_some_and(|from| !same(from)) {
            return Err(OidcError::NotForUs("another provider has answered"));
        }
        if let Some(error) = &answer.error {
            let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            return Err(OidcError::Denied(error.chars().filter(plain).take(64).collect()));
        }
        let code = answer.code.as_deref().ok_or(OidcError::NotBegun)?;
        let with = (code, away.verifier.as_str(), redirect_uri);
        let vouched = match provider.kind {
            ProviderKind::OpenId => self.vouched_for(provider, with, &away.nonce).await?,
            ProviderKind::GitHub => provider.user(with).await?,
        };
        self.arrive(provider, (vouched, away.next), newcomer).await
    }

    /// Finds whose account an identity opens.
    async fn arrive(
        &self,
        provider: &ProviderSettings,
        (vouched, next): (Vouched, String),
        newcomer: Newcomer,
    ) -> Result<Arrival, OidcError> {
        let mut tx = self.store.begin().await?;
        let of = (provider.issuer.as_str(), vouched.subject.as_str());
        let account = match identities::use_it(&mut tx, of, self.clock.now()).await? {
            Some(account) => account,
            None => {
                let email = vouched.email.ok_or(OidcError::Unverified)?;
                match accounts::find_by_email(&mut tx, &email).await? {
                    Some(_) => {
                        acts::leave_out();
                        let waiting = self.wait_for_proof(provider, (vouched.subject, email, next))?;
                        return Ok(Arrival::ToConnect(waiting));
                    }
                    None if provider.signs_up(&email) => {
                        self.sign_up(&mut tx, provider, (&vouched.subject, email)).await?
                    }
                    None => return Err(OidcError::NoAccount(email)),
                }
            }
        };
        let newcomer = newcomer.by(&provider.name);
        let signed_in = self.start_web_session(&mut tx, &account, newcomer).await?;
        tx.commit().await?;
        Ok(Arrival::SignedIn(signed_in, next))
    }

    async fn sign_up(
        &self,
        tx: &mut Tx,
        provider: &ProviderSettings,
        (subject, email): (&str, String),
    ) -> Result<AccountId, OidcError> {
        let account = AccountRow {
            id: AccountId::new(self.clock.uuid()),
            email: email.clone(),
            password_hash: None,
            operator: false,
            created_at: self.clock.now(),
        };
        accounts::create(tx, &account).await?;
        let identity = IdentityRow {
            issuer: provider.issuer.clone(),
            subject: subject.to_owned(),
            provider: provider.name.clone(),
            account_id: account.id.clone(),
            email,
            created_at: account.created_at,
        };
        identities::insert(tx, &identity).await?;
        Ok(account.id)
    }

    pub(super) fn seal_for_browser<T: Serialize>(
        &self,
        purpose: &str,
        value: &T,
    ) -> Result<String, AuthError> {
        let plain = serde_json::to_vec(value).map_err(|_| AuthError::Seal)?;
        self.keys.seal(purpose, &self.clock, &plain)
    }

    pub(super) fn open_of_browser<T: DeserializeOwned>(&self, purpose: &str, sealed: &str) -> Option<T> {
        serde_json::from_slice(&self.keys.open_sealed(purpose, sealed)?).ok()
    }

    pub(super) fn seconds(&self) -> i64 {
        self.clock.now().as_millis().div_euclid(1000)
    }

    /// When what a browser keeps is good no more.
    pub(super) fn ends(&self) -> i64 {
        self.seconds() + LIFE_SECONDS
    }
}
