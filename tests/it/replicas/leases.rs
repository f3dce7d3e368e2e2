//! Leases: a worker that is paused for longer than its lease has lost its work, and finds that out at its next write.

use std::process::Command;
use std::time::{Duration, Instant};

use systemprompt::server::world::Fault;

use crate::api::rig::{PATIENCE, text};
use crate::gate::harness::Client;
use crate::replicas::rig::Pair;

fn signal(name: &str, process: u32) {
    let told = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(process.to_string())
        .status();
    assert!(told.expect("`kill` runs").success());
}

/// The process that holds the tenant's operation, as `tenant status` tells it.
async fn holder(client: &Client, tenant: &str) -> Option<u32> {
    let status = client.read(&format!("{tenant}/status")).await;
    let worker = &status["current_operation"]["worker"];
    let name = worker["name"].as_str()?;
    assert!(
        worker["since"].is_string() && worker["until"].is_string(),
        "{worker}"
    );
    let number = name.split_whitespace().nth(1).expect("process NUMBER on HOST");
    Some(number.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_worker_is_fenced_off_and_its_work_is_done_once() {
    let Some(pair) = Pair::start() else { return };
    let world = pair.api.server.world();
    let slow = Fault::Delay { millis: 8000 };
    world.plan("provider.create_volume", 1, slow).expect("planned");
    let bought = pair.at(0).checkout("acme").await;
    assert_eq!(bought.status, 201, "{}", bought.text());
    let tenant = format!("/api/v1/tenants/{}", text(&bought.json()["tenant_id"]));
    while world.calls("provider.create_volume").expect("the world") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What runs beside it is over: whoever is paused in the middle of a write holds what others wait for.
    let path = format!("/api/v1/operations/{}", text(&bought.json()["operation_id"]));
    loop {
        let operation = pair.at(0).read(&path).await;
        let steps = operation["steps"].as_array().expect("the steps").clone();
        let done = steps.iter().filter(|step| step["status"] == "done").count();
        if done + 1 == steps.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let paused = holder(&pair.at(0), &tenant).await.expect("somebody holds it");
    let index = usize::from(pair.api.server.process(1) == paused);
    assert_eq!(pair.api.server.process(index), paused);
    signal("STOP", paused);
    let other = pair.at(1 - index);
    // Nobody else touches it before the lease has ended.
    assert_eq!(holder(&other, &tenant).await, Some(paused));
    let operation = other.succeeded(&bought).await;
    let volume = &operation["steps"][3];
    assert_eq!(
        (&volume["name"], &volume["attempts"]),
        (&"create-volume".into(), &2.into())
    );

    signal("CONT", paused);
    let began = Instant::now();
    while !pair.api.server.log_of(index).contains("left to another worker") {
        assert!(began.elapsed() < PATIENCE, "{}", pair.api.server.log_of(index));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let events = other.list(&format!("{tenant}/events?limit=200")).await;
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<u64>>(), "nothing is told twice");
    assert_eq!(
        world.resources().expect("the world").len(),
        5,
        "nothing is there twice"
    );
    assert_eq!(holder(&other, &tenant).await, None);
}
