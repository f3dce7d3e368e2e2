//! Lines of releases, of their commands, with every kind of question; and what becomes of them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command};

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
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_has_no_lines() {
    let place = Place::running().await;
    let server = &place.api.server;
    place.until(&LOGS, "ready");
    let follower = server.house.start(&asked(&["--follow", "--tail", "0"]));
    let said = server.run(&["tenant", "delete", "acme", "--yes", "--json"]).ok();
    let id = place.path.rsplit('/').next().expect("an id");
    let kinds = said.json()["receipt"]["resources"]
        .as_array()
        .expect("lines")
        .clone();
    assert!(kinds.iter().any(|line| line["kind"] == "logs"), "{kinds:?}");
    snapshot("logs-follow-deleted", &finish(follower));
    snapshot("logs-deleted", &server.run(&["tenant", "logs", id]));
    snapshot(
        "logs-deleted-follow",
        &server.run(&["tenant", "logs", id, "--follow"]),
    );
}
