//! The server itself: how it says that it is well, and that it goes on after it was killed.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::server::world::Fault;

use crate::api::rig::{Api, pretty, problem, snapshot, text};
use crate::gate::harness::Client;

#[tokio::test]
async fn it_says_how_it_is() {
    let api = Api::start();
    let caller = api.anonymous();
    assert_eq!(caller.get("/livez").await.text(), "ok\n");
    assert_eq!(caller.get("/readyz").await.text(), "ok\n");
    let health = caller.read("/health").await;
    snapshot("health", &pretty(&health));
    let jobs = api.owner.read("/api/v1/jobs/health").await;
    assert_eq!(
        jobs,
        json!({"queued": 0, "running": 0, "stuck": 0, "oldest_waiting_seconds": 0})
    );
}

#[tokio::test]
async fn a_part_that_fails_is_named() {
    let api = Api::start();
    api.server
        .world()
        .plan("provider.ping", 1, Fault::Fatal)
        .expect("plans");
    let health = api.anonymous().read("/health").await;
    assert_eq!(health["status"], "degraded");
    assert!(text(&health["provider"]).starts_with("failing: "), "{health:#}");
    assert_eq!(health["database"], "ok");
    assert_eq!(api.anonymous().read("/health").await["status"], "ok");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.read(&tenant).await;
    let metrics = api.anonymous().get("/metrics").await;
    let shown = metrics.text();
    let counted = |line: &&str| {
        line.starts_with("http_requests_total{")
            && line.contains("route=\"/api/v1/tenants/{tenant_id}\"")
            && line.contains("status=\"200\"")
    };
    let lines: Vec<&str> = shown.lines().filter(counted).collect();
    assert_eq!(lines.len(), 1, "{shown}");
    assert!(lines[0].ends_with(" 1"), "{lines:?}");
    assert!(!shown.contains("ten_"), "an id makes a series of its own");
}

#[tokio::test]
async fn every_request_has_an_id_of_its_own() {
    let api = Api::start();
    let caller = api.anonymous();
    let mut ids = std::collections::BTreeSet::new();
    for path in ["/livez", "/livez", "/docs", "/v2/", "/api/v1/me", "/nothing"] {
        let id = caller.get(path).await.header("x-request-id");
        assert!(id.starts_with("req_") && id.len() == 30, "{path}: `{id}`");
        assert!(ids.insert(id), "{path}");
    }
}

const CREATED: [&str; 8] = [
    "provisioning_started",
    "app_created",
    "volume_created",
    "ips_allocated",
    "database_created",
    "secrets_stored",
    "certificate_added",
    "infrastructure_ready",
];

/// The numbers of a tenant's events have no gap and no double, and every operation's steps are told once.
async fn is_told_once(owner: &Client, tenant: &str, wanted: &[&str]) {
    let events = owner.list(&format!("{tenant}/events?limit=200")).await;
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let names: Vec<String> = events
        .iter()
        .map(|event| text(&event["event"]))
        .filter(|name| name != "step_retrying")
        .collect();
    assert_eq!(names, wanted);
}

/// Kills the server after this time and starts it again on the same data.
async fn crash(api: &mut Api, after: Duration) {
    tokio::time::sleep(after).await;
    api.server.kill();
    api.server.up();
}

#[tokio::test]
async fn a_creation_goes_on_after_the_server_was_killed() {
    let mut api = Api::start();
    let world = api.server.world();
    for call in [
        "provider.create_network",
        "provider.create_volume",
        "databases.create",
        "edge.join",
    ] {
        for nth in 1..=3 {
            world
                .plan(call, nth, Fault::Delay { millis: 900 })
                .expect("plans");
        }
    }
    let bought = api.owner.checkout("acme").await;
    for _ in 0..3 {
        crash(&mut api, Duration::from_millis(700)).await;
    }
    api.owner.succeeded(&bought).await;
    let tenant = format!("/api/v1/tenants/{}", text(&bought.json()["tenant_id"]));
    assert_eq!(api.owner.read(&tenant).await["status"], "awaiting_deploy");
    is_told_once(&api.owner, &tenant, &CREATED).await;
    let kinds = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    let resources: Vec<String> = world.resources().expect("reads").iter().map(kinds).collect();
    assert_eq!(resources, ["database", "network", "network", "route", "volume"]);
}

#[tokio::test]
async fn a_deploy_goes_on_after_the_server_was_killed() {
    let mut api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let world = api.server.world();
    for call in ["provider.pull_image", "provider.start_machine"] {
        world.plan(call, 1, Fault::Delay { millis: 900 }).expect("plans");
    }
    let deployed = api.owner.deploy(&tenant, "one").await;
    for _ in 0..2 {
        crash(&mut api, Duration::from_millis(700)).await;
    }
    api.owner.succeeded(&deployed).await;
    let events = api.owner.list(&format!("{tenant}/events?limit=200")).await;
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let ready = events
        .iter()
        .filter(|event| event["event"] == "tenant_ready")
        .count();
    assert_eq!(ready, 1, "{events:#?}");
    assert_eq!(api.owner.read(&tenant).await["current_release"], 1);
    let ran: Vec<u32> = world
        .change(|state| state.commands.values().map(|command| command.runs).collect())
        .expect("reads");
    assert!(ran.iter().all(|runs| *runs == 1), "{ran:?}");
    let machines = world.resources().expect("reads");
    assert_eq!(
        machines
            .iter()
            .filter(|line| line.starts_with("machine "))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_ends_its_streams_and_its_steps() {
    let mut api = Api::start();
    let world = api.server.world();
    for call in ["provider.create_network", "databases.create"] {
        world.plan(call, 1, Fault::Delay { millis: 1500 }).expect("plans");
    }
    let bought = api.owner.checkout("acme").await;
    let tenant = format!("/api/v1/tenants/{}", text(&bought.json()["tenant_id"]));
    let stream = api.owner.call(Method::GET, &format!("{tenant}/events"));
    let stream = stream.header("accept", "text/event-stream").send().await;
    let mut stream = stream.expect("a stream");
    let mut told = String::new();
    while !told.contains("event: provisioning_started\n") {
        let chunk = stream.chunk().await.expect("it goes on").expect("it goes on");
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
    let began = std::time::Instant::now();
    let stopped = api.server.stop();
    assert_eq!(stopped.code, Some(0), "{}", api.server.log());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    stream.text().await.expect("an end that is not a break");
    api.server.up();
    api.owner.succeeded(&bought).await;
    is_told_once(&api.owner, &tenant, &CREATED).await;
}

#[tokio::test]
async fn an_operation_is_read_and_decided_where_it_may_be() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let operations = api.owner.list(&format!("{tenant}/operations")).await;
    assert_eq!(operations.len(), 1);
    let path = format!("/api/v1/operations/{}", text(&operations[0]["id"]));
    assert_eq!(api.owner.read(&path).await, operations[0]);
    for decision in ["retry", "abandon"] {
        let answer = api.owner.post_empty(&format!("{path}/{decision}")).await;
        assert_eq!(
            problem(&answer),
            (409, "operation-state".to_owned()),
            "{decision}"
        );
    }
}

#[tokio::test]
async fn a_deletion_that_is_stuck_waits_for_a_decision() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.server
        .world()
        .plan("databases.drop", 1, Fault::Fatal)
        .expect("plans");
    let deleted = api.owner.delete(&tenant).await;
    let stuck = api.owner.finished(&deleted).await;
    assert_eq!(stuck["status"], "stuck", "{stuck:#}");
    let jobs = api.owner.read("/api/v1/jobs/health").await;
    assert_eq!(jobs["stuck"], 1);
    let busy = api.owner.delete(&tenant).await;
    assert_eq!(problem(&busy), (409, "tenant-busy".to_owned()));
    let path = format!("/api/v1/operations/{}/retry", text(&stuck["id"]));
    let again = api.owner.post_empty(&path).await;
    assert_eq!(again.status, 202, "{}", again.text());
    api.owner.succeeded(&again).await;
    assert_eq!(api.owner.read(&tenant).await["status"], Value::from("deleted"));
}
