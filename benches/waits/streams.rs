//! Streams of events: what a reader costs who has nothing to read, and how long one event takes to reach all.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Scale;
use crate::harness::ask::ask;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::run::floor;
use crate::harness::seed::{Database, accounts, creations, tenant_id, tenants, token};
use crate::harness::served::{Folder, Served};

const MEMORY: f64 = 1.4;
const TIME: f64 = 2.0;
/// An account may have so many streams open.
const EACH: usize = 100;
const BARE: &str = "bare axum SSE";

/// Few readers and many.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let mut all = crowd(1_000, scale)?;
    if !scale.quick {
        all.extend(crowd(10_000, scale)?);
    }
    Ok(all)
}

/// Those who listen to one server.
struct Crowd {
    child: Child,
    said: RefCell<Lines<BufReader<ChildStdout>>>,
    count: usize,
}

impl Crowd {
    fn open(served: &Served, path: &str, count: usize) -> Outcome<Self> {
        let mut child = Command::new(floor("streams")?)
            .args(["listen", served.address(), path, &count.to_string()])
            .arg((count / EACH).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let crowd = Self {
            child,
            said: RefCell::new(BufReader::new(out).lines()),
            count,
        };
        crowd.wait_for("open")?;
        Ok(crowd)
    }

    fn wait_for(&self, word: &str) -> Outcome<()> {
        match self.said.borrow_mut().next() {
            Some(Ok(line)) if line == word => Ok(()),
            said => Err(format!("{} who listen said {said:?}, not `{word}`", self.count).into()),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn crowd(count: usize, scale: Scale) -> Outcome<Vec<Measured>> {
    let folder = Folder::new()?;
    let people = count / EACH;
    let database = Database::in_folder(folder.path());
    database.prepare(folder.path())?;
    let join = "INSERT INTO members (tenant_id, account_id, role, added_at)
        SELECT tenants.id, accounts.id, 'developer', 1 FROM tenants, accounts
        WHERE accounts.email LIKE 'user-%' AND accounts.id <> tenants.owner_id";
    database.run(
        &[
            accounts(people, people, "read secrets"),
            tenants(1, people, "pending"),
            vec![join.to_owned()],
            creations(1),
        ]
        .concat(),
    )?;
    let ours = database.serve(folder.path(), &["--max-streams", "20000"])?;
    let tenant = format!("{}/api/v1/tenants/{}", ours.url, tenant_id(1));
    let last = last_event(&tenant)?;
    let mut command = Command::new(floor("streams")?);
    command.arg("serve");
    let bare_folder = Folder::new()?;
    let bare = Served::start(command, bare_folder.path())?;

    let before = (ours.memory()?, bare.memory()?);
    let path = format!("/api/v1/tenants/{}/events?since={last}", tenant_id(1));
    let readers = Crowd::open(&ours, &path, count)?;
    let bare_readers = Crowd::open(&bare, "/events", count)?;
    let held = (ours.memory()? - before.0, bare.memory()? - before.1);
    let memory = Contest::new(
        format!("{count} idle readers of a history: memory"),
        Unit::Megabytes,
    )
    .with(Role::Ours, "systemprompt", || Ok(held.0))
    .with(Role::Floor, BARE, || Ok(held.1))
    .goal(BARE, MEMORY)
    .note("What the server's resident memory grew by when they came; one sample.")
    .run(1)?;

    let number = RefCell::new(0);
    let line = "x".repeat(230);
    let time = Contest::new(
        format!("one event to {count} readers: until the last has it"),
        Unit::Seconds,
    )
    .timed(Role::Ours, "systemprompt", || {
        *number.borrow_mut() += 1;
        let body = json!({ "key": format!("KEY_{}", number.borrow()), "value": "x" });
        ask("POST", &format!("{tenant}/secrets"), Some(&token(1)), Some(&body))?;
        readers.wait_for("all")
    })
    .timed(Role::Floor, BARE, || {
        ask("POST", &format!("{}/events", bare.url), None, Some(&json!(line)))?;
        bare_readers.wait_for("all")
    })
    .goal(BARE, TIME)
    .note("Ours with the transaction that writes the event, its audit line and a sealed secret.")
    .run(scale.rounds(9))?;
    Ok(vec![memory, time])
}

/// Waits until the tenant is made; answers the number of its last event.
fn last_event(tenant: &str) -> Outcome<u64> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let events = ask(
            "GET",
            &format!("{tenant}/events?limit=100"),
            Some(&token(1)),
            None,
        )?;
        let last = events["data"]
            .as_array()
            .and_then(|events| events.last().cloned());
        if let Some(last) = last.filter(|last| last["event"] == "infrastructure_ready") {
            return Ok(last["seq"].as_u64().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the tenant was not made".into())
}
