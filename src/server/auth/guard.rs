//! How many passwords may be tried: nobody is banned, and nobody uses up another's tries.
//!
//! Tries that were wrong are counted three times: of an account from an address, strictly; of an address over all
//! accounts; and of an account from everywhere, gently and with a small cap, so that a guesser with many addresses is slowed.
//! The last does not hold up whoever has signed in to that account from this address before. A browser that has done so
//! shows a cookie: its tries are counted by themselves, whoever else tries from where.
//!
//! A try is counted before the password is looked at, so that many at once are no more than one after the other; one that
//! was right is taken back.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::api::id::AccountId;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::auth::accounts::Newcomer;
use crate::server::auth::keys::random_token;
use crate::server::auth::{Auth, AuthError};
use crate::server::store::accounts::AccountRow;
use crate::server::store::password_tries::{self, Try};
use crate::server::store::{StoreError, Tx};

/// For how long an address or a browser is known after a sign-in, in seconds.
pub const KNOWN_SECONDS: u32 = 90 * 24 * 3600;
const DEVICE: &str = "known-browser";

/// How a row of wrong tries is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backoff {
    name: &'static str,
    /// So many are not held up at all.
    free: u32,
    /// Seconds after the first one that is; twice as many after each next one.
    first: i64,
    /// The most seconds.
    most: i64,
    /// Seconds without a try after which all are forgotten.
    memory: i64,
}

/// Of one account from one address, or from one browser.
const PAIR: Backoff = Backoff {
    name: "pair",
    free: 5,
    first: 5,
    most: 900,
    memory: 24 * 3600,
};
/// Of one address over all accounts.
const ADDRESS: Backoff = Backoff {
    name: "address",
    free: 20,
    first: 5,
    most: 900,
    memory: 3600,
};
/// Of one account from everywhere.
const ACCOUNT: Backoff = Backoff {
    name: "account",
    free: 20,
    first: 1,
    most: 30,
    memory: 3600,
};

impl Backoff {
    /// For how long the next try is held up after so many.
    fn seconds(&self, failures: i64) -> i64 {
        let held = failures - i64::from(self.free);
        if held <= 0 {
            return 0;
        }
        let doublings = u32::try_from(held - 1).unwrap_or(u32::MAX).min(32);
        (self.first << doublings).min(self.most)
    }
}

/// What was counted of a try.
pub(super) struct Counted(Vec<(Backoff, String, Time)>);

/// What a browser keeps that has signed in: whose it is, and which one.
#[derive(Serialize, Deserialize)]
struct Device {
    account: AccountId,
    id: String,
    ends: i64,
}

impl Auth {
    /// Counts a try of a password.
    ///
    /// # Errors
    /// It is too early for another one, or the store fails.
    pub(super) async fn count_try(
        &self,
        email: &str,
        account: Option<&AccountRow>,
        newcomer: &Newcomer,
    ) -> Result<Counted, AuthError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let mut counted = Counted(Vec::new());
        for (backoff, mark) in self.marks(&mut tx, email, account, newcomer).await? {
            let farthest = now.plus_seconds(backoff.most);
            match password_tries::count(&mut tx, &mark, (now, farthest)).await? {
                Try::Counted(failures) => {
                    let free_at = now.plus_seconds(backoff.seconds(failures));
                    let ends = (free_at, free_at.plus_seconds(backoff.memory));
                    password_tries::hold_up(&mut tx, &mark, ends).await?;
                    counted.0.push((backoff, mark, free_at));
                }
                // With the transaction goes what was counted so far.
                Try::NotBefore(free_at) => {
                    // Whoever waits as long as they are told is looked at.
                    let wait = (free_at.as_millis() - now.as_millis() + 999) / 1000;
                    let wait = wait.clamp(1, backoff.most);
                    tracing::info!(counted_for = backoff.name, wait, "a password was not looked at");
                    return Err(AuthError::TooManyTries {
                        wait_seconds: u32::try_from(wait).unwrap_or(1),
                    });
                }
            }
        }
        tx.commit_aside().await?;
        Ok(counted)
    }

    /// What the tries of somebody are counted under; always in the same order, so that two do not wait for each other.
    async fn marks(
        &self,
        tx: &mut Tx,
        email: &str,
        account: Option<&AccountRow>,
        newcomer: &Newcomer,
    ) -> Result<Vec<(Backoff, String)>, StoreError> {
        let mark = |backoff: Backoff, what: &[&str]| (backoff, self.mark(backoff.name, what));
        let device = account.and_then(|account| self.device_of(newcomer, &account.id));
        if let Some(device) = device {
            return Ok(vec![mark(PAIR, &[email, &device.id])]);
        }
        let place = newcomer.place();
        let mut marks = vec![mark(PAIR, &[email, &place]), mark(ADDRESS, &[&place])];
        let was_here = match account {
            Some(account) => {
                let mark = self.mark("place", &[account.id.as_str(), &place]);
                password_tries::is_known_place(tx, &mark, self.clock.now()).await?
            }
            None => false,
        };
        if !was_here {
            marks.push(mark(ACCOUNT, &[email]));
        }
        Ok(marks)
    }

    /// Takes a try back that was right, in the transaction that lets somebody in.
    pub(super) async fn take_try_back(&self, tx: &mut Tx, counted: Counted) -> Result<(), StoreError> {
        for (backoff, mark, free_at) in counted.0 {
            if backoff == PAIR {
                password_tries::forget(tx, &mark).await?;
            } else {
                // One that is right says nothing about the others from there.
                password_tries::take_back(tx, &mark, (free_at, self.clock.now())).await?;
            }
        }
        Ok(())
    }

    /// Remembers where somebody has signed in, and makes what their browser is known by from now on.
    pub(super) async fn remember(
        &self,
        tx: &mut Tx,
        account: &AccountId,
        newcomer: &Newcomer,
    ) -> Result<SecretText, AuthError> {
        let now = self.clock.now();
        let ends = now.plus_seconds(i64::from(KNOWN_SECONDS));
        let mark = self.mark("place", &[account.as_str(), &newcomer.place()]);
        password_tries::remember_place(tx, &mark, ends).await?;
        let former = self.device_of(newcomer, account);
        let device = Device {
            account: account.clone(),
            id: former.map_or_else(|| random_token(&self.clock), |former| former.id),
            ends: ends.as_millis(),
        };
        Ok(SecretText::new(self.seal_for_browser(DEVICE, &device)?))
    }

    /// As whom the requests of somebody are counted who wants to sign in: a browser that has signed in before by itself, so
    /// that nobody else at its address uses up what it may; everybody else by the address.
    #[must_use]
    pub fn counted_as(&self, newcomer: &Newcomer) -> String {
        let now = self.clock.now().as_millis();
        let device: Option<Device> = newcomer
            .device()
            .and_then(|kept| self.open_of_browser(DEVICE, kept))
            .filter(|device: &Device| device.ends > now);
        match device {
            Some(device) => format!("browser {}", device.id),
            None => format!("address {}", newcomer.place()),
        }
    }

    fn device_of(&self, newcomer: &Newcomer, account: &AccountId) -> Option<Device> {
        let device: Device = self.open_of_browser(DEVICE, newcomer.device()?)?;
        (device.account == *account && device.ends > self.clock.now().as_millis()).then_some(device)
    }

    fn mark(&self, what: &str, of: &[&str]) -> String {
        let parts: Vec<&[u8]> = std::iter::once(what)
            .chain(of.iter().copied())
            .map(str::as_bytes)
            .collect();
        hex::encode(self.keys.mac("password-tries", &parts))
    }
}

/// As whom an address is counted. Whoever has one of IPv6 has all of its network (/64).
#[must_use]
pub(super) fn place_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ACCOUNT, PAIR, place_of};

    #[test]
    fn waits_double_up_to_a_cap() {
        let pair: Vec<i64> = (1..=9).map(|failures| PAIR.seconds(failures)).collect();
        assert_eq!(pair, [0, 0, 0, 0, 0, 5, 10, 20, 40]);
        for failures in [14, 70, 1000, i64::MAX] {
            assert_eq!(PAIR.seconds(failures), 900);
            assert_eq!(ACCOUNT.seconds(failures.max(26)), 30);
        }
        assert_eq!(ACCOUNT.seconds(20), 0);
    }

    #[test]
    fn one_network_is_one_place() {
        let place = |text: &str| place_of(text.parse().expect("an address"));
        assert_eq!(place("2001:db8:1:2::1"), place("2001:db8:1:2:ffff::9"));
        assert_ne!(place("2001:db8:1:2::1"), place("2001:db8:1:3::1"));
        assert_ne!(place("192.0.2.1"), place("192.0.2.2"));
        assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
    }
}
