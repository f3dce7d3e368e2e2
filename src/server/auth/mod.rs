//! Who calls, and what they may do: accounts, sessions, device login, API tokens.

pub mod access;
pub mod accounts;
pub mod api_tokens;
mod asking;
pub mod connecting;
pub mod device;
pub mod exchange;
pub mod github;
mod guard;
#[cfg(test)]
mod guard_tests;
pub mod issuers;
pub mod keys;
pub mod oidc;
pub mod password;
pub mod providers;
pub mod sessions;
pub mod signing;
#[cfg(test)]
mod signing_tests;
pub mod standing;
#[cfg(test)]
pub(crate) mod testing;
pub mod visits;
mod vouched;
pub mod vouchers;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use crate::api::id::{AccountId, TenantId, TokenId};
use crate::api::member::Role;
use crate::api::oauth::Scope;
use crate::api::time::Time;
pub use crate::server::auth::connecting::identity_id;
pub use crate::server::auth::guard::KNOWN_SECONDS;
use crate::server::auth::keys::Keys;
use crate::server::auth::standing::Standing;
use crate::server::clock::Clock;
use crate::server::store::{Store, StoreError};

/// Why somebody was not let in, or work on accounts failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No credential, or one that is not good (any more).
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// A good credential that may not do this.
    #[error("the token lacks the scope `{}`", .0.as_str())]
    MissingScope(Scope),
    /// A member of the tenant who may not do this.
    #[error("this needs the role `{needs}`, and you are `{has}` here")]
    MissingRole {
        /// What they are.
        has: Role,
        /// What they would have to be.
        needs: Role,
    },
    /// An operator whom an owner has let in, but not as far as this.
    #[error("support is let in as `{has}`, and this needs the role `{needs}`")]
    BeyondSupport {
        /// What they are meanwhile.
        has: Role,
        /// What they would have to be.
        needs: Role,
    },
    /// A good credential that may not do this, for another reason than its scopes.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Nothing that this caller may know of.
    #[error("no {what} of that id")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
    },
    /// A value that was refused.
    #[error("{detail}")]
    Invalid {
        /// The field it came in.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The e-mail address has an account.
    #[error("an account of `{0}` exists")]
    AccountExists(String),
    /// The signing key cannot be had.
    #[error("failed to open the signing key `{path}`")]
    KeyFile {
        /// Where it should be.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Too many passwords were wrong.
    #[error("too many passwords were wrong; wait {wait_seconds} s")]
    TooManyTries {
        /// When another one is looked at.
        wait_seconds: u32,
    },
    /// A password could not be hashed.
    #[error("failed to hash a password: {0}")]
    Hash(String),
    /// An access token could not be signed.
    #[error("failed to sign an access token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// Somebody rotates the keys of access tokens at this moment.
    #[error("another rotation of the keys of access tokens was faster")]
    RotatedElsewhere,
    /// The ring of keys is of another installation's key.
    #[error("failed to open the key that signs access tokens: it was sealed with another `signing.key`")]
    SealedElsewhere,
    /// An answer could not be sealed.
    #[error("failed to seal an answer")]
    Seal,
    /// The store failed.
    #[error("failed to read or write accounts")]
    Store(#[from] StoreError),
}

/// A caller that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub account_id: AccountId,
    /// By which name people know them.
    pub email: String,
    /// Whether they may operate the server.
    pub operator: bool,
    /// What this credential may do.
    pub scopes: BTreeSet<Scope>,
    /// The one tenant that this credential is for, if it is for one.
    pub tenant_id: Option<TenantId>,
    /// What they showed.
    pub credential: Credential,
    /// When it ends.
    pub expires_at: Time,
    /// What a member of the tenant must be for what is asked: the table of routes says it. Owner until that is known.
    pub needs: Role,
}

/// What a caller showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An access token of this session.
    Session(crate::api::id::SessionId),
    /// This API token.
    ApiToken(crate::api::id::TokenId),
}

impl Credential {
    /// As `GET /me` calls it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::ApiToken(_) => "api_token",
        }
    }

    /// The id of what was shown: names the caller in keyed requests and limits.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Session(id) => id.as_str(),
            Self::ApiToken(id) => id.as_str(),
        }
    }
}

impl Principal {
    /// Whether the credential has `scope`.
    ///
    /// # Errors
    /// It has not.
    pub fn require(&self, scope: Scope) -> Result<(), AuthError> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(AuthError::MissingScope(scope))
    }

    /// Whether this caller may do what is asked, and needs `scope`, to the tenant to which they stand so. Whoever may
    /// not see the tenant at all learns nothing: to them there is no such tenant.
    ///
    /// # Errors
    /// They are nothing to the tenant, the credential lacks the scope, or they are less than they must be.
    pub fn authorize(
        &self,
        tenant: &TenantId,
        standing: Option<&Standing>,
        scope: Scope,
    ) -> Result<(), AuthError> {
        let hidden = self.tenant_id.as_ref().is_some_and(|only| only != tenant);
        let standing = standing
            .filter(|_| !hidden)
            .ok_or(AuthError::NotFound { what: "tenant" })?;
        self.require(scope)?;
        let (has, needs) = (standing.role, self.needs);
        match standing.grant {
            _ if has >= needs => Ok(()),
            None => Err(AuthError::MissingRole { has, needs }),
            Some(_) => Err(AuthError::BeyondSupport { has, needs }),
        }
    }

    /// For work on the account itself, which a credential for one tenant may not do.
    ///
    /// # Errors
    /// The credential is for one tenant only, or lacks the scope.
    pub fn require_account(&self, scope: Scope) -> Result<(), AuthError> {
        if self.tenant_id.is_some() {
            return Err(AuthError::Forbidden("the token is for one tenant only"));
        }
        self.require(scope)
    }

    /// For what only operators may do.
    ///
    /// # Errors
    /// The account is not an operator, or the credential lacks `admin`.
    pub fn require_operator(&self) -> Result<(), AuthError> {
        if !self.operator {
            return Err(AuthError::Forbidden("only operators may do this"));
        }
        self.require_account(Scope::Admin)
    }
}

/// Everything that work on accounts needs.
#[derive(Clone, Debug)]
pub struct Auth {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) keys: Arc<Keys>,
    issuer: Arc<str>,
    /// Access tokens whose signatures were found good, by a digest of each with its key.
    seen: Arc<Mutex<HashMap<[u8; 32], access::Claims>>>,
    /// API tokens whose use is to be written down; in order, so that two servers do not lock each other out.
    used: Arc<Mutex<BTreeSet<TokenId>>>,
}

impl Auth {
    /// Over an open store, with the installation's key.
    #[must_use]
    pub fn new(store: Store, clock: Clock, keys: Arc<Keys>) -> Self {
        let issuer = Arc::from("systemprompt");
        Self {
            store,
            clock,
            keys,
            issuer,
            seen: Arc::default(),
            used: Arc::default(),
        }
    }

    /// The address of the server, which access tokens name as whose they are (`iss`, `aud`).
    #[must_use]
    pub fn known_as(mut self, public_url: &str) -> Self {
        self.issuer = Arc::from(public_url);
        self
    }

    /// The installation's key, for others that derive their own from it.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}

/// Scopes as they are stored and sent: space-separated words.
#[must_use]
pub fn scope_words(scopes: &BTreeSet<Scope>) -> String {
    scopes
        .iter()
        .map(|scope| scope.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Reads space-separated scopes; `Err` holds the first word that is none.
///
/// # Errors
/// A word is not a scope.
pub fn parse_scopes(words: &str) -> Result<BTreeSet<Scope>, String> {
    words
        .split_ascii_whitespace()
        .map(|word| Scope::parse(word).ok_or_else(|| word.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::standing::Standing;
    use super::{AuthError, Credential, Principal};
    use crate::api::id::{AccountId, TenantId, TokenId};
    use crate::api::member::Role;
    use crate::api::oauth::Scope;
    use crate::api::time::Time;
    use uuid::Uuid;

    fn principal(tenant: Option<u128>) -> Principal {
        Principal {
            account_id: AccountId::new(Uuid::from_u128(1)),
            email: "ada@example.org".into(),
            operator: false,
            scopes: [Scope::Read, Scope::Deploy].into(),
            tenant_id: tenant.map(|id| TenantId::new(Uuid::from_u128(id))),
            credential: Credential::ApiToken(TokenId::new(Uuid::from_u128(3))),
            expires_at: Time::from_millis(0),
            needs: Role::Developer,
        }
    }

    fn member(role: Role) -> Standing {
        Standing { role, grant: None }
    }

    #[test]
    fn a_foreign_tenant_is_hidden_whatever_the_scope() {
        let tenant = TenantId::new(Uuid::from_u128(10));
        let owner = member(Role::Owner);
        let caller = principal(None);
        assert!(caller.authorize(&tenant, Some(&owner), Scope::Deploy).is_ok());
        assert!(matches!(
            caller.authorize(&tenant, Some(&owner), Scope::Admin),
            Err(AuthError::MissingScope(Scope::Admin))
        ));
        assert!(matches!(
            caller.authorize(&tenant, None, Scope::Admin),
            Err(AuthError::NotFound { .. })
        ));
    }

    #[test]
    fn a_member_is_told_what_they_would_have_to_be() {
        let tenant = TenantId::new(Uuid::from_u128(10));
        let caller = principal(None);
        let developer = member(Role::Developer);
        assert!(caller.authorize(&tenant, Some(&developer), Scope::Deploy).is_ok());
        let viewer = member(Role::Viewer);
        let refused = caller.authorize(&tenant, Some(&viewer), Scope::Deploy);
        let text = refused.expect_err("a viewer does not deploy").to_string();
        assert_eq!(text, "this needs the role `developer`, and you are `viewer` here");
        // Without the scope it is the scope that is named: the role would not help.
        assert!(matches!(
            caller.authorize(&tenant, Some(&viewer), Scope::Admin),
            Err(AuthError::MissingScope(Scope::Admin))
        ));
    }

    #[test]
    fn a_token_for_one_tenant_sees_no_other() {
        let owner = member(Role::Owner);
        let caller = principal(Some(10));
        assert!(
            caller
                .authorize(&TenantId::new(Uuid::from_u128(10)), Some(&owner), Scope::Read)
                .is_ok()
        );
        assert!(matches!(
            caller.authorize(&TenantId::new(Uuid::from_u128(11)), Some(&owner), Scope::Read),
            Err(AuthError::NotFound { .. })
        ));
        assert!(matches!(
            caller.require_account(Scope::Read),
            Err(AuthError::Forbidden(_))
        ));
    }
}
