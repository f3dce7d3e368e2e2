//! Lines of releases, of their commands, with every kind of question; and what becomes of them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command};

use systemprompt::api::log::LogSource;
use systemprompt::api::time::Time;
use systemprompt::server::store::log_chunks;
use systemprompt::server::store::log_lines::KeptLine;

use crate::api::rig::{PATIENCE, open_connections};
use crate::cli::answers::snapshot;
use crate::cli::rig::finish;
use crate::observe::rig::Place;

const LOGS: [&str; 3] = ["tenant", "logs", "acme"];

fn asked<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&LOGS[..], more].concat()
}

/// The next line of a command that goes on.
fn next_line(child: &mut Child, reader: &mut Option<BufReader<std::process::ChildStdout>>) -> String {
    let reader = reader.get_or_insert_with(|| BufReader::new(child.stdout.take().expect("a pipe")));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_and_answers() {
    let place = Place::empty().await;
    let server = &place.api.server;
    snapshot("logs-never-ran", &server.run(&LOGS));
    snapshot(
        "logs-never-ran-release",
        &server.run(&asked(&["--source", "release"])),
    );
    snapshot(
        "logs-since-nonsense",
        &server.run(&asked(&["--since", "yesterday"])),
    );
    snapshot("logs-tail-nonsense", &server.run(&asked(&["--tail", "many"])));
    snapshot("logs-tail-too-large", &server.run(&asked(&["--tail", "10001"])));
    snapshot("logs-unknown", &server.run(&["tenant", "logs", "bolt"]));
    place.release("first").await;
    place.prints(
        "sp-fake-acme-v1",
        &[
            ("2026-11-20T12:00:00.123456789Z", "one"),
            ("2026-11-20T12:00:00.123456789Z", "one"),
            (
                "2026-11-20T12:00:01Z",
                "! a panic \u{1b}[31mred\u{1b}[0m\u{1b}[2J",
            ),
            ("2026-11-20T12:00:02Z", ""),
        ],
    );
    place.until(&LOGS, "panic");
    snapshot("logs", &server.run(&LOGS));
    snapshot("logs-json", &server.run(&asked(&["--tail", "2", "--json"])));
    snapshot("logs-release", &server.run(&asked(&["--source", "release"])));
    snapshot("logs-edge", &server.run(&asked(&["--source", "edge"])));
    snapshot(
        "logs-since",
        &server.run(&asked(&["--since", "2026-11-20T12:00:00.5Z"])),
    );
    snapshot(
        "logs-none",
        &server.run(&asked(&["--since", "2100-01-01T00:00:00Z"])),
    );
    let answer = place
        .api
        .owner
        .get(&format!("{}/logs?after=900", place.path))
        .await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (400, Some("invalid-request"))
    );
    let answer = place
        .api
        .owner
        .get(&format!("{}/logs?after=4&tail=1", place.path))
        .await;
    assert_eq!(
        answer.text().lines().count(),
        2,
        "`after` wins: {}",
        answer.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_outlive_their_machine_and_the_server() {
    let mut place = Place::running().await;
    place.prints("sp-fake-acme-v1", &[("2026-11-20T12:00:00Z", "of v1")]);
    place.until(&LOGS, "of v1");
    // What is printed last, when nobody has looked since, is read before the machine goes.
    place.prints("sp-fake-acme-v1", &[("2026-11-20T12:00:01Z", "the last of v1")]);
    place.release("second").await;
    place.until(&LOGS, "the last of v1");
    place.prints("sp-fake-acme-v2", &[("2026-11-20T12:00:02Z", "before the crash")]);
    place.until(&LOGS, "before the crash");
    place.api.server.kill();
    place.prints(
        "sp-fake-acme-v2",
        &[("2026-11-20T12:00:02Z", "while nobody looked")],
    );
    place.api.server.up();
    place.until(&LOGS, "while nobody looked");
    snapshot("logs-of-two-releases", &place.api.server.run(&asked(&["--json"])));
    snapshot(
        "logs-of-two-commands",
        &place.api.server.run(&asked(&["--source", "release"])),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn following() {
    let mut place = Place::running().await;
    place.until(&LOGS, "ready");
    let mut child = place.api.server.house.start(&asked(&["--follow", "--tail", "1"]));
    let mut reader = None;
    assert!(next_line(&mut child, &mut reader).ends_with("v1   ready\n"));
    place.prints("sp-fake-acme-v1", &[("2026-11-20T12:00:00Z", "new")]);
    assert!(next_line(&mut child, &mut reader).ends_with("v1   new\n"));
    // The reader is still there when the server comes back, and goes on after the last line it has seen.
    place.api.server.kill();
    place.prints("sp-fake-acme-v1", &[("2026-11-20T12:00:00Z", "newer")]);
    place.api.server.up();
    assert!(next_line(&mut child, &mut reader).ends_with("v1   newer\n"));
    place.release("second").await;
    assert!(next_line(&mut child, &mut reader).ends_with("v2   release v2 starts\n"));
    assert!(next_line(&mut child, &mut reader).ends_with("v2   ready\n"));
    // Ctrl-C ends it.
    let told = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(told.expect("`kill` runs").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let mut told = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut told)
        .expect("words");
    assert!(
        told.contains("go on from here with `systemprompt tenant logs ten_"),
        "{told}"
    );
    assert!(told.contains(" --follow --since 20"), "{told}");
    let follower = place
        .api
        .server
        .house
        .start(&["tenant", "events", "acme", "--follow"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let told = Command::new("kill")
        .args(["-INT", &follower.id().to_string()])
        .status();
    assert!(told.expect("`kill` runs").success());
    let said = finish(follower);
    assert_eq!(said.code, Some(130), "{}", said.whole());
    let last = said.stdout.lines().count();
    assert!(last > 8, "{}", said.whole());
    let go_on = format!("--follow --since {last}`");
    assert!(said.stderr.contains(&go_on), "{}", said.whole());
}

/// What the process has in memory, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stops_reading_costs_no_memory_and_is_let_go() {
    const LINES: usize = 26_000;
    let place = Place::running().await;
    let server = &place.api.server;
    place.until(&LOGS, "ready");
    let id = place
        .path
        .rsplit('/')
        .next()
        .expect("an id")
        .parse()
        .expect("an id");
    let store = server.store().await;
    let lines: Vec<KeptLine> = (0..LINES)
        .map(|number| KeptLine {
            at: Time::from_millis(1_795_000_000_000 + number as i64),
            release: 1,
            is_error: false,
            text: format!("{number:>8} {}", "x".repeat(1000)),
        })
        .collect();
    for some in lines.chunks(200) {
        let mut tx = store.begin().await.expect("begun");
        let now = some[0].at;
        log_chunks::append(&mut tx, (&id, LogSource::App), some, now)
            .await
            .expect("kept");
        tx.commit().await.expect("committed");
    }
    let all = place.api.owner.get(&format!("{}/logs?tail=1", place.path)).await;
    let last: serde_json::Value = serde_json::from_str(all.text().trim()).expect("a line");
    let last = last["seq"].as_u64().expect("a number");
    let (port, before) = (server.port, resident(server.process(0)));
    let mut reader = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let request = format!(
        "GET {}/logs?follow=true&after=1 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        place.path, place.api.token
    );
    std::io::Write::write_all(&mut reader, request.as_bytes()).expect("asked");
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(open_connections(port), 1, "it is given time");
    let grown = resident(server.process(0)).saturating_sub(before);
    eprintln!("{grown} bytes more while somebody does not read {LINES} lines of 1 kB");
    assert!(grown < 12 * 1024 * 1024, "{grown} bytes");
    let began = std::time::Instant::now();
    while open_connections(port) > 0 {
        assert!(began.elapsed() < 2 * PATIENCE, "it is kept");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    drop(reader);
    let rest = place
        .api
        .owner
        .get(&format!("{}/logs?after={}", place.path, last - 3))
        .await;
    assert_eq!(
        rest.text().lines().count(),
        3,
        "whoever comes back misses nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_has_no_lines() {
    let place = Place::running().await;
    let server = &place.api.server;
    place.until(&LOGS, "ready");
    let follower = server.house.start(&asked(&["--follow", "--tail", "0"]));
    let watcher = server.house.start(&["tenant", "events", "acme", "--follow"]);
    let said = server.run(&["tenant", "delete", "acme", "--yes", "--json"]).ok();
    let id = place.path.rsplit('/').next().expect("an id");
    let kinds = said.json()["receipt"]["resources"]
        .as_array()
        .expect("lines")
        .clone();
    assert!(kinds.iter().any(|line| line["kind"] == "logs"), "{kinds:?}");
    snapshot("logs-follow-deleted", &finish(follower));
    // Its history stays, and ends: whoever follows it, or does so later, comes to its end.
    for said in [finish(watcher), server.run(&["tenant", "events", id, "--follow"])] {
        let said = said.ok();
        let last = said.stdout.lines().last().expect("a line");
        assert!(last.contains("tenant_deleted"), "{}", said.whole());
        assert!(said.stderr.contains("nothing more comes"), "{}", said.whole());
    }
    snapshot("logs-deleted", &server.run(&["tenant", "logs", id]));
    snapshot(
        "logs-deleted-follow",
        &server.run(&["tenant", "logs", id, "--follow"]),
    );
}
