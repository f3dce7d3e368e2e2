//! Up to where a machine's output is kept, and how to go on from there. Pure: no calls.
//!
//! A provider can be asked for what was printed since a whole second. It answers in the order in which the lines were
//! written, which is always the same; so a count of the lines since that second says which of them are kept already.
//! Two streams of one machine are written side by side and may be a little out of order: hence the second before.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::server::providers::LogLine;

const NANOS: i64 = 1_000_000_000;

/// One thing that was written, with its time and what tells it from another of the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<T> {
    /// When, in nanoseconds since the epoch.
    pub(super) nanos: i64,
    digest: String,
    /// What was written.
    pub(super) what: T,
}

impl<T> Entry<T> {
    /// Something that was written at a time.
    pub(super) fn of(nanos: i64, identity: &str, what: T) -> Self {
        let mut digest = Sha256::new();
        digest.update(nanos.to_le_bytes());
        digest.update(identity);
        Self {
            nanos,
            digest: hex::encode(&digest.finalize()[..8]),
            what,
        }
    }
}

impl Entry<LogLine> {
    /// A line as the provider tells it. One without a time has that of the line before.
    pub(super) fn of_line(line: LogLine, before: i64) -> Self {
        let at = line.at.parse::<jiff::Timestamp>().ok();
        let nanos = at.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
        let identity = format!("{} {}", line.stream, line.line);
        Self::of(nanos.unwrap_or(before), &identity, line)
    }
}

/// Up to where output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The last second in which something was printed.
    second: i64,
    /// How much in the second before it, and how much in it.
    counts: (u32, u32),
    /// The latest time of all.
    latest: i64,
    /// The last line.
    last: String,
}

impl Position {
    /// Since when the provider is to be asked.
    pub(super) fn since(&self) -> Option<i64> {
        (self.expected() > 0).then_some(self.second - 1)
    }

    /// The latest time of all, in nanoseconds.
    pub(super) const fn latest(&self) -> i64 {
        self.latest
    }

    const fn expected(&self) -> u32 {
        self.counts.0 + self.counts.1
    }

    /// Takes what is kept from now on.
    pub(super) fn advance<T>(&mut self, entry: &Entry<T>) {
        let second = entry.nanos.div_euclid(NANOS);
        if self.expected() == 0 || second > self.second + 1 {
            (self.second, self.counts) = (second, (0, 1));
        } else if second > self.second {
            (self.second, self.counts) = (second, (self.counts.1, 1));
        } else if second == self.second {
            self.counts.1 += 1;
        } else if second == self.second - 1 {
            self.counts.0 += 1;
        }
        self.latest = self.latest.max(entry.nanos);
        self.last.clone_from(&entry.digest);
    }
}

/// Takes a stream that begins at [`Position::since`], and gives what is new in it.
#[derive(Debug)]
pub(super) struct Resume<T> {
    left: u32,
    held: Vec<Entry<T>>,
    last: String,
    latest: i64,
}

impl<T> Resume<T> {
    /// Goes on from `position`.
    pub(super) fn new(position: &Position) -> Self {
        Self {
            left: position.expected(),
            held: Vec::new(),
            last: position.last.clone(),
            latest: position.latest,
        }
    }

    /// Whether what is kept has not all come by yet.
    pub(super) const fn is_waiting(&self) -> bool {
        self.left > 0
    }

    /// The next of the stream; answers what is new.
    pub(super) fn take(&mut self, entry: Entry<T>) -> Vec<Entry<T>> {
        if self.left == 0 {
            return vec![entry];
        }
        self.left -= 1;
        let is_last = self.left == 0;
        let is_known = is_last && entry.digest == self.last;
        self.held.push(entry);
        if is_known {
            self.held.clear();
        }
        if is_last { self.give_up() } else { Vec::new() }
    }

    /// The stream is not the one that was left: a container of the same name, or one whose oldest lines are gone.
    /// What was printed later than everything that is kept is new.
    pub(super) fn give_up(&mut self) -> Vec<Entry<T>> {
        self.left = 0;
        let latest = self.latest;
        let held = std::mem::take(&mut self.held);
        held.into_iter().filter(|entry| entry.nanos > latest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{NANOS, Position, Resume};

    type Entry = super::Entry<()>;

    fn entry(nanos: i64, text: &str) -> Entry {
        Entry::of(nanos, text, ())
    }

    /// What the provider answers when it is asked for everything since a second.
    fn since(all: &[Entry], position: &Position) -> Vec<Entry> {
        let second = position.since().unwrap_or(i64::MIN);
        all.iter()
            .filter(|entry| entry.nanos.div_euclid(NANOS) >= second)
            .cloned()
            .collect()
    }

    fn resumed(stream: Vec<Entry>, position: &Position) -> Vec<Entry> {
        let mut resume = Resume::new(position);
        let mut new: Vec<Entry> = stream.into_iter().flat_map(|entry| resume.take(entry)).collect();
        new.extend(resume.give_up());
        new
    }

    /// Equal lines at equal times, seconds without lines, and a second stream that comes late.
    fn printed() -> Vec<Entry> {
        let times = [
            0,
            1,
            1,
            1,
            999_999_999,
            1_000_000_001,
            999_999_998,
            1_000_000_000,
            2_500_000_000,
            2_500_000_000,
            2_499_999_999,
            9_000_000_000,
            8_999_999_999,
            9_000_000_000,
            10_000_000_000,
            11_000_000_000,
        ];
        times.iter().map(|nanos| entry(*nanos, "same")).collect()
    }

    #[test]
    fn wherever_it_is_cut_nothing_is_lost_and_nothing_comes_twice() {
        let all = printed();
        for first in 0..=all.len() {
            for second in first..=all.len() {
                let mut position = Position::default();
                let mut kept: Vec<Entry> = Vec::new();
                for end in [first, second, all.len()] {
                    for new in resumed(since(&all[..end], &position), &position) {
                        position.advance(&new);
                        kept.push(new);
                    }
                    assert_eq!(kept, all[..end], "cut at {first}, {second}");
                }
            }
        }
    }

    #[test]
    fn another_container_of_the_same_name_is_read_from_its_beginning() {
        let mut position = Position::default();
        for old in [entry(5 * NANOS, "a"), entry(5 * NANOS + 1, "b")] {
            position.advance(&old);
        }
        let new = vec![
            entry(6 * NANOS, "a"),
            entry(6 * NANOS + 1, "b"),
            entry(6 * NANOS + 2, "c"),
        ];
        assert_eq!(resumed(since(&new, &position), &position), new);
        let few = vec![entry(6 * NANOS, "only")];
        assert_eq!(resumed(since(&few, &position), &position), few);
    }

    #[test]
    fn a_position_is_written_as_json() {
        let mut position = Position::default();
        position.advance(&entry(5 * NANOS, "a"));
        let text = serde_json::to_string(&position).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Position>(&text).expect("a position"),
            position
        );
    }
}
