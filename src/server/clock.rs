//! Time, ids and chance, passed in so that tests hold them still.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use uuid::Uuid;

use crate::api::time::Time;

/// Where time, ids and random bytes come from.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System(System),
    Manual(Mutex<Manual>),
}

#[derive(Debug, Default)]
struct System {
    /// How far it is put forward or back, in milliseconds; by tests only.
    moved: AtomicI64,
    /// The last id: its time and its chance, as one number.
    last: Mutex<u128>,
}

#[derive(Debug)]
struct Manual {
    millis: i64,
    drawn: u128,
}

/// Bits of a UUIDv7 that are neither its time nor its version.
const CHANCE_BITS: u32 = 74;
const CHANCE: u128 = (1 << CHANCE_BITS) - 1;
const STEP: u128 = u32::MAX as u128;
/// Those of them that lie behind the variant.
const TAIL_BITS: u32 = 62;
const TAIL: u128 = (1 << TAIL_BITS) - 1;

/// Puts version and variant between time and chance.
fn uuid_of(number: u128) -> Uuid {
    let (millis, chance) = (number >> CHANCE_BITS, number & CHANCE);
    Uuid::from_u128(
        (millis << 80) | (7 << 76) | ((chance >> TAIL_BITS) << 64) | (2 << TAIL_BITS) | (chance & TAIL),
    )
}

fn number_of(id: Uuid) -> u128 {
    let bits = id.as_u128();
    ((bits >> 80) << CHANCE_BITS) | (((bits >> 64) & 0xfff) << TAIL_BITS) | (bits & TAIL)
}

impl Clock {
    /// The machine's own clock and random source.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System(System::default())))
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
            Source::System(system) => {
                let moved = system.moved.load(Ordering::Relaxed);
                Time::from_millis(jiff::Timestamp::now().as_millisecond() + moved)
            }
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

    /// Puts a system clock so far forward, or back, from the machine's own, as an administrator might do; for tests.
    pub fn put(&self, seconds: i64) {
        if let Source::System(system) = &*self.0 {
            system.moved.store(seconds * 1000, Ordering::Relaxed);
        }
    }

    /// Every new id is later than this one, which another process has made: whatever the clock says meanwhile.
    pub fn continue_after(&self, id: Uuid) {
        if let Source::System(system) = &*self.0 {
            let mut last = system.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(number_of(id));
        }
    }

    /// A new UUIDv7 (RFC 9562 section 5.7), later than every one before it even if the clock has gone back since.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        match &*self.0 {
            Source::System(system) => {
                let millis = u128::try_from(self.now().as_millis()).unwrap_or(0);
                let chance = u128::from_be_bytes(self.random()) & CHANCE;
                let mut last = system.last.lock().unwrap_or_else(PoisonError::into_inner);
                // Within one millisecond, and while the clock is behind, it counts on: in steps that nobody can guess.
                *last = ((millis << CHANCE_BITS) | chance).max(*last + 1 + (chance & STEP));
                uuid_of(*last)
            }
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
            Source::System(_) => rand::rng().random(),
            Source::Manual(manual) => {
                let mut manual = manual.lock().unwrap_or_else(PoisonError::into_inner);
                manual.drawn += 1;
                let seed = manual.drawn;
                std::array::from_fn(|i| (seed as u8).wrapping_mul(31).wrapping_add(i as u8))
            }
        }
    }

    /// `N` random bytes as base64url without padding (RFC 4648 section 5) that begins and ends with a letter or a digit: it
    /// is never taken for an option on a command line, and a double click selects all of it. That costs less than a tenth
    /// of a bit.
    #[must_use]
    pub fn random_text<const N: usize>(&self) -> String {
        loop {
            let text = URL_SAFE_NO_PAD.encode(self.random::<N>());
            if text.starts_with(char::is_alphanumeric) && text.ends_with(char::is_alphanumeric) {
                return text;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, number_of, uuid_of};
    use crate::api::time::Time;

    #[test]
    fn texts_begin_and_end_with_letters_or_digits() {
        for clock in [Clock::system(), Clock::manual(Time::from_millis(1))] {
            let mut texts = std::collections::BTreeSet::new();
            for _ in 0..2000 {
                let text = clock.random_text::<48>();
                assert_eq!(text.len(), 64, "{text}");
                let edges = [&text[..1], &text[63..]].concat();
                assert!(edges.chars().all(|c| c.is_ascii_alphanumeric()), "{text}");
                texts.insert(text);
            }
            assert!(texts.len() > 200, "{}", texts.len());
        }
    }

    #[test]
    fn ids_are_of_version_7_and_carry_the_time() {
        let clock = Clock::system();
        let (before, id, after) = (clock.now(), clock.uuid(), clock.now());
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(uuid_of(number_of(id)), id);
        let millis = Time::from_millis((id.as_u128() >> 80) as i64);
        assert!(before <= millis && millis <= after);
    }

    #[test]
    fn ids_get_later_whatever_the_clock_does() {
        let clock = Clock::system();
        let mut last = clock.uuid();
        for hours in [0, -1, -1, 2, -100_000_000, 0, 3] {
            clock.put(hours * 3600);
            for _ in 0..1000 {
                let next = clock.uuid();
                assert!(next > last, "{next} after {last}, {hours} hours");
                last = next;
            }
        }
    }

    #[test]
    fn ids_go_on_after_those_of_another_process() {
        let ahead = Clock::system();
        ahead.put(3600);
        let known = ahead.uuid();
        let clock = Clock::system();
        assert!(clock.uuid() < known);
        clock.continue_after(known);
        assert!(clock.uuid() > known);
    }
}
