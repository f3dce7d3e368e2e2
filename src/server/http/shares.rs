//! Tokens that this server has taken out of a bucket that all servers share, before they are asked for: whoever asks often
//! costs the database a statement now and then and not one for each request. None is given out twice, so nobody gets more
//! than the quota; at most five seconds' use, and a fiftieth of the quota, is taken and not used.

use std::collections::HashMap;

use crate::server::store::rate_limits::Count;

/// For so long tokens that were taken ahead are good, in milliseconds.
const GOOD_FOR: i64 = 10_000;
/// For so many seconds tokens are taken ahead: fewer than they are good for.
const AHEAD: u32 = 5;
/// In milliseconds.
const SECOND: i64 = 1000;
/// Callers are forgotten when there are so many.
const SWEEP_AT: usize = 10_000;

/// What was taken, by caller.
#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<String, Share>);

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    left: u32,
    full_at: i64,
    until: i64,
    /// How often they asked since this moment, and in the second before.
    since: i64,
    asked: u32,
    before: u32,
}

impl Shares {
    /// A token that was taken ahead, or how many to take now: at most `most`, each filling the bucket for `cost`.
    pub(super) fn next(&mut self, caller: &str, (most, cost): (u32, i64), now: i64) -> Result<Count, u32> {
        if self.0.len() >= SWEEP_AT {
            self.0.retain(|_, share| share.until > now);
        }
        let share = match self.0.get_mut(caller) {
            Some(share) => share,
            None => self.0.entry(caller.to_owned()).or_default(),
        };
        let passed = now.saturating_sub(share.since);
        if !(0..SECOND).contains(&passed) {
            share.before = if (0..2 * SECOND).contains(&passed) {
                share.asked
            } else {
                0
            };
            share.asked = 0;
            share.since = now;
        }
        share.asked += 1;
        if share.until <= now || share.until > now.saturating_add(GOOD_FOR) {
            share.left = 0;
        }
        if share.left == 0 {
            // Who asks once a second, or less often, may never come again.
            let wanted = match share.asked.max(share.before) {
                0 | 1 => 1,
                often => often.saturating_mul(AHEAD),
            };
            return Err(wanted.min(most.max(1)));
        }
        share.left -= 1;
        Ok(Count {
            allowed: true,
            full_at: share.full_at - i64::from(share.left) * cost,
        })
    }

    /// So many were taken, of which one is used at once; says how the bucket stands for whoever asked.
    pub(super) fn took(&mut self, caller: &str, (taken, cost): (u32, i64), full_at: i64, now: i64) -> Count {
        let share = self.0.entry(caller.to_owned()).or_default();
        if taken > 1 {
            share.left += taken - 1;
            share.until = now.saturating_add(GOOD_FOR);
        }
        share.full_at = share.full_at.max(full_at);
        Count {
            allowed: true,
            full_at: full_at - i64::from(taken - 1) * cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn who_asks_seldom_takes_one_at_a_time() {
        let mut shares = Shares::default();
        for second in 0..100 {
            assert_eq!(shares.next("ada", (60, 20), second * 1000), Err(1));
            shares.took("ada", (1, 20), second * 1000 + 20, second * 1000);
        }
    }

    #[test]
    fn who_asks_some_times_a_second_seldom_needs_the_database() {
        let mut shares = Shares::default();
        let mut statements = 0;
        for ask in 0..600 {
            if let Err(wanted) = shares.next("ada", (60, 20), ask * 166) {
                statements += 1;
                shares.took("ada", (wanted, 20), ask * 166, ask * 166);
            }
        }
        assert!(statements <= 30, "{statements} statements for 600 requests");
    }

    #[test]
    fn who_asks_often_takes_some_and_loses_few() {
        let mut shares = Shares::default();
        let (mut taken, mut used, mut statements) = (0, 0, 0);
        for millis in 0..10_000 {
            used += 1;
            if let Err(wanted) = shares.next("ada", (60, 20), millis) {
                statements += 1;
                taken += wanted;
                shares.took("ada", (wanted, 20), millis, millis);
            }
        }
        assert!(taken >= used && taken - used < 60, "{taken} taken, {used} used");
        assert!(statements < 250, "{statements} statements for {used}");
        // What is left is good for ten seconds.
        assert!(shares.next("ada", (60, 20), 20_001).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let mut shares = Shares::default();
        shares.took("ada", (10, 20), 200, 100_000);
        assert!(shares.next("ada", (60, 20), 5000).is_err());
    }
}
