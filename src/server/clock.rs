//! Time, ids and chance, passed in so that tests hold them still.

use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt as _;
use uuid::Uuid;

use crate::api::time::Time;

/// Where time, ids and random bytes come from.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    Manual(Mutex<Manual>),
}

#[derive(Debug)]
struct Manual {
    millis: i64,
    drawn: u128,
}

impl Clock {
    /// The machine's own clock and random source.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that stands at `start` and counts its ids, for tests.
    #[must_use]
    pub fn manual(start: Time) -> Self {
        Self(Arc::new(Source::Manual(Mutex::new(Manual {
            millis: start.as_millis(),
            drawn: 0,
        }))))
    }

    /// The time now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everybody else is told to use"
    )]
    pub fn now(&self) -> Time {
        match &*self.0 {
            Source::System => Time::from_millis(jiff::Timestamp::now().as_millisecond()),
            Source::Manual(manual) => {
                Time::from_millis(manual.lock().unwrap_or_else(PoisonError::into_inner).millis)
            }
        }
    }

    /// Moves a manual clock; a system clock stays as it is.
    pub fn advance_seconds(&self, seconds: i64) {
        if let Source::Manual(manual) = &*self.0 {
            manual.lock().unwrap_or_else(PoisonError::into_inner).millis += seconds * 1000;
        }
    }

    /// A new UUIDv7 (RFC 9562 section 5.7), later than every one before it.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        match &*self.0 {
            Source::System => Uuid::now_v7(),
            Source::Manual(manual) => {
                let mut manual = manual.lock().unwrap_or_else(PoisonError::into_inner);
                manual.drawn += 1;
                Uuid::from_u128(((manual.millis as u128) << 80) | manual.drawn)
            }
        }
    }

    /// `N` random bytes fit for keys and tokens.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        match &*self.0 {
            Source::System => rand::rng().random(),
            Source::Manual(manual) => {
                let mut manual = manual.lock().unwrap_or_else(PoisonError::into_inner);
                manual.drawn += 1;
                let seed = manual.drawn;
                std::array::from_fn(|i| (seed as u8).wrapping_mul(31).wrapping_add(i as u8))
            }
        }
    }
}
