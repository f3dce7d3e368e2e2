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
    failing(CREATE, "edge.certificate", 1),
    going_on(&["tenant", "retry", "acme"]),
    failing(DELETE, "provider.remove_volume", 1),
    going_on(&["operation", "retry", "OPERATION"]),
    Act {
        breaks: true,
        ..act(&["server", "reconcile"])
    },
    failing(ROLLBACK, "provider.attach_traffic", 9),
    act(ROLLBACK),
];

/// In which order they are looked at: what needs a tenant comes while there is one.
pub(crate) const ORDER: [usize; 23] = [
    0, 1, 2, 3, 4, 5, 6, 7, 21, 22, 8, 9, 10, 11, 20, 12, 13, 14, 15, 16, 17, 18, 19,
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
];
const DEATHS: &[&[usize]] = &[&[15], &[18, 19]];

/// Acts in order, each with the place at which the server dies in it.
pub(crate) type Life = Vec<(usize, Option<String>)>;

/// Lives in which the server dies once at every place.
pub(crate) fn lives(mut places: Vec<VecDeque<String>>) -> VecDeque<Life> {
    let mut rounds = |groups: &[&[usize]]| {
        let mut rounds: VecDeque<Life> = VecDeque::new();
        for group in groups {
            while group.iter().any(|act| !places[*act].is_empty()) {
                let acts = group.iter().map(|act| (*act, places[*act].pop_front()));
                rounds.push_back(acts.collect());
            }
        }
        rounds
    };
    let (mut births, mut middles, mut deaths) = (rounds(BIRTHS), rounds(MIDDLES), rounds(DEATHS));
    let count = births.len().max(deaths.len());
    (0..count)
        .map(|number| {
            let mut life = births.pop_front().unwrap_or_else(|| vec![(0, None)]);
            let share = middles.len().div_ceil(count - number);
            life.extend(middles.drain(..share).flatten());
            life.extend(deaths.pop_front().unwrap_or_else(|| vec![(15, None)]));
            life
        })
        .collect()
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

    /// Performs an act; where a place is named the server dies there and is started again.
    pub(crate) fn perform(&mut self, number: usize, place: Option<&str>) {
        let act = &ALL[number];
        let what = match place {
            Some(place) => format!("{:?}, dying at `{place}`", act.command.join(" ")),
            None => act.command.join(" "),
        };
        let world = self.server.world();
        if act.breaks {
            let broken = |state: &mut State| {
                state.machines.clear();
                state.routes.clear();
            };
            world.change(broken).expect("the world");
        }
        if let Some((method, fault, times)) = act.fault {
            for nth in 1..=times {
                world.plan(method, nth, fault).expect("planned");
            }
        }
        let said = self.run(act.command, place, &what);
        world.change(|state| state.faults.clear()).expect("the world");
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

    fn run(&mut self, command: &[&str], place: Option<&str>, what: &str) -> Said {
        let last = match command.last() {
            Some(&"OPERATION") => self.last_operation(),
            _ => String::new(),
        };
        let words: Vec<&str> = command
            .iter()
            .map(|word| if *word == "OPERATION" { last.as_str() } else { word })
            .collect();
        if let Some(place) = place {
            self.server.arm(place);
        }
        let mut child = self.server.house.start(&words);
        let began = Instant::now();
        let mut died = false;
        while child.try_wait().expect("the command").is_none() {
            if self.server.is_dead() {
                died = true;
                self.server.kill();
                self.server.up();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: it comes to no end: {}",
                self.server.log()
            );
            std::thread::sleep(Duration::from_millis(3));
        }
        let said = finish(child);
        if place.is_some() && !died {
            // The last places lie after what the command waits for.
            while !self.server.is_dead() {
                let late = began.elapsed() > PATIENCE;
                assert!(!late, "{what}: it did not come there: {}", said.whole());
                std::thread::sleep(Duration::from_millis(3));
            }
            self.server.kill();
            self.server.up();
        }
        assert!(
            place.is_none() || self.server.has_fired(),
            "{what}: {}",
            self.server.log()
        );
        said
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
