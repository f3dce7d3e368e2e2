//! How often a caller may ask: token buckets, told in every answer (RateLimit header fields draft).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::server::clock::Clock;
use crate::server::http::error::ApiError;
use crate::server::http::problem;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Buckets that are full again are forgotten once there are this many.
const SWEEP_AT: usize = 10_000;

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

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at_ms: i64,
}

/// The buckets of one policy, one for every caller.
#[derive(Clone, Debug)]
pub struct Limiter {
    policy: Policy,
    clock: Clock,
    buckets: Arc<Mutex<HashMap<String, Bucket>>>,
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
            buckets: Arc::default(),
        }
    }

    /// Counts one request of `caller`.
    #[must_use]
    pub fn count(&self, caller: &str) -> Standing {
        let now = self.clock.now().as_millis();
        let full = f64::from(self.policy.quota);
        let per_second = full / f64::from(self.policy.window_seconds);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SWEEP_AT {
            let window_ms = i64::from(self.policy.window_seconds) * 1000;
            buckets.retain(|_, bucket| now - bucket.filled_at_ms < window_ms);
        }
        let bucket = buckets.entry(caller.to_owned()).or_insert(Bucket {
            tokens: full,
            filled_at_ms: now,
        });
        let passed = (now - bucket.filled_at_ms).max(0) as f64 / 1000.0;
        bucket.tokens = (bucket.tokens + passed * per_second).min(full);
        bucket.filled_at_ms = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        let missing = if allowed {
            full - bucket.tokens
        } else {
            1.0 - bucket.tokens
        };
        Standing {
            policy: (self.policy.name, self.policy.quota, self.policy.window_seconds),
            allowed,
            remaining: bucket.tokens as u32,
            wait_seconds: (missing / per_second).ceil() as u32,
        }
    }

    /// Counts one request of `caller`, which is refused when there were too many.
    ///
    /// # Errors
    /// There were too many.
    pub fn check(&self, caller: &str) -> Result<Standing, ApiError> {
        let standing = self.count(caller);
        if standing.allowed {
            return Ok(standing);
        }
        let wait = standing.wait_seconds.max(1);
        let mut error = ApiError::new(
            &problem::RATE_LIMITED,
            format!("too many requests; wait {wait} s"),
        )
        .hint(format!("try again in {wait} s"))
        .header(header::RETRY_AFTER, &wait.to_string());
        for (name, value) in standing.headers() {
            error = error.header(name, &value);
        }
        Err(error)
    }
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

    #[test]
    fn refuses_after_the_quota_and_lets_in_as_time_passes() {
        let clock = Clock::manual(Time::from_millis(0));
        let limiter = Limiter::new(POLICY, clock.clone());
        for left in [2, 1, 0] {
            let standing = limiter.count("ada");
            assert!(standing.is_allowed());
            assert_eq!(standing.remaining, left);
        }
        let refused = limiter.count("ada");
        assert!(!refused.is_allowed());
        assert_eq!(refused.wait_seconds, 20);
        assert!(
            limiter.count("bob").is_allowed(),
            "everybody has a bucket of their own"
        );
        clock.advance_seconds(20);
        assert!(limiter.count("ada").is_allowed());
        assert!(!limiter.count("ada").is_allowed());
    }

    #[test]
    fn is_written_as_the_draft_has_it() {
        let limiter = Limiter::new(POLICY, Clock::manual(Time::from_millis(0)));
        let mut headers = axum::http::HeaderMap::new();
        limiter.count("ada").tell(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"test\";q=3;w=60");
        assert_eq!(headers["ratelimit"], "\"test\";r=2;t=20");
    }
}
