//! What the fake world holds.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::server::world::fault::Fault;

/// All there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How often each method was called.
    pub calls: BTreeMap<String, u64>,
    /// What shall still go wrong: method, number of the call, fault.
    pub faults: Vec<(String, u64, Fault)>,
    /// Calls that wait until others were made: method, the other one, how often it must have been called.
    #[serde(default)]
    pub gates: Vec<(String, String, u64)>,
    /// What goes wrong by chance.
    #[serde(default)]
    pub chaos: Option<Chaos>,
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Images that were pulled.
    pub images: BTreeSet<String>,
    /// Machines by id.
    pub machines: BTreeMap<String, Machine>,
    /// Commands that ran once, by name.
    pub commands: BTreeMap<String, Command>,
    /// Tenant databases by tenant id.
    pub databases: BTreeMap<String, Database>,
    /// Labels that the edge knows.
    #[serde(default)]
    pub known: BTreeSet<String>,
    /// Routes of the edge: label and network.
    pub routes: BTreeMap<String, String>,
    /// What becomes of a label's requests at the edge: `v7`, `held`, `suspended`, `nobody`.
    #[serde(default)]
    pub traffic: BTreeMap<String, String>,
    /// Labels whose visitors are asked who they are.
    #[serde(default)]
    pub asked_first: BTreeSet<String>,
    /// The edge's access log: one document for each request that was answered.
    #[serde(default)]
    pub access: Vec<serde_json::Value>,
    /// Counts what was made, so that the newest can be told.
    pub made: u64,
}

/// A line that somebody printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// When, RFC 3339.
    pub at: String,
    /// Whether to `stderr`.
    pub is_error: bool,
    /// The line.
    pub text: String,
}

/// Faults by chance, the same ones for the same seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chaos {
    /// Of a hundred calls, so many go wrong in each of the four ways.
    pub percent: u64,
    /// Where the chance comes from; not 0.
    pub seed: u64,
}

impl Chaos {
    fn next(&mut self) -> Option<Fault> {
        // Marsaglia's xorshift64: chance enough for a test.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        match (self.seed >> 11) % 100 / self.percent.max(1) {
            _ if self.percent == 0 => None,
            0 => Some(Fault::Retry),
            1 => Some(Fault::LostReply),
            2 => Some(Fault::Delay { millis: 5 }),
            3 => Some(Fault::Fatal),
            _ => None,
        }
    }
}

/// A tenant's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whose.
    pub tenant: String,
    /// Its place in the address pool.
    pub slot: u32,
    /// Who is in it, besides machines: `postgres`, `edge`.
    pub attached: BTreeSet<String>,
}

/// A tenant's volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Whose.
    pub tenant: String,
}

/// A tenant's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Whose.
    pub tenant: String,
    /// The release that it runs.
    pub release: u32,
    /// With digest.
    pub image: String,
    /// Memory limit.
    pub memory_mb: u32,
    /// Names, and the SHA-256 of each value in hex.
    pub environment: BTreeMap<String, String>,
    /// What it was told to do.
    pub behaviour: Option<String>,
    /// Whether the edge finds it.
    pub traffic: bool,
    /// How often it was asked whether it is ready.
    pub probes: u32,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its place in the order of what was made.
    pub made: u64,
    /// What it has printed, besides what every machine prints.
    #[serde(default)]
    pub printed: Vec<Printed>,
    /// Whether its process was ended, or has not begun.
    #[serde(default)]
    pub is_ended: bool,
    /// Processor time that it has used, in microseconds.
    #[serde(default)]
    pub cpu_micros: u64,
    /// Memory that it uses.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// A command that ran once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Whose.
    pub tenant: String,
    /// For which release.
    pub release: u32,
    /// How it ended.
    pub exit_code: i64,
    /// How often it really ran: a second call must not raise it.
    pub runs: u32,
    /// What it printed.
    pub output: Vec<String>,
}

/// A tenant's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Login slot (`a`, `b`), the SHA-256 of its password in hex, and whether it may log in.
    pub logins: BTreeMap<String, (String, bool)>,
    /// Whether connections are allowed.
    pub connections: bool,
}

impl State {
    /// Counts a call of `method` and takes out the fault that is planned for it.
    pub fn count_call(&mut self, method: &str) -> Option<Fault> {
        let count = self.calls.entry(method.to_owned()).or_default();
        *count += 1;
        let now = *count;
        let planned = self
            .faults
            .iter()
            .position(|(name, nth, _)| name == method && *nth == now);
        match planned {
            Some(index) => Some(self.faults.remove(index).2),
            None => self.chaos.as_mut()?.next(),
        }
    }

    /// Plans a fault for the `nth` call of `method` from now on.
    pub fn plan(&mut self, method: &str, nth: u64, fault: Fault) {
        let so_far = self.calls.get(method).copied().unwrap_or(0);
        self.faults.push((method.to_owned(), so_far + nth, fault));
    }

    /// Whether a call of `method` waits for others.
    #[must_use]
    pub fn is_held(&self, method: &str) -> bool {
        self.gates.iter().any(|(held, other, count)| {
            held == method && self.calls.get(other).copied().unwrap_or(0) < *count
        })
    }

    /// A number for something new.
    pub fn next_made(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Everything that somebody would have to pay for or clean up, a line each.
    #[must_use]
    pub fn resources(&self) -> Vec<String> {
        let networks = self.networks.keys().map(|name| format!("network {name}"));
        let volumes = self.volumes.keys().map(|name| format!("volume {name}"));
        let machines = self.machines.keys().map(|name| format!("machine {name}"));
        let commands = self.commands.keys().map(|name| format!("command {name}"));
        let databases = self.databases.keys().map(|name| format!("database {name}"));
        let routes = self.routes.keys().map(|name| format!("route {name}"));
        let mut lines: Vec<String> = networks
            .chain(volumes)
            .chain(machines)
            .chain(commands)
            .chain(databases)
            .chain(routes)
            .collect();
        lines.sort();
        lines
    }
}
