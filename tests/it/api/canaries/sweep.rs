//! What is planted, what is heard, and whether one is found in the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::cli::rig::Said;
use crate::gate::harness::{Answer, Client};

/// Files that are there to keep a secret, and inputs of this test: everything else is searched.
const KEEPS: [&str; 10] = [
    "master.key",
    "signing.key",
    "world.json",
    "secrets.json",
    "credentials.json",
    "canary.env",
    "admin-password",
    "database-url",
    "value",
    "oidc-secret",
];

/// The canaries, and all that was said in their hearing.
#[derive(Default)]
pub(super) struct Sweep {
    pub(super) canaries: Vec<(String, String)>,
    pub(super) heard: Vec<(String, String)>,
}

impl Sweep {
    /// A secret that nobody may find again.
    pub(super) fn plant(&mut self, name: &str, value: &str) {
        assert!(
            value.len() >= 12,
            "`{name}` is so short that it is found by chance"
        );
        self.canaries.push((name.to_owned(), value.to_owned()));
    }

    /// A made-up one.
    pub(super) fn make(&mut self, name: &str) -> String {
        let value = format!("canary{}of{name}", hex::encode(rand_bytes()));
        self.plant(name, &value);
        value
    }

    pub(super) fn hear(&mut self, place: &str, said: impl Into<String>) {
        self.heard.push((place.to_owned(), said.into()));
    }

    pub(super) fn hear_command(&mut self, place: &str, said: &Said) {
        self.hear(place, said.whole());
    }

    pub(super) fn hear_answer(&mut self, place: &str, answer: &Answer) {
        self.hear(place, format!("{:?}\n{}", answer.headers, answer.text()));
    }

    pub(super) async fn get(&mut self, client: &Client, path: &str) -> Answer {
        let answer = client.get(path).await;
        self.hear_answer(path, &answer);
        answer
    }

    /// Everything that holds a canary, in any of the ways in which it may be written.
    pub(super) fn found(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (canary, value) in &self.canaries {
            let ways = written(value);
            for (place, said) in &self.heard {
                if ways.iter().any(|way| said.contains(way.as_str())) {
                    found.insert(format!("{canary} in {place}"));
                }
            }
        }
        found
    }
}

fn rand_bytes() -> [u8; 8] {
    systemprompt::server::clock::Clock::system().random()
}

/// The text as it stands, in hexadecimal, and in base64 wherever it may begin.
fn written(value: &str) -> Vec<String> {
    let mut ways = vec![value.to_owned(), hex::encode(value)];
    for skipped in 0..3 {
        let bytes = &value.as_bytes()[skipped..];
        let whole = bytes.len() / 3 * 3;
        ways.push(STANDARD_NO_PAD.encode(&bytes[..whole]));
        ways.push(URL_SAFE_NO_PAD.encode(&bytes[..whole]));
    }
    ways
}

/// Looks at the arguments of every process of this machine until it is told to stop.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    seen: std::thread::JoinHandle<BTreeSet<String>>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let seen = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !told.load(Ordering::Relaxed) {
                for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                    if let Ok(line) = std::fs::read(process.path().join("cmdline")) {
                        seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { stop, seen }
    }

    pub(super) fn end(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.seen.join().expect("the watch");
        seen.into_iter().collect::<Vec<_>>().join("\n")
    }
}

/// Every file below the folder but those that are there to keep a secret.
pub(super) fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            files(&path, found);
        } else if !KEEPS.iter().any(|keeps| name == *keeps) {
            found.push(path);
        }
    }
}
