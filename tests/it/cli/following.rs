//! Following work through cut streams and restarted servers: no event lost or doubled, and the right exit code.

use std::time::Duration;

use systemprompt::server::world::Fault;

use crate::cli::proxy::{Balancer, Chopper};
use crate::cli::rig::{Server, finish};

/// The calls that `create-tenant` makes one after the other, whatever runs beside them; each is held up, so that the
/// creation takes seconds.
const CALLS: [&str; 2] = ["provider.create_network", "databases.attach"];

fn slow(server: &Server, millis: u64) {
    let world = server.world();
    for call in CALLS {
        let long = Fault::Delay {
            millis: millis * 5 / 2,
        };
        world.plan(call, 1, long).expect("plans");
    }
}

/// The messages of all events of the server, in order, as the history has them.
fn history(server: &Server, tenant: &str) -> Vec<serde_json::Value> {
    let said = server.run(&["tenant", "events", tenant, "--json"]).ok();
    let lines = said.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect()
}

#[track_caller]
fn told_once_and_in_order(told: &str, history: &[serde_json::Value]) {
    let wanted: Vec<String> = history
        .iter()
        .filter(|event| event["operation_id"].is_string())
        .map(|event| format!("  - {}", event["message"].as_str().expect("a message")))
        .collect();
    let told: Vec<&str> = told.lines().filter(|line| line.starts_with("  - ")).collect();
    assert_eq!(told, wanted);
}

#[test]
fn a_stream_that_is_cut_every_200_ms_loses_and_doubles_nothing() {
    let mut server = Server::start();
    let chopper = Chopper::new(server.port, Duration::from_millis(200));
    slow(&server, 500);
    server.talk_to(chopper.port);
    let said = server.tenant("acme");
    assert!(
        chopper.cuts() >= 5,
        "only {} connections were cut",
        chopper.cuts()
    );
    server.talk_to(server.port);
    let history = history(&server, "acme");
    assert!(history.len() >= 8, "{history:?}");
    let numbers: Vec<u64> = history.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=history.len() as u64).collect::<Vec<_>>());
    told_once_and_in_order(&said.stderr, &history);
}

#[test]
fn behind_a_proxy_that_keeps_streams_back_it_looks_at_the_table() {
    let mut server = Server::start();
    let hoarder = Balancer::hoarding(server.port);
    slow(&server, 1200);
    server.talk_to(hoarder.port);
    let said = server.tenant("acme");
    told_once_and_in_order(&said.stderr, &history(&server, "acme"));
    assert!(said.stderr.contains("is ready"), "{}", said.whole());
    let mut child = server
        .house
        .start(&["tenant", "events", "acme", "--follow", "--json"]);
    std::thread::sleep(Duration::from_millis(500));
    server
        .house
        .feed(&["secrets", "set", "KEY", "--tenant", "acme"], "value")
        .ok();
    std::thread::sleep(Duration::from_secs(5));
    child.kill().expect("kills");
    let seen = finish(child).stdout.lines().count();
    assert_eq!(seen, history(&server, "acme").len());
}

#[test]
fn a_server_that_is_killed_and_started_again_is_waited_for() {
    let mut server = Server::start();
    slow(&server, 700);
    let child = server
        .house
        .start(&["tenant", "create", "acme", "--plan", "free", "--yes"]);
    std::thread::sleep(Duration::from_millis(1200));
    server.kill();
    std::thread::sleep(Duration::from_millis(3500));
    server.up();
    let said = finish(child).ok();
    assert!(said.stderr.contains("still trying"), "{}", said.whole());
    assert!(
        said.stderr.contains("the server answers again"),
        "{}",
        said.whole()
    );
    told_once_and_in_order(&said.stderr, &history(&server, "acme"));
    let id = server.run(&["tenant", "show", "acme", "--json"]).ok().json()["tenant"]["id"].clone();
    let secrets = format!(
        ".systemprompt/profiles/{}/secrets.json",
        id.as_str().expect("an id")
    );
    assert!(server.house.read(&secrets).contains("postgresql://"));
}

#[test]
fn events_follow_through_cuts_with_every_number_once() {
    let mut server = Server::start();
    server.tenant("acme");
    let chopper = Chopper::new(server.port, Duration::from_millis(200));
    server.talk_to(chopper.port);
    let mut child = server
        .house
        .start(&["tenant", "events", "acme", "--follow", "--json"]);
    server.talk_to(server.port);
    for number in 0..5 {
        let key = format!("KEY_{number}");
        server
            .house
            .feed(&["secrets", "set", &key, "--tenant", "acme"], "value")
            .ok();
        std::thread::sleep(Duration::from_millis(250));
    }
    let wanted = history(&server, "acme");
    std::thread::sleep(Duration::from_millis(1500));
    child.kill().expect("kills");
    let said = finish(child);
    let seen: Vec<serde_json::Value> = said
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect();
    assert_eq!(seen, wanted);
    assert!(
        chopper.cuts() >= 4,
        "only {} connections were cut",
        chopper.cuts()
    );
}

#[test]
fn an_operation_that_fails_ends_the_wait_with_its_reason() {
    let server = Server::start();
    server
        .world()
        .plan("provider.create_volume", 1, Fault::Fatal)
        .expect("plans");
    let said = server.run(&["tenant", "create", "acme", "--plan", "free", "--yes"]);
    assert_eq!(said.code, Some(1), "{}", said.whole());
    assert!(said.stderr.contains("error: create-tenant"), "{}", said.whole());
    assert!(
        said.stderr.contains("systemprompt tenant retry"),
        "{}",
        said.whole()
    );
    let again = server.run(&["tenant", "retry", "acme"]).ok();
    assert!(again.stderr.contains("is ready"), "{}", again.whole());
}

#[test]
fn a_wait_that_is_over_says_how_to_take_it_up() {
    let server = Server::start();
    slow(&server, 900);
    let said = server.run(&[
        "tenant",
        "create",
        "acme",
        "--plan",
        "free",
        "--yes",
        "--timeout",
        "1s",
    ]);
    assert_eq!(said.code, Some(1), "{}", said.whole());
    assert!(
        said.stderr.contains("systemprompt operation show op_"),
        "{}",
        said.whole()
    );
    // The same command takes it up where it is.
    let again = server
        .run(&["tenant", "create", "acme", "--plan", "free", "--yes"])
        .ok();
    assert!(
        again.stderr.contains("taking up its creation"),
        "{}",
        again.whole()
    );
    let third = server.run(&["tenant", "create", "acme", "--plan", "free", "--yes"]);
    assert_eq!(third.code, Some(5), "{}", third.whole());
}
