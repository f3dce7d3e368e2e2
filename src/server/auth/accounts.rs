//! Accounts and the two ways in at the sign-in page: a password, or a link that works once.

use std::net::IpAddr;

use crate::api::id::AccountId;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::guard::place_of;
use crate::server::auth::keys::{hash_token, random_token};
use crate::server::auth::{Auth, AuthError, password};
use crate::server::store::accounts::AccountRow;
use crate::server::store::web_sessions::WebSessionRow;
use crate::server::store::{StoreError, Tx, accounts, acts, sign_in_links, web_sessions};

/// Life of a one-time sign-in link, in seconds.
pub const LINK_LIFE_SECONDS: u32 = 24 * 3600;
/// Life of a browser's session, in seconds.
pub const WEB_SESSION_LIFE_SECONDS: u32 = 12 * 3600;

/// A browser that has just been let in.
pub struct WebSignIn {
    /// Goes into the cookie.
    pub cookie: SecretText,
    /// Until when it is good.
    pub expires_at: Time,
    /// Goes into another cookie that stays: others' wrong passwords do not hold this browser up.
    pub device: SecretText,
}

/// A browser that wants to be let in.
#[derive(Clone, Debug)]
pub struct Newcomer {
    user_agent: String,
    cookie: Option<String>,
    by: String,
    address: IpAddr,
    device: Option<String>,
}

impl Newcomer {
    /// A browser at this address that says that it is this, and brings this cookie: the session behind it ends, whoever
    /// has put it there.
    #[must_use]
    pub fn new(user_agent: &str, cookie: Option<String>, address: IpAddr) -> Self {
        let plain = user_agent.chars().filter(|c| !c.is_control());
        Self {
            user_agent: plain.take(LONGEST_USER_AGENT).collect(),
            cookie,
            by: String::new(),
            address,
            device: None,
        }
    }

    /// The same with what it was given when somebody signed in.
    #[must_use]
    pub fn with_device(mut self, device: Option<String>) -> Self {
        self.device = device;
        self
    }

    pub(super) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    pub(super) fn place(&self) -> String {
        place_of(self.address)
    }

    /// The same, with the way by which it is let in.
    #[must_use]
    pub(super) fn by(mut self, way: &str) -> Self {
        way.clone_into(&mut self.by);
        self
    }
}

/// The longest that is kept of what a browser says that it is, in characters.
const LONGEST_USER_AGENT: usize = 200;

/// A browser that is signed in.
#[derive(Clone, Debug)]
pub struct Browser {
    /// Who.
    pub account: AccountRow,
    /// What its forms must carry.
    pub csrf_token: String,
    /// SHA-256 of its cookie.
    pub session_hash: String,
}

/// The e-mail address as it is stored, or why it is none.
///
/// # Errors
/// It is not an e-mail address.
pub fn normal_email(email: &str) -> Result<String, AuthError> {
    let email = email.trim().to_lowercase();
    let shaped = email.len() <= 254
        && !email.contains(|c: char| c.is_whitespace() || c.is_control())
        && email
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    if shaped {
        return Ok(email);
    }
    Err(AuthError::Invalid {
        field: "email",
        detail: "an e-mail address has a part before and a part after one `@`".to_owned(),
    })
}

impl Auth {
    /// Whether anybody can sign in at all.
    ///
    /// # Errors
    /// The store fails.
    pub async fn has_accounts(&self) -> Result<bool, AuthError> {
        let mut tx = self.store.begin_read().await?;
        Ok(accounts::exist(&mut tx).await?)
    }

    /// Makes an account, with a password or to be let in by a link.
    ///
    /// # Errors
    /// The address is malformed or taken, the password is too short, or the store fails.
    pub async fn create_account(
        &self,
        email: &str,
        password: Option<SecretText>,
        operator: bool,
    ) -> Result<AccountRow, AuthError> {
        let email = normal_email(email)?;
        let password_hash = match password {
            Some(password) => Some(password::hash(&self.clock, password).await?),
            None => None,
        };
        let account = AccountRow {
            id: AccountId::new(self.clock.uuid()),
            email,
            password_hash,
            operator,
            created_at: self.clock.now(),
        };
        let mut tx = self.store.begin().await?;
        match accounts::create(&mut tx, &account).await {
            Ok(()) => {}
            Err(StoreError::Duplicate(_)) => return Err(AuthError::AccountExists(account.email)),
            Err(error) => return Err(error.into()),
        }
        tx.commit().await?;
        Ok(account)
    }

    /// Makes a link that lets the account in once; answers its token.
    ///
    /// # Errors
    /// There is no such account, or the store fails.
    pub async fn create_link(&self, email: &str) -> Result<SecretText, AuthError> {
        let token = random_token(&self.clock);
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let account = accounts::find_by_email(&mut tx, &normal_email(email)?)
            .await?
            .ok_or(AuthError::NotFound { what: "account" })?;
        let ends = now.plus_seconds(i64::from(LINK_LIFE_SECONDS));
        sign_in_links::create(&mut tx, &hash_token(&token), &account.id, now, ends).await?;
        tx.commit().await?;
        Ok(SecretText::new(token))
    }

    /// Whose link this is, while it is good.
    ///
    /// # Errors
    /// The store fails.
    pub async fn find_link(&self, token: &str) -> Result<Option<AccountRow>, AuthError> {
        let mut tx = self.store.begin_read().await?;
        match sign_in_links::find(&mut tx, &hash_token(token), self.clock.now()).await? {
            Some(id) => Ok(accounts::find(&mut tx, &id).await?),
            None => Ok(None),
        }
    }

    /// Uses a one-time link up and signs the browser in; `None` where it is not good (any more).
    ///
    /// # Errors
    /// The store fails.
    pub async fn sign_in_by_link(
        &self,
        token: &str,
        newcomer: Newcomer,
    ) -> Result<Option<WebSignIn>, AuthError> {
        let mut tx = self.store.begin().await?;
        let Some(account) = sign_in_links::consume(&mut tx, &hash_token(token), self.clock.now()).await?
        else {
            return Ok(None);
        };
        let signed_in = self
            .start_web_session(&mut tx, &account, newcomer.by("link"))
            .await?;
        tx.commit().await?;
        Ok(Some(signed_in))
    }

    /// Signs a browser in by password; `None` where address and password do not belong together.
    ///
    /// # Errors
    /// Too many were wrong, or the store fails.
    pub async fn sign_in_by_password(
        &self,
        email: &str,
        password: SecretText,
        newcomer: Newcomer,
    ) -> Result<Option<WebSignIn>, AuthError> {
        // What is no address is tried as one that nobody has.
        let email = normal_email(email).unwrap_or_default();
        let account = {
            let mut tx = self.store.begin_read().await?;
            accounts::find_by_email(&mut tx, &email).await?
        };
        let counted = self.count_try(&email, account.as_ref(), &newcomer).await?;
        if let Some(account) = &account {
            acts::by("browser", None, &account.id);
        }
        let stored = account
            .as_ref()
            .and_then(|account| account.password_hash.as_deref());
        // Hashed in any case and outside of a transaction: it takes tens of milliseconds.
        if !password::verify(stored, password).await {
            return Ok(None);
        }
        let Some(account) = account else { return Ok(None) };
        let mut tx = self.store.begin().await?;
        self.take_try_back(&mut tx, counted).await?;
        let signed_in = self
            .start_web_session(&mut tx, &account.id, newcomer.by("password"))
            .await?;
        tx.commit().await?;
        Ok(Some(signed_in))
    }

    /// Who the browser with this cookie is, if it is signed in.
    ///
    /// # Errors
    /// The store fails.
    pub async fn find_browser(&self, cookie: &str) -> Result<Option<Browser>, AuthError> {
        let mut tx = self.store.begin_read().await?;
        let Some(session) = web_sessions::find(&mut tx, &hash_token(cookie), self.clock.now()).await? else {
            return Ok(None);
        };
        let account = accounts::find(&mut tx, &session.account_id).await?;
        Ok(account.map(|account| Browser {
            account,
            csrf_token: session.csrf_token,
            session_hash: session.token_hash,
        }))
    }

    /// Signs the browser out.
    ///
    /// # Errors
    /// The store fails.
    pub async fn sign_out(&self, browser: &Browser) -> Result<(), AuthError> {
        let mut tx = self.store.begin().await?;
        web_sessions::delete(&mut tx, &browser.session_hash).await?;
        Ok(tx.commit().await?)
    }

    /// Begins a new session of a browser, in place of the one that it brings.
    pub(super) async fn start_web_session(
        &self,
        tx: &mut Tx,
        account: &AccountId,
        newcomer: Newcomer,
    ) -> Result<WebSignIn, AuthError> {
        let now = self.clock.now();
        web_sessions::delete_expired(tx, now).await?;
        if let Some(former) = &newcomer.cookie {
            web_sessions::delete(tx, &hash_token(former)).await?;
        }
        let device = self.remember(tx, account, &newcomer).await?;
        let cookie = random_token(&self.clock);
        let expires_at = now.plus_seconds(i64::from(WEB_SESSION_LIFE_SECONDS));
        let session = WebSessionRow {
            token_hash: hash_token(&cookie),
            account_id: account.clone(),
            csrf_token: random_token(&self.clock),
            created_at: now,
            expires_at,
            user_agent: newcomer.user_agent,
            signed_in_by: newcomer.by,
        };
        web_sessions::create(tx, &session).await?;
        acts::by("browser", session.token_hash.get(..12), account);
        Ok(WebSignIn {
            cookie: SecretText::new(cookie),
            expires_at,
            device,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::normal_email;

    #[test]
    fn addresses_are_compared_in_lower_case() {
        assert_eq!(
            normal_email(" Ada@Example.ORG ").expect("valid"),
            "ada@example.org"
        );
        for bad in ["", "ada", "@example.org", "ada@", "a@b@c", "a b@c"] {
            assert!(normal_email(bad).is_err(), "{bad}");
        }
    }
}
