//! Who vouches for people: the providers of identities (OpenID Connect, and GitHub) that the operator has named, and what is asked of
//! them while a person signs in.

use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::api::secret::SecretText;
use crate::server::auth::github;
use crate::server::auth::issuers::{Discovery, IssuerError, Issuers};
use crate::server::clock::Clock;

/// How a provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenID Connect: it says where its addresses are, and signs what it says.
    OpenId,
    /// GitHub has no OpenID Connect for people: its own OAuth, and its API.
    GitHub,
}

/// One provider, as the operator has named it.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// How it is asked.
    pub kind: ProviderKind,
    /// Its name in addresses and in the audit.
    pub name: String,
    /// Who it is; without a slash at the end. Of a GitHub: its address.
    pub issuer: String,
    /// What it knows this server by.
    pub client_id: String,
    /// What proves that it is this server; without one only PKCE does.
    pub secret: Option<SecretText>,
    /// Domains of addresses whose owners are given an account.
    pub sign_up: Vec<String>,
}

impl ProviderSettings {
    /// As its button calls it.
    #[must_use]
    pub fn label(&self) -> String {
        match self.name.as_str() {
            "github" => "GitHub".to_owned(),
            "gitlab" => "GitLab".to_owned(),
            name => {
                let mut letters = name.chars();
                let first = letters.next().map(|letter| letter.to_ascii_uppercase());
                first.into_iter().chain(letters).collect()
            }
        }
    }

    /// Whether whoever has this address is given an account.
    #[must_use]
    pub fn signs_up(&self, email: &str) -> bool {
        let domain = email.rsplit_once('@').map(|(_, domain)| domain);
        self.sign_up.iter().any(|named| domain == Some(named.as_str()))
    }
}

/// The providers, as the operator has listed them. Cheap to clone.
#[derive(Clone)]
pub struct Providers(Arc<[Provider]>);

/// A provider that can be asked.
pub struct Provider {
    settings: ProviderSettings,
    /// Its own, so that nobody waits for another one; and apart from those of CI jobs: who vouches for people does not vouch
    /// for jobs.
    issuers: Issuers,
}

impl Deref for Provider {
    type Target = ProviderSettings;

    fn deref(&self) -> &ProviderSettings {
        &self.settings
    }
}

/// What a provider answers to a code.
#[derive(Deserialize)]
pub(super) struct Traded {
    id_token: String,
    #[serde(default)]
    access_token: Option<SecretText>,
}

/// What a code is given back with: the code, what only this sign-in knows, and where it came back to.
pub(super) type Returned<'a> = (&'a str, &'a str, &'a str);

/// Whom a provider vouches for.
#[derive(Debug)]
pub(super) struct Vouched {
    /// Under which name, which never changes there.
    pub(super) subject: String,
    /// The address that it says is theirs.
    pub(super) email: Option<String>,
}

impl Providers {
    /// These are asked, and nobody else; none of them before somebody wants to sign in.
    #[must_use]
    pub fn new(all: Vec<ProviderSettings>, clock: &Clock) -> Self {
        let provider = |settings: ProviderSettings| Provider {
            issuers: Issuers::new(vec![settings.issuer.clone()], clock.clone()),
            settings,
        };
        Self(all.into_iter().map(provider).collect())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Provider] {
        &self.0
    }

    /// The one of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Provider> {
        self.0.iter().find(|provider| provider.name == name)
    }
}

impl Provider {
    /// Where its page is.
    pub(super) async fn page(&self) -> Result<Url, IssuerError> {
        if self.kind == ProviderKind::GitHub {
            return github::page(&self.issuer);
        }
        let discovery = self.issuers.discovery(&self.issuer).await?;
        let page = discovery.authorization_endpoint.as_deref();
        page.and_then(|page| Url::parse(page).ok())
            .ok_or_else(|| IssuerError::keys(&self.issuer, "it names no page to sign in at"))
    }

    /// Whom a GitHub vouches for, that gives itself for a code.
    pub(super) async fn user(&self, with: Returned<'_>) -> Result<Vouched, IssuerError> {
        github::user(&self.settings, self.issuers.asking(), with)
            .await
            .map_err(|error| IssuerError::asked(&self.issuer, error))
    }

    /// What the identity says that it gives for a code, signed by itself; and what more can be asked with.
    pub(super) async fn identity<T: DeserializeOwned>(
        &self,
        with: Returned<'_>,
    ) -> Result<(T, Option<SecretText>), IssuerError> {
        let discovery = self.issuers.discovery(&self.issuer).await?;
        let traded = self.trade(&discovery, with).await?;
        let identity = self.issuers.verify(&self.issuer, &traded.id_token).await?;
        Ok((identity, traded.access_token))
    }

    /// What it tells about a person besides (OpenID Connect Core 1.0, section 5.3), if it tells anything.
    pub(super) async fn userinfo<T: DeserializeOwned>(
        &self,
        token: &SecretText,
    ) -> Result<Option<T>, IssuerError> {
        let discovery = self.issuers.discovery(&self.issuer).await?;
        let Some(at) = discovery.userinfo_endpoint.as_deref() else {
            return Ok(None);
        };
        let told = self.issuers.asking().read(at, Some(token)).await;
        told.map(Some)
            .map_err(|error| IssuerError::asked(&self.issuer, error))
    }

    /// Gives a code back to the provider and gets the identity of the person.
    async fn trade(
        &self,
        discovery: &Discovery,
        (code, verifier, redirect_uri): Returned<'_>,
    ) -> Result<Traded, IssuerError> {
        let endpoint = discovery.token_endpoint.as_deref().unwrap_or_default();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", verifier),
            ("redirect_uri", redirect_uri),
        ];
        let methods = &discovery.token_endpoint_auth_methods_supported;
        // What a provider takes that says nothing (OpenID Connect Discovery 1.0, section 3).
        let basic = methods.is_empty() || methods.iter().any(|method| method == "client_secret_basic");
        let authorization = match &self.secret {
            Some(secret) if basic => Some(basic_authorization(&self.client_id, secret)),
            Some(secret) => {
                form.push(("client_id", &self.client_id));
                form.push(("client_secret", secret.expose()));
                None
            }
            None => {
                form.push(("client_id", &self.client_id));
                None
            }
        };
        let asking = self.issuers.asking();
        asking
            .send(endpoint, &form, authorization.as_ref())
            .await
            .map_err(|error| IssuerError::asked(&self.issuer, error))
    }
}

/// RFC 6749 section 2.3.1: both halves are encoded as in a form first.
fn basic_authorization(client_id: &str, secret: &SecretText) -> SecretText {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let both = format!("{}:{}", encoded(client_id), encoded(secret.expose()));
    SecretText::new(format!("Basic {}", STANDARD.encode(both)))
}
