//! Points of metrics: how they are written into a block, read from it, and added up. Pure: no calls.
//!
//! A block is a row of entries `<place><kind><numbers>;`. `u` is a sample of what is used (processor time in thousandths
//! of one processor, memory in KiB), `r` counts requests (class `:` how many, then `|`, then bucket of latency `:` how
//! many). A place may have many entries: samples are averaged, requests are added.

use std::collections::BTreeMap;

use crate::api::metrics::{Latency, Requests, StatusClasses};

/// The upper ends of the latency histogram's buckets, in milliseconds: each about 1.2 times the one before.
const BOUNDS: [u64; 46] = [
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 48, 58, 70, 85, 102, 123, 148, 178, 214, 257, 309,
    371, 446, 536, 644, 773, 928, 1114, 1337, 1605, 1926, 2312, 2775, 3330, 3996, 4796, 6000, 10_000, 20_000,
    40_000, 80_000,
];

/// What was seen in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Samples of processor time: how many, and their sum.
    cpu: (u64, u64),
    /// The most memory of all samples, in KiB.
    memory_kib: Option<u64>,
    pub(super) counts: Counts,
}

/// Requests of some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    classes: BTreeMap<u16, u64>,
    buckets: BTreeMap<usize, u64>,
}

/// One sample of what is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// In thousandths of one processor; unknown for the first sample of a machine.
    pub(super) cpu_permille: Option<u64>,
    /// In bytes.
    pub(super) memory_bytes: u64,
}

impl Sample {
    /// As an entry of a block.
    pub(super) fn entry(&self, place: u32) -> String {
        let cpu = self.cpu_permille.map(|cpu| cpu.to_string()).unwrap_or_default();
        format!("{place}u{cpu},{};", self.memory_bytes / 1024)
    }
}

impl Counts {
    /// Counts one more.
    pub(super) fn add(&mut self, status: u16, millis: u64) {
        *self.classes.entry(status / 100).or_default() += 1;
        let bucket = BOUNDS
            .iter()
            .position(|bound| millis <= *bound)
            .unwrap_or(BOUNDS.len());
        *self.buckets.entry(bucket).or_default() += 1;
    }

    /// As an entry of a block; empty when there is nothing.
    pub(super) fn entry(&self, place: u32) -> String {
        if self.classes.is_empty() {
            return String::new();
        }
        let classes: Vec<String> = self
            .classes
            .iter()
            .map(|(class, count)| format!("{class}:{count}"))
            .collect();
        let buckets: Vec<String> = self
            .buckets
            .iter()
            .map(|(bucket, count)| format!("{bucket}:{count}"))
            .collect();
        format!("{place}r{}|{};", classes.join(","), buckets.join(","))
    }

    /// Adds all of the other.
    pub(super) fn merge(&mut self, other: &Self) {
        for (class, count) in &other.classes {
            *self.classes.entry(*class).or_default() += count;
        }
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// As the API shows them.
    pub(super) fn shown(&self, seconds: f64) -> Requests {
        let class = |class: u16| self.classes.get(&class).copied().unwrap_or(0);
        let count: u64 = self.classes.values().sum();
        let status = StatusClasses {
            other: count - class(2) - class(3) - class(4) - class(5),
            success: class(2),
            redirect: class(3),
            client_error: class(4),
            server_error: class(5),
        };
        let latency = (count > 0).then(|| Latency {
            p50_ms: self.quantile(50),
            p95_ms: self.quantile(95),
            p99_ms: self.quantile(99),
        });
        Requests {
            count,
            per_second: rounded(as_float(count) / seconds, 100.0),
            status,
            latency,
        }
    }

    /// The upper end of the bucket in which the request is that `percent` of all are not slower than.
    fn quantile(&self, percent: u64) -> u64 {
        let all: u64 = self.buckets.values().sum();
        let rank = (all * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return BOUNDS.get(*bucket).copied().unwrap_or(BOUNDS[BOUNDS.len() - 1]);
            }
        }
        0
    }
}

impl Seen {
    /// Adds all of the other, which was seen in the same step or a part of it.
    pub(super) fn merge(&mut self, other: &Self) {
        self.cpu = (self.cpu.0 + other.cpu.0, self.cpu.1 + other.cpu.1);
        self.memory_kib = self.memory_kib.max(other.memory_kib);
        self.counts.merge(&other.counts);
    }

    /// As entries of a block.
    pub(super) fn entries(&self, place: u32) -> String {
        let mut text = String::new();
        if let Some(memory_kib) = self.memory_kib {
            let sample = Sample {
                cpu_permille: self.cpu.1.checked_div(self.cpu.0),
                memory_bytes: memory_kib * 1024,
            };
            text.push_str(&sample.entry(place));
        }
        text.push_str(&self.counts.entry(place));
        text
    }

    /// Processor time in percent of one processor.
    pub(super) fn cpu_percent(&self) -> Option<f64> {
        (self.cpu.0 > 0).then(|| rounded(as_float(self.cpu.1) / as_float(self.cpu.0) / 10.0, 10.0))
    }

    /// Memory in use.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        self.memory_kib.map(|kib| kib * 1024)
    }
}

/// What a block holds, by place. An entry that cannot be read is left out.
pub(super) fn read(block: &str) -> BTreeMap<u32, Seen> {
    let mut all: BTreeMap<u32, Seen> = BTreeMap::new();
    for entry in block.split_terminator(';') {
        if let Some((place, seen)) = read_entry(entry) {
            all.entry(place).or_default().merge(&seen);
        }
    }
    all
}

fn read_entry(entry: &str) -> Option<(u32, Seen)> {
    let kind = entry.find(['u', 'r'])?;
    let place = entry[..kind].parse().ok()?;
    let numbers = &entry[kind + 1..];
    let mut seen = Seen::default();
    if entry[kind..].starts_with('u') {
        let (cpu, memory) = numbers.split_once(',')?;
        seen.cpu = cpu.parse().map_or((0, 0), |cpu| (1, cpu));
        seen.memory_kib = Some(memory.parse().ok()?);
    } else {
        let (classes, buckets) = numbers.split_once('|')?;
        seen.counts.classes = pairs(classes)?.into_iter().collect();
        seen.counts.buckets = pairs(buckets)?.into_iter().collect();
    }
    Some((place, seen))
}

fn pairs<K: std::str::FromStr>(text: &str) -> Option<Vec<(K, u64)>> {
    text.split(',')
        .map(|pair| {
            let (key, count) = pair.split_once(':')?;
            Some((key.parse().ok()?, count.parse().ok()?))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52 here")]
pub(super) const fn as_float(number: u64) -> f64 {
    number as f64
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::{Counts, Sample, read};

    #[test]
    fn entries_of_a_place_are_added_up() {
        let mut counts = Counts::default();
        for millis in [0, 1, 3, 7, 40, 41, 90_000] {
            counts.add(200, millis);
        }
        counts.add(503, 2);
        counts.add(0, 2);
        let sample = |cpu_permille, memory_kib: u64| Sample {
            cpu_permille,
            memory_bytes: memory_kib * 1024,
        };
        let block = [
            sample(None, 2000).entry(3),
            counts.entry(3),
            sample(Some(100), 1000).entry(3),
            sample(Some(201), 1500).entry(3),
            counts.entry(3),
            counts.entry(19),
            Counts::default().entry(4),
        ];
        assert_eq!(
            block.concat(),
            "3u,2000;3r0:1,2:7,5:1|0:2,1:2,2:1,6:1,14:1,15:1,46:1;3u100,1000;3u201,1500;\
             3r0:1,2:7,5:1|0:2,1:2,2:1,6:1,14:1,15:1,46:1;19r0:1,2:7,5:1|0:2,1:2,2:1,6:1,14:1,15:1,46:1;"
        );
        let seen = read(&block.concat());
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [3, 19]);
        assert_eq!(seen[&3].cpu_percent(), Some(15.1));
        assert_eq!(seen[&3].memory_bytes(), Some(2000 * 1024));
        let shown = seen[&3].counts.shown(15.0);
        assert_eq!((shown.count, shown.per_second), (18, 1.2));
        assert_eq!(
            (
                shown.status.success,
                shown.status.server_error,
                shown.status.other
            ),
            (14, 2, 2)
        );
        let latency = shown.latency.expect("there were requests");
        assert_eq!(
            (latency.p50_ms, latency.p95_ms, latency.p99_ms),
            (3, 80_000, 80_000)
        );
        // The sum of a place says the same.
        assert_eq!(read(&seen[&3].entries(7))[&7].counts, seen[&3].counts);
        assert_eq!(seen[&19].cpu_percent(), None);
    }

    #[test]
    fn nonsense_is_left_out() {
        assert!(read("u;xr;3z4;;9u;9r|;").is_empty());
    }
}
