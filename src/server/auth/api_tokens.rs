//! API tokens: `spt_` and 256 random bits, shown once, for 90 days at most.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use crate::api::account::CreateToken;
use crate::api::id::{AccountId, TokenId};
use crate::api::member::Role;
use crate::api::oauth::Scope;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::keys::{hash_token, random_token};
use crate::server::auth::{Auth, AuthError, Credential, Principal, parse_scopes, scope_words};
use crate::server::store::api_tokens::ApiTokenRow;
use crate::server::store::{StoreError, Tx, api_tokens, callers};

/// What every API token begins with.
pub const PREFIX: &str = "spt_";
/// The longest life of an API token, in seconds.
pub const MAX_LIFE_SECONDS: u64 = 90 * 24 * 3600;
/// How often its use is written down at most, in seconds.
const TOUCH_SECONDS: i64 = 60;

/// A token that was just made.
pub struct NewToken {
    /// As it is listed.
    pub row: ApiTokenRow,
    /// The token itself; it cannot be had again.
    pub token: SecretText,
}

/// Checks what was asked for against what any token may be.
///
/// # Errors
/// The name is empty or long, there is no scope, or the life is 0 or over 90 days.
pub fn check(wanted: &CreateToken) -> Result<(), AuthError> {
    let refuse = |field, detail: &str| {
        Err(AuthError::Invalid {
            field,
            detail: detail.to_owned(),
        })
    };
    if wanted.name.trim().is_empty() || wanted.name.chars().count() > 100 {
        return refuse("name", "a token's name has 1 to 100 characters");
    }
    if wanted.scopes.is_empty() {
        return refuse(
            "scopes",
            "a token needs at least one of read, deploy, secrets, admin",
        );
    }
    if wanted.expires_in_seconds == 0 || wanted.expires_in_seconds > MAX_LIFE_SECONDS {
        return refuse(
            "expires_in_seconds",
            "a token lives 1 second to 90 days (7776000 seconds)",
        );
    }
    Ok(())
}

/// Checks what was asked for against what the caller has: nobody gives more than they hold.
///
/// # Errors
/// The new token would have a scope, a tenant or a life that the caller's credential has not.
pub fn check_not_more(caller: &Principal, wanted: &CreateToken, now: Time) -> Result<(), AuthError> {
    caller.require(Scope::Admin)?;
    if let Some(missing) = wanted.scopes.iter().find(|scope| !caller.scopes.contains(scope)) {
        return Err(AuthError::MissingScope(*missing));
    }
    if caller.tenant_id.is_some() && caller.tenant_id != wanted.tenant_id {
        return Err(AuthError::Forbidden(
            "a token for one tenant makes tokens for that tenant only",
        ));
    }
    let ends = now.plus_seconds(wanted.expires_in_seconds as i64);
    if matches!(caller.credential, Credential::ApiToken(_)) && ends > caller.expires_at {
        return Err(AuthError::Forbidden(
            "a token makes no token that lives longer than itself",
        ));
    }
    Ok(())
}

impl Auth {
    /// Makes a token for `account` in the caller's transaction; the request must have been checked.
    ///
    /// # Errors
    /// The store fails.
    pub async fn create_api_token(
        &self,
        tx: &mut Tx,
        account: &AccountId,
        wanted: &CreateToken,
    ) -> Result<NewToken, AuthError> {
        let token = format!("{PREFIX}{}", random_token(&self.clock));
        let now = self.clock.now();
        let scopes: BTreeSet<Scope> = wanted.scopes.iter().copied().collect();
        let row = ApiTokenRow {
            id: TokenId::new(self.clock.uuid()),
            account_id: account.clone(),
            name: wanted.name.trim().to_owned(),
            token_hash: hash_token(&token),
            scopes: scope_words(&scopes),
            tenant_id: wanted.tenant_id.clone(),
            created_at: now,
            expires_at: now.plus_seconds(wanted.expires_in_seconds as i64),
            last_used_at: None,
            revoked_at: None,
        };
        api_tokens::create(tx, &row).await?;
        Ok(NewToken {
            row,
            token: SecretText::new(token),
        })
    }

    /// Whether the use of some API token is to be written down.
    #[must_use]
    pub fn has_used(&self) -> bool {
        !self
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Writes down that API tokens were used.
    ///
    /// # Errors
    /// The store fails.
    pub async fn write_used(&self) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        for id in &used {
            api_tokens::touch(&mut tx, id, now).await?;
        }
        tx.commit().await
    }

    pub(super) async fn authenticate_api_token(&self, token: &str) -> Result<Principal, AuthError> {
        let now = self.clock.now();
        let (row, caller) = callers::find_by_token(&mut self.store.look(), &hash_token(token))
            .await?
            .ok_or(AuthError::Unauthenticated(
                "the API token is not one of this server",
            ))?;
        if row.revoked_at.is_some() {
            return Err(AuthError::Unauthenticated("the API token was revoked"));
        }
        if row.expires_at <= now {
            return Err(AuthError::Unauthenticated("the API token has expired"));
        }
        let account = caller.ok_or(AuthError::Unauthenticated("the account is gone"))?;
        let seen_lately = row
            .last_used_at
            .is_some_and(|used| now.seconds_since(used) < TOUCH_SECONDS);
        if !seen_lately {
            // Whoever asks does not wait until that is written down.
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert(row.id.clone());
        }
        Ok(Principal {
            account_id: account.account_id,
            email: account.email,
            operator: account.operator,
            scopes: parse_scopes(&row.scopes)
                .map_err(|_| AuthError::Unauthenticated("the API token is damaged"))?,
            tenant_id: row.tenant_id,
            credential: Credential::ApiToken(row.id),
            expires_at: row.expires_at,
            needs: Role::Owner,
        })
    }
}
