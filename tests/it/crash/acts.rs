//! What is done to a tenant from its birth to its end, each act by a command of its own.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use systemprompt::server::world::{Fault, State};

use crate::api::rig::client;
use crate::cli::rig::{Said, Server, finish};
use crate::crash::check::check;
use crate::sagas::proofs::block_on;

/// Long enough for a busy machine; an act that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(90);
/// More often than a server dies in one act: a repeated step fails as the first one did.
const ALWAYS: u64 = 8;

/// One command, and how it ends whatever happens to the server meanwhile.
pub(crate) struct Act {
    /// Its words; `OPERATION` stands for the tenant's last operation.
    command: &'static [&'static str],
    /// A call that fails, so often.
    fault: Option<(&'static str, Fault, u64)>,
    /// Its exit code.
    code: i32,
    /// How many operations the tenant has more afterwards.
    queues: usize,
    /// Whether the machine and the way to it are taken away by hand before.
    breaks: bool,
}

const fn act(command: &'static [&'static str]) -> Act {
    Act {
        command,
        fault: None,
        code: 0,
        queues: 1,
        breaks: false,
    }
}

const fn failing(command: &'static [&'static str], method: &'static str, code: i32) -> Act {
    Act {
        fault: Some((method, Fault::Fatal, ALWAYS)),
        code,
        ..act(command)
    }
}

const fn once(command: &'static [&'static str], method: &'static str, fault: Fault) -> Act {
    Act {
        fault: Some((method, fault, 1)),
        ..act(command)
    }
}

const fn going_on(command: &'static [&'static str]) -> Act {
    Act {
        queues: 0,
        ..act(command)
    }
}

const CERTIFICATE: &str = "edge.certificate";
/// What a creation does beside it.
const BESIDE: [&str; 4] = [
    "provider.create_volume",
    "edge.join",
    "databases.create",
    "databases.attach",
];
const CREATE: &[&str] = &["tenant", "create", "acme", "--plan", "free", "--yes"];
const DEPLOY: &[&str] = &["deploy", "--image", "current", "--tenant", "acme", "--yes"];
const RESTART: &[&str] = &["tenant", "restart", "acme"];
const SECRET: &[&str] = &[
    "secrets",
    "set",
    "OPENAI_API_KEY",
    "--from-file",
    "value",
    "--tenant",
    "acme",
];
const ROTATE: &[&str] = &["tenant", "edit", "acme", "--rotate-credentials"];
const ACTIVATE: &[&str] = &["tenant", "edit", "acme", "--activate"];
const ROLLBACK: &[&str] = &["rollback", "v1", "--tenant", "acme", "--yes"];
const DELETE: &[&str] = &["tenant", "delete", "acme", "--yes"];

/// Every act, in an order in which one house can have them all.
pub(crate) static ALL: &[Act] = &[
    act(CREATE),
    act(DEPLOY),
    failing(DEPLOY, "provider.attach_traffic", 9),
    act(RESTART),
    once(RESTART, "provider.start_machine", Fault::Retry),
    once(RESTART, "provider.start_machine", Fault::LostReply),
    failing(RESTART, "provider.attach_traffic", 1),
    act(SECRET),
    act(&["tenant", "edit", "acme", "--memory", "512"]),
    act(&["tenant", "edit", "acme", "--memory", "256"]),
    act(ROTATE),
    failing(ROTATE, "provider.attach_traffic", 1),
    act(&["tenant", "edit", "acme", "--suspend"]),
    failing(ACTIVATE, "provider.attach_traffic", 1),
    act(ACTIVATE),
    act(DELETE),
    failing(CREATE, CERTIFICATE, 1),
    going_on(&["tenant", "retry", "acme"]),
    failing(DELETE, "provider.remove_volume", 1),
    going_on(&["operation", "retry", "OPERATION"]),
    Act {
        breaks: true,
        ..act(&["server", "reconcile"])
    },
    failing(ROLLBACK, "provider.attach_traffic", 9),
    act(ROLLBACK),
    act(&["tenant", "sessions", "on", "--tenant", "acme"]),
    act(&["tenant", "sessions", "off", "--tenant", "acme"]),
    act(&["tenant", "edit", "acme", "--rotate-jwt-secret"]),
    act(&["tenant", "edit", "acme", "--end-jwt-overlap"]),
];

/// In which order they are looked at: what needs a tenant comes while there is one.
pub(crate) const ORDER: [usize; 27] = [
    0, 1, 2, 3, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 23, 24, 25, 26, 20, 12, 13, 14, 15, 16, 17, 18, 19,
];

/// Which of them belong together: how a life begins, what may come in it, how it ends.
const BIRTHS: &[&[usize]] = &[&[0], &[16, 17]];
const MIDDLES: &[&[usize]] = &[
    &[1],
    &[2],
    &[3],
    &[4],
    &[5],
    &[6],
    &[7, 21, 22],
    &[8, 9],
    &[10],
    &[11],
    &[12, 13, 14],
    &[20],
    &[23, 24],
    &[25, 26],
];
const DEATHS: &[&[usize]] = &[&[15], &[18, 19]];

/// In one act the server dies at most so often, each time in another step: steps are tried so often only.
const DEATHS_IN_ONE: usize = 4;
/// What a step comes to only where something goes wrong in it: after a death it may go right.
const BY_CHANCE: [&str; 3] = ["retrying", "failing", "giving-back"];

/// Acts in order, each with the places at which the server dies in it, one after the other.
pub(crate) type Life = Vec<(usize, Vec<String>)>;

/// Lives in which the server dies once at every place.
pub(crate) fn lives(mut places: Vec<VecDeque<String>>) -> VecDeque<Life> {
    let mut rounds = |groups: &[&[usize]]| {
        let mut rounds: VecDeque<Life> = VecDeque::new();
        for group in groups {
            while group.iter().any(|act| !places[*act].is_empty()) {
                let acts = group.iter().map(|act| (*act, next_places(&mut places[*act])));
                rounds.push_back(acts.collect());
            }
        }
        rounds
    };
    let (mut births, mut middles, mut deaths) = (rounds(BIRTHS), rounds(MIDDLES), rounds(DEATHS));
    let count = births.len().max(deaths.len());
    (0..count)
        .map(|number| {
            let mut life = births.pop_front().unwrap_or_else(|| vec![(0, Vec::new())]);
            let share = middles.len().div_ceil(count - number);
            life.extend(middles.drain(..share).flatten());
            life.extend(deaths.pop_front().unwrap_or_else(|| vec![(15, Vec::new())]));
            life
        })
        .collect()
}

/// The next place; where it is one of a step, with places of later steps that an operation comes to all the same.
fn next_places(places: &mut VecDeque<String>) -> Vec<String> {
    let mut taken: Vec<String> = places.pop_front().into_iter().collect();
    let Some((way, first)) = taken.first().and_then(|place| step_of(place)) else {
        return taken;
    };
    let (way, mut steps) = (way.to_owned(), vec![first.to_owned()]);
    while taken.len() < DEATHS_IN_ONE {
        let is_next = |place: &String| {
            step_of(place).is_some_and(|(other, step)| other == way && !steps.iter().any(|seen| seen == step))
        };
        let Some(next) = places.iter().position(is_next).and_then(|at| places.remove(at)) else {
            break;
        };
        steps.extend(step_of(&next).map(|(_, step)| step.to_owned()));
        taken.push(next);
    }
    taken
}

/// The operation of a place, with its direction, and the step; `None` where it is no place of a step.
fn step_of(place: &str) -> Option<(String, &str)> {
    let (scope, what) = place.split_once(':')?;
    if scope.contains(' ') || BY_CHANCE.contains(&what) {
        return None;
    }
    let (kind, step) = scope.split_once('/')?;
    Some(match step.strip_suffix("/undo") {
        Some(step) => (format!("{kind}, back"), step),
        // They run side by side: when the server dies in one of them, any of the others may be over.
        None if kind == "create-tenant" && step != "start" => (kind.to_owned(), "all others"),
        None => (kind.to_owned(), step),
    })
}

/// A server, and somebody who has one tenant on it.
pub(crate) struct House {
    pub(crate) server: Server,
    /// How many operations the tenant has.
    operations: usize,
}

impl House {
    pub(crate) fn new() -> Self {
        let server = Server::start_watched();
        server.house.put("value", "a value");
        Self {
            server,
            operations: 0,
        }
    }

    /// Performs an act; where places are named the server dies there and is started again.
    pub(crate) fn perform(&mut self, number: usize, places: &[String]) {
        let act = &ALL[number];
        let what = match places {
            [] => act.command.join(" "),
            _ => format!("{:?}, dying at `{}`", act.command.join(" "), places.join("`, `")),
        };
        let world = self.server.world();
        if act.breaks {
            let broken = |state: &mut State| {
                state.machines.clear();
                state.routes.clear();
            };
            world.change(broken).expect("the world");
        }
        if act.fault.is_some_and(|(method, ..)| method == CERTIFICATE) {
            // Whatever the creation makes is begun by then, so that all of it is to be taken back.
            world.hold(CERTIFICATE, &BESIDE).expect("planned");
        }
        if let Some((method, fault, times)) = act.fault {
            for nth in 1..=times {
                world.plan(method, nth, fault).expect("planned");
            }
        }
        let said = self.run(act.command, places, &what);
        let clear = |state: &mut State| {
            state.faults.clear();
            state.gates.clear();
        };
        world.change(clear).expect("the world");
        assert_eq!(
            said.code,
            Some(act.code),
            "{what}: {}{}",
            said.whole(),
            self.server.log()
        );
        self.operations = match number {
            0 | 16 => 1,
            _ => self.operations + act.queues,
        };
        // Who asks for a repair again may find that it is done.
        let follows = !act.breaks;
        block_on(check(
            &self.server,
            follows.then_some(&said),
            (self.operations, &what),
        ));
    }

    /// What a life goes on with: a new tenant gets its first release.
    pub(crate) fn settle(&mut self, number: usize) {
        if matches!(number, 0 | 17) {
            self.first_release();
        }
    }

    fn run(&mut self, command: &[&str], places: &[String], what: &str) -> Said {
        let last = match command.last() {
            Some(&"OPERATION") => self.last_operation(),
            _ => String::new(),
        };
        let words: Vec<&str> = command
            .iter()
            .map(|word| if *word == "OPERATION" { last.as_str() } else { word })
            .collect();
        let mut left = places.iter();
        if let Some(place) = left.next() {
            self.server.arm(place);
        }
        let mut child = self.server.house.start(&words);
        let began = Instant::now();
        let mut deaths = 0;
        while child.try_wait().expect("the command").is_none() {
            if self.server.is_dead() {
                deaths += 1;
                self.revive(left.next(), what);
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: it comes to no end: {}",
                self.server.log()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
        let said = finish(child);
        // The last places lie after what the command waits for.
        while deaths < places.len() {
            let late = began.elapsed() > PATIENCE;
            assert!(!late, "{what}: it did not come there: {}", said.whole());
            if self.server.is_dead() {
                deaths += 1;
                self.revive(left.next(), what);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        said
    }

    /// Starts the server again, which dies at the next place.
    fn revive(&mut self, next: Option<&String>, what: &str) {
        assert!(self.server.has_fired(), "{what}: {}", self.server.log());
        self.server.kill();
        match next {
            // It may come there before it listens.
            Some(place) => {
                self.server.arm(place);
                self.server.try_up(0, &[]);
            }
            None => self.server.up(),
        }
    }

    fn last_operation(&self) -> String {
        let said = self.server.run(&["tenant", "status", "acme", "--json"]).ok();
        let id = &said.json()["current_operation"]["id"];
        id.as_str().expect("an operation").to_owned()
    }

    /// Pushes an image through the gate and releases it.
    fn first_release(&mut self) {
        let token = self.server.token_of_house();
        let caller = client(&self.server, Some(&format!("Bearer {token}")));
        let said = self.server.run(&["tenant", "show", "acme", "--json"]).ok();
        let id = said.json()["tenant"]["id"].as_str().expect("an id").to_owned();
        block_on(async {
            let begun = caller.deploy(&format!("/api/v1/tenants/{id}"), "v1").await;
            caller.succeeded(&begun).await;
        });
        self.operations += 1;
    }
}
