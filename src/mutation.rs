//! Feeds parsers of outside bytes with mutated examples: an ordinary test for a moment, a fuzzer for as long as
//! `FUZZ_SECONDS` says.
//!
//! In place of coverage, which needs another build of every dependency, an input whose answer looks new is mutated further.
//! Built with `--cfg fuzzing` (`scripts/fuzz-parsers`), the same tests hand their parsers to libFuzzer.

#![cfg_attr(fuzzing, expect(dead_code, unused_imports, reason = "libFuzzer has its own"))]

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How long an ordinary run takes with one parser.
const MOMENT: Duration = Duration::from_millis(250);
/// An input that takes longer is a fault, as one that panics is.
const PATIENCE: Duration = Duration::from_secs(2);
const LONGEST: usize = 4096;
const KEPT: usize = 2000;
/// What parsers stumble over.
const PIECES: [&[u8]; 38] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"18446744073709551616",
    b"4294967296",
    b"9223372036854775807",
    b"\0",
    b"\r\n",
    b"\n\n",
    b"\\",
    b"\"",
    b"'",
    b"`",
    b"$",
    b"#",
    b"=",
    b"*",
    b"**",
    b"?",
    b"[",
    b"]",
    b"[^",
    b"!",
    b"..",
    b"../",
    b"/",
    b"//",
    b"%2e%2e%2f",
    b":",
    b"@",
    b"sha256:",
    b"{",
    b"}",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"<<EOF\n",
];

/// Chance that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long tests try is no setting of the program"
)]
fn budget() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok());
    seconds.map_or(MOMENT, Duration::from_secs)
}

/// Gives `parse` the seeds, then whatever covers more of it.
#[cfg(fuzzing)]
#[expect(
    clippy::disallowed_methods,
    reason = "where what is found goes is no setting of the program"
)]
pub(crate) fn torment<T: Debug>(seeds: &[&[u8]], parse: impl Fn(&[u8]) -> T) {
    let found = std::env::var("FUZZ_FOUND").expect("`scripts/fuzz-parsers` says where");
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("main").replace("::", "-");
    let folder = std::path::Path::new(&found).join(name);
    fuzzing::run(seeds, budget(), &folder, &|bytes| {
        std::hint::black_box(parse(bytes));
    })
}

/// Gives `parse` the seeds, then mutants of them. It must neither panic nor dawdle.
#[cfg(not(fuzzing))]
pub(crate) fn torment<T: Debug>(seeds: &[&[u8]], parse: impl Fn(&[u8]) -> T) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut pool: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    let mut seen = HashSet::new();
    for seed in seeds {
        seen.insert(tried(seed, &parse));
    }
    let (began, budget, mut count) = (Instant::now(), budget(), 0_u64);
    while began.elapsed() < budget {
        let mut input = pool[dice.roll(pool.len())].clone();
        for _ in 0..=dice.roll(4) {
            mutate(&mut input, &pool, &mut dice);
        }
        input.truncate(LONGEST);
        if seen.insert(tried(&input, &parse)) && pool.len() < KEPT {
            pool.push(input);
        }
        count += 1;
    }
    assert!(count > 0, "no mutant was tried");
}

/// What the parser makes of it, as a number.
fn tried<T: Debug>(input: &[u8], parse: &impl Fn(&[u8]) -> T) -> u64 {
    let began = Instant::now();
    let answer = catch_unwind(AssertUnwindSafe(|| format!("{:?}", parse(input))));
    let answer = answer.unwrap_or_else(|_| panic!("it panics at {:?}", String::from_utf8_lossy(input)));
    let took = began.elapsed();
    assert!(
        took < PATIENCE,
        "{took:?} for {:?}",
        String::from_utf8_lossy(input)
    );
    // What was read differs with every input; its form does not.
    let mut hasher = DefaultHasher::new();
    let form: String = answer.chars().filter(|c| !c.is_ascii_digit()).take(200).collect();
    form.hash(&mut hasher);
    hasher.finish()
}

fn mutate(input: &mut Vec<u8>, pool: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.roll(input.len() + 1);
    let to = at + dice.roll(input.len() - at + 1);
    match dice.roll(8) {
        0 if at < input.len() => input[at] ^= 1 << dice.roll(8),
        1 => input.insert(at, dice.roll(256) as u8),
        2 => drop(input.drain(at..to)),
        3 => {
            let again = input[at..to].to_vec();
            input.splice(to..to, again);
        }
        4 => {
            let other = &pool[dice.roll(pool.len())];
            let from = dice.roll(other.len() + 1);
            input.splice(at..to, other[from..].iter().copied());
        }
        5 => input.truncate(at),
        6 => {
            let piece = PIECES[dice.roll(PIECES.len())];
            for _ in 0..=dice.roll(3) * dice.roll(30) {
                input.splice(at..at, piece.iter().copied());
            }
        }
        _ => {
            let piece = PIECES[dice.roll(PIECES.len())];
            input.splice(at..to, piece.iter().copied());
        }
    }
}

#[cfg(not(fuzzing))]
mod tests {
    use super::torment;

    #[test]
    #[should_panic(expected = "it panics at")]
    fn outside_bytes_that_make_a_parser_panic_are_found() {
        torment(&[b"key=value", b"other=1"], |bytes| {
            assert!(!bytes.windows(2).any(|two| two == b"=="), "two of them");
            bytes.len()
        });
    }
}
