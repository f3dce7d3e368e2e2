//! Device login (RFC 8628): a program shows a code, a person confirms it in a browser, the program polls.

use std::collections::BTreeSet;

use crate::api::id::AccountId;
use crate::api::oauth::{CLIENT_ID, DeviceAuthorization, DeviceAuthorizationRequest, Scope, TokenResponse};
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::keys::{hash_token, random_token};
use crate::server::auth::sessions::{GrantError, refused};
use crate::server::auth::{Auth, AuthError, parse_scopes, scope_words};
use crate::server::clock::Clock;
use crate::server::store::device_grants::{Decision, DeviceGrantRow};
use crate::server::store::{StoreError, device_grants};

/// Life of both codes, in seconds.
pub const LIFE_SECONDS: u32 = 900;
/// Least seconds between two polls at the beginning.
pub const INTERVAL_SECONDS: u32 = 5;
/// What every `slow_down` adds to it (RFC 8628 section 3.5).
const SLOW_DOWN_SECONDS: u32 = 5;
/// A poll may come this much early: the program's clock is not ours.
const TOLERANCE_MS: i64 = 500;
/// Letters without vowels and look-alikes (RFC 8628 section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CODE_LETTERS: usize = 8;

/// The code as a person types it, as it is stored: upper case, without punctuation.
#[must_use]
pub fn normal_user_code(typed: &str) -> String {
    typed
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_uppercase())
        .take(CODE_LETTERS + 1)
        .collect()
}

/// The stored code as it is shown: `BCDF-GHJK`.
#[must_use]
pub fn shown_user_code(code: &str) -> String {
    match code.split_at_checked(CODE_LETTERS / 2) {
        Some((left, right)) if !right.is_empty() => format!("{left}-{right}"),
        _ => code.to_owned(),
    }
}

fn new_user_code(clock: &Clock) -> String {
    let mut code = String::with_capacity(CODE_LETTERS);
    while code.len() < CODE_LETTERS {
        for byte in clock.random::<16>() {
            // 240 = 12 × 20: above it the first letters would come up more often.
            if byte < 240 && code.len() < CODE_LETTERS {
                code.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
            }
        }
    }
    code
}

/// What a program calls its machine, fit to be shown: one line, no control characters, 64 at most.
fn clean_device_name(name: Option<&str>) -> String {
    let clean: String = name
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(64)
        .collect();
    match clean.trim() {
        "" => "an unnamed device".to_owned(),
        named => named.to_owned(),
    }
}

impl Auth {
    /// Begins a device login; `verification_uri` is the page where the code is typed.
    ///
    /// # Errors
    /// The client or a scope is unknown, or the store fails.
    pub async fn start_device_login(
        &self,
        request: &DeviceAuthorizationRequest,
        verification_uri: &str,
    ) -> Result<DeviceAuthorization, GrantError> {
        if request.client_id != CLIENT_ID {
            return Err(refused("invalid_client", "no client of that id"));
        }
        let scopes = match request.scope.as_deref() {
            None => Scope::ALL.into(),
            Some(words) => parse_scopes(words)
                .map_err(|_| refused("invalid_scope", "the scopes are read, deploy, secrets, admin"))?,
        };
        let scopes = if scopes.is_empty() {
            BTreeSet::from(Scope::ALL)
        } else {
            scopes
        };
        let device_code = random_token(&self.clock);
        let now = self.clock.now();
        let mut grant = DeviceGrantRow {
            device_code_hash: hash_token(&device_code),
            user_code: String::new(),
            client_id: request.client_id.clone(),
            scopes: scope_words(&scopes),
            device_name: clean_device_name(request.device_name.as_deref()),
            decision: Decision::Pending,
            interval_seconds: INTERVAL_SECONDS,
            last_polled_at: None,
            created_at: now,
            expires_at: now.plus_seconds(i64::from(LIFE_SECONDS)),
        };
        self.insert_with_free_code(&mut grant).await?;
        let shown = shown_user_code(&grant.user_code);
        Ok(DeviceAuthorization {
            device_code: SecretText::new(device_code),
            verification_uri: verification_uri.to_owned(),
            verification_uri_complete: format!("{verification_uri}?user_code={shown}"),
            user_code: shown,
            expires_in: u64::from(LIFE_SECONDS),
            interval: u64::from(INTERVAL_SECONDS),
        })
    }

    async fn insert_with_free_code(&self, grant: &mut DeviceGrantRow) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            grant.user_code = new_user_code(&self.clock);
            let mut tx = self.store.begin().await?;
            // Kept for a while after their end, so that a late poll is told `expired_token`.
            device_grants::delete_expired(&mut tx, grant.created_at.plus_seconds(-3600)).await?;
            match device_grants::create(&mut tx, grant).await {
                Ok(()) => return tx.commit().await,
                Err(StoreError::Duplicate(_)) if tries < 10 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The login that shows this code, for the page on which it is confirmed.
    ///
    /// # Errors
    /// The store fails.
    pub async fn find_device_login(&self, typed: &str) -> Result<Option<DeviceGrantRow>, AuthError> {
        let mut tx = self.store.begin_read().await?;
        Ok(device_grants::find_waiting(&mut tx, &normal_user_code(typed), self.clock.now()).await?)
    }

    /// Writes down what the person said; `false` where the code is not waiting (any more).
    ///
    /// # Errors
    /// The store fails.
    pub async fn decide_device_login(
        &self,
        typed: &str,
        account: &AccountId,
        approved: bool,
    ) -> Result<bool, AuthError> {
        let mut tx = self.store.begin().await?;
        let code = normal_user_code(typed);
        let decided = device_grants::decide(&mut tx, &code, account, approved, self.clock.now()).await?;
        tx.commit().await?;
        Ok(decided)
    }

    /// One poll of the program (RFC 8628 section 3.4).
    ///
    /// # Errors
    /// Every state but "approved" is a refusal with its registered word.
    pub async fn poll_device_login(
        &self,
        client_id: &str,
        device_code: &str,
    ) -> Result<TokenResponse, GrantError> {
        const UNKNOWN: GrantError = refused("invalid_grant", "the device code is unknown or was used");
        let hash = hash_token(device_code);
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let grant = device_grants::find(&mut tx, &hash)
            .await?
            .filter(|grant| grant.client_id == client_id)
            .ok_or(UNKNOWN)?;
        if grant.expires_at <= now {
            return Err(refused(
                "expired_token",
                "the codes have expired: begin the login again",
            ));
        }
        match &grant.decision {
            Decision::Denied => Err(refused("access_denied", "the login was denied in the browser")),
            Decision::Approved(account) => {
                if !device_grants::consume(&mut tx, &hash).await? {
                    return Err(UNKNOWN);
                }
                let tokens = self
                    .start_session(&mut tx, account, &grant.scopes, &grant.device_name)
                    .await?;
                tx.commit().await?;
                Ok(tokens)
            }
            Decision::Pending => {
                let (interval, answer) = pace(&grant, now);
                device_grants::record_poll(&mut tx, &hash, interval, now).await?;
                tx.commit().await?;
                Err(answer)
            }
        }
    }
}

/// The interval that holds after this poll, and what the poll is told.
fn pace(grant: &DeviceGrantRow, now: Time) -> (u32, GrantError) {
    let least_ms = i64::from(grant.interval_seconds) * 1000 - TOLERANCE_MS;
    let too_soon = grant
        .last_polled_at
        .is_some_and(|last| now.as_millis() - last.as_millis() < least_ms);
    if too_soon {
        let slower = grant.interval_seconds.saturating_add(SLOW_DOWN_SECONDS);
        return (
            slower,
            refused("slow_down", "wait 5 seconds more between polls from now on"),
        );
    }
    (
        grant.interval_seconds,
        refused("authorization_pending", "the login was not confirmed yet"),
    )
}

#[cfg(test)]
mod tests {
    use super::{LIFE_SECONDS, clean_device_name, normal_user_code, shown_user_code};
    use crate::api::oauth::{CLIENT_ID, DeviceAuthorization, DeviceAuthorizationRequest};
    use crate::server::auth::sessions::GrantError;
    use crate::server::auth::testing::{Bench, bench};

    async fn begin(bench: &Bench) -> DeviceAuthorization {
        let request = DeviceAuthorizationRequest {
            client_id: CLIENT_ID.into(),
            scope: Some("read".into()),
            device_name: Some("laptop".into()),
        };
        bench
            .auth
            .start_device_login(&request, "http://127.0.0.1:8787/device")
            .await
            .expect("begun")
    }

    async fn poll(bench: &Bench, login: &DeviceAuthorization) -> Result<String, &'static str> {
        match bench
            .auth
            .poll_device_login(CLIENT_ID, login.device_code.expose())
            .await
        {
            Ok(tokens) => Ok(tokens.scope),
            Err(GrantError::Refused { error, .. }) => Err(error),
            Err(GrantError::Failed(error)) => panic!("{error:?}"),
        }
    }

    #[tokio::test]
    async fn waits_then_gives_tokens_once() {
        let bench = bench().await;
        let login = begin(&bench).await;
        assert_eq!(poll(&bench, &login).await, Err("authorization_pending"));
        let typed = login.user_code.to_lowercase().replace('-', " ");
        assert!(
            bench
                .auth
                .decide_device_login(&typed, &bench.account, true)
                .await
                .expect("decided")
        );
        assert_eq!(poll(&bench, &login).await, Ok("read".into()));
        assert_eq!(poll(&bench, &login).await, Err("invalid_grant"));
        assert!(
            !bench
                .auth
                .decide_device_login(&typed, &bench.account, true)
                .await
                .expect("asked")
        );
    }

    #[tokio::test]
    async fn slows_down_for_good() {
        let bench = bench().await;
        let login = begin(&bench).await;
        assert_eq!(poll(&bench, &login).await, Err("authorization_pending"));
        bench.clock.advance_seconds(4);
        assert_eq!(poll(&bench, &login).await, Err("slow_down"));
        bench.clock.advance_seconds(9);
        assert_eq!(
            poll(&bench, &login).await,
            Err("slow_down"),
            "10 seconds hold now"
        );
        bench.clock.advance_seconds(15);
        assert_eq!(
            poll(&bench, &login).await,
            Err("authorization_pending"),
            "15 seconds hold now"
        );
    }

    #[tokio::test]
    async fn refusals_have_their_words() {
        let bench = bench().await;
        let login = begin(&bench).await;
        assert!(
            bench
                .auth
                .decide_device_login(&login.user_code, &bench.account, false)
                .await
                .expect("decided")
        );
        assert_eq!(poll(&bench, &login).await, Err("access_denied"));
        bench.clock.advance_seconds(i64::from(LIFE_SECONDS));
        assert_eq!(poll(&bench, &login).await, Err("expired_token"));
        let foreign = bench
            .auth
            .poll_device_login("another", login.device_code.expose())
            .await;
        assert!(matches!(
            foreign,
            Err(GrantError::Refused {
                error: "invalid_grant",
                ..
            })
        ));
    }

    #[test]
    fn codes_are_read_as_people_write_them() {
        assert_eq!(normal_user_code(" wdjb-mjht "), "WDJBMJHT");
        assert_eq!(shown_user_code("WDJBMJHT"), "WDJB-MJHT");
        assert_eq!(clean_device_name(Some("a\nb\u{1b}[31m")), "ab[31m");
    }
}
