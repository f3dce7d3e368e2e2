//! How often a caller may ask: token buckets, told in every answer (RateLimit header fields draft).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::server::clock::Clock;
use crate::server::http::error::ApiError;
use crate::server::http::problem;
use crate::server::http::shares::Shares;
use crate::server::seats::{Full, Seat, Seats};
use crate::server::store::Store;
use crate::server::store::rate_limits::{self, Count, Filling};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Buckets that are full again are forgotten once there are this many.
const SWEEP_AT: usize = 10_000;
/// A database that takes longer to count is not waited for: this server counts alone until it is back.
const COUNT_WITHIN: Duration = Duration::from_secs(1);
/// When somebody for whom there is no seat may ask again.
const SEAT_WAIT_SECONDS: u32 = 5;

/// How much is allowed: `quota` requests at once, and as many again in every window.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// As it is called in the headers.
    pub name: &'static str,
    /// Requests of one window.
    pub quota: u32,
    /// Length of the window in seconds.
    pub window_seconds: u32,
}

/// The buckets of one policy, one for every caller; shared by all servers of one PostgreSQL.
#[derive(Clone, Debug)]
pub struct Limiter {
    policy: Policy,
    clock: Clock,
    shared: Option<Store>,
    /// When each bucket is full again, for a server that counts alone.
    buckets: Arc<Mutex<HashMap<String, i64>>>,
    shares: Arc<Mutex<Shares>>,
}

/// What is left after one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    policy: (&'static str, u32, u32),
    allowed: bool,
    remaining: u32,
    /// Seconds until the bucket is full, or until the next request is allowed.
    wait_seconds: u32,
}

impl Limiter {
    /// No caller has asked yet.
    #[must_use]
    pub fn new(policy: Policy, clock: Clock) -> Self {
        Self {
            policy,
            clock,
            shared: None,
            buckets: Arc::default(),
            shares: Arc::default(),
        }
    }

    /// The same, counted for all servers of the store.
    #[must_use]
    pub fn shared(mut self, store: &Store) -> Self {
        self.shared = matches!(store, Store::Postgres(_)).then(|| store.clone());
        self
    }

    /// Counts one request of `caller`.
    pub async fn count(&self, caller: &str) -> Standing {
        let now = self.clock.now().as_millis();
        let count = match self.count_for_all(caller, now).await {
            Some(count) => count,
            None => self.count_alone(caller, now),
        };
        let filling = self.filling();
        let used = (count.full_at - now).max(0);
        let wait = if count.allowed {
            used
        } else {
            used + filling.cost - filling.window
        };
        Standing {
            policy: (self.policy.name, self.policy.quota, self.policy.window_seconds),
            allowed: count.allowed,
            remaining: u32::try_from((filling.window - used) / filling.cost).unwrap_or(0),
            wait_seconds: u32::try_from((wait.max(0) + 999) / 1000).unwrap_or(u32::MAX),
        }
    }

    fn filling(&self) -> Filling {
        let window = i64::from(self.policy.window_seconds) * 1000;
        Filling {
            cost: (window / i64::from(self.policy.quota.max(1))).max(1),
            window,
        }
    }

    async fn count_for_all(&self, caller: &str, now: i64) -> Option<Count> {
        let store = self.shared.as_ref()?;
        let filling = self.filling();
        // A fiftieth of what they may ask for at all; with few to give every one is asked for.
        let most = self.policy.quota / 50;
        let at_hand = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.next(caller, (most, filling.cost), now)
        };
        let mut wanted = match at_hand {
            Ok(count) => return Some(count),
            Err(wanted) => wanted,
        };
        let name = format!("{} {caller}", self.policy.name);
        loop {
            let filling = Filling {
                cost: filling.cost * i64::from(wanted),
                ..filling
            };
            let counted = rate_limits::count(store, &name, filling, now);
            let count = match tokio::time::timeout(COUNT_WITHIN, counted).await {
                Ok(Ok(count)) => count?,
                Ok(Err(_)) | Err(_) => {
                    tracing::debug!(policy = self.policy.name, "counted by this server alone");
                    return None;
                }
            };
            if count.allowed {
                let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
                return Some(shares.took(caller, (wanted, self.filling().cost), count.full_at, now));
            }
            if wanted == 1 {
                return Some(count);
            }
            wanted = 1;
        }
    }

    fn count_alone(&self, caller: &str, now: i64) -> Count {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let count = self.filling().count(buckets.get(caller).copied(), now);
        buckets.insert(caller.to_owned(), count.full_at);
        count
    }

    /// Counts one request of `caller`, which is refused when there were too many.
    ///
    /// # Errors
    /// There were too many.
    pub async fn check(&self, caller: &str) -> Result<Standing, ApiError> {
        let standing = self.count(caller).await;
        if standing.allowed {
            return Ok(standing);
        }
        let wait = standing.wait_seconds.max(1);
        let error = ApiError::new(
            &problem::RATE_LIMITED,
            format!("too many requests; wait {wait} s"),
        )
        .hint(format!("try again in {wait} s"))
        .header(header::RETRY_AFTER, &wait.to_string());
        Err(standing.told(error))
    }
}

/// A seat for `caller`, or a refusal that says how many there are.
///
/// # Errors
/// There is none.
pub fn sit(seats: &Seats, caller: &str) -> Result<Seat, ApiError> {
    seats.take(caller).map_err(|full| {
        let (room, what) = match full {
            Full::Caller(room) => (room, format!("{} {} are open already", room.each, room.name)),
            Full::Server(room) => (room, format!("the server has as many {} as it serves", room.name)),
        };
        let wait = SEAT_WAIT_SECONDS;
        ApiError::new(&problem::CROWDED, what)
            .hint(format!("end one of them, or try again in {wait} s"))
            .header(header::RETRY_AFTER, &wait.to_string())
            .header(
                RATE_LIMIT_POLICY,
                &format!("\"{}\";q={};qu=\"concurrent-requests\"", room.name, room.each),
            )
            .header(RATE_LIMIT, &format!("\"{}\";r=0;t={wait}", room.name))
    })
}

impl Standing {
    /// Whether the request was within the limit.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.allowed
    }

    fn headers(&self) -> [(HeaderName, String); 2] {
        let (name, quota, window) = self.policy;
        [
            (RATE_LIMIT_POLICY, format!("\"{name}\";q={quota};w={window}")),
            (
                RATE_LIMIT,
                format!("\"{name}\";r={};t={}", self.remaining, self.wait_seconds),
            ),
        ]
    }

    /// A refusal that tells the caller.
    #[must_use]
    pub fn told(&self, error: ApiError) -> ApiError {
        let headers = self.headers().into_iter();
        headers.fold(error, |error, (name, value)| error.header(name, &value))
    }

    /// Tells the caller, unless a narrower limit has done so already.
    pub fn tell(&self, headers: &mut HeaderMap) {
        if headers.contains_key(RATE_LIMIT) {
            return;
        }
        for (name, value) in self.headers() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limiter, Policy};
    use crate::api::time::Time;
    use crate::server::clock::Clock;

    const POLICY: Policy = Policy {
        name: "test",
        quota: 3,
        window_seconds: 60,
    };

    #[tokio::test]
    async fn refuses_after_the_quota_and_lets_in_as_time_passes() {
        let clock = Clock::manual(Time::from_millis(0));
        let limiter = Limiter::new(POLICY, clock.clone());
        for left in [2, 1, 0] {
            let standing = limiter.count("ada").await;
            assert!(standing.is_allowed());
            assert_eq!(standing.remaining, left);
        }
        let refused = limiter.count("ada").await;
        assert!(!refused.is_allowed());
        assert_eq!(refused.wait_seconds, 20);
        assert!(
            limiter.count("bob").await.is_allowed(),
            "everybody has a bucket of their own"
        );
        clock.advance_seconds(20);
        assert!(limiter.count("ada").await.is_allowed());
        assert!(!limiter.count("ada").await.is_allowed());
    }

    #[tokio::test]
    async fn is_written_as_the_draft_has_it() {
        let limiter = Limiter::new(POLICY, Clock::manual(Time::from_millis(0)));
        let mut headers = axum::http::HeaderMap::new();
        limiter.count("ada").await.tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"test\";q=3;w=60");
        assert_eq!(headers["ratelimit"], "\"test\";r=2;t=20");
    }
}
