//! An older and a newer server side by side over one database: the older one leaves what it does not know.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use systemprompt::server::world::Fault;

use crate::api::rig::{PATIENCE, text};
use crate::gate::harness::Client;
use crate::replicas::rig::Pair;

/// A step that the second server has not heard of, late in a creation.
const NEW_STEP: &str = "create-tenant/add-certificate";
const LEFT: &str = "left an operation to a server of another version";

/// Starts the second server as one of an older version.
async fn start_older(pair: &mut Pair) {
    let server = &mut pair.api.server;
    server.kill_one(1);
    server.tell("forgotten", NEW_STEP);
    server.up_one(1, &[]);
    // It has read that by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.api.server.tell("forgotten", "");
}

async fn operation(client: &Client, bought: &Value) -> Value {
    client
        .read(&format!("/api/v1/operations/{}", text(&bought["operation_id"])))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_server_leaves_what_it_does_not_know_and_does_the_rest() {
    let Some(mut pair) = Pair::start() else { return };
    pair.api.server.watch();
    let (newer, older) = (pair.at(0), pair.at(1));
    let acme = pair.api.owner.tenant("acme").await;
    start_older(&mut pair).await;
    let world = pair.api.server.world();
    let slow = Fault::Delay { millis: 60_000 };
    world.plan("provider.create_volume", 1, slow).expect("planned");
    let begun = newer.checkout("begun").await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    while world.calls("provider.create_volume").expect("the world") < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let died = Instant::now();
    pair.api.server.kill_one(0);

    // What it takes on itself, as one that hands a request to the queue, waits; what it knows it does.
    let waiting = older.checkout("waiting").await;
    assert_eq!(waiting.status, 201, "{}", waiting.text());
    let deployed = pair.api.owner.deploy(&acme, "one").await;
    older.succeeded(&deployed).await;
    let queued = operation(&older, &waiting.json()).await;
    assert_eq!(
        (&queued["status"], &queued["worker"]),
        (&"queued".into(), &Value::Null),
        "{queued:#}"
    );
    let id = text(&queued["id"]);
    let somebody = pair.api.account("somebody@example.org");
    let given_up = somebody.checkout("given-up").await.json();
    let abandon = format!("/api/v1/operations/{}/abandon", text(&given_up["operation_id"]));
    let answer = somebody.post_empty(&abandon).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // A newer version asks for more than this one knows.
    let store = pair.store().await;
    let mut tx = store.begin().await.expect("begun");
    let more = "UPDATE operations SET params = '{\"of_a_later_version\": {\"new\": 1}}' WHERE id = $1";
    tx.execute(more, vec![id.as_str().into()])
        .await
        .expect("executed");
    tx.commit().await.expect("committed");
    // The lease of what was begun ends, and it stays where it is.
    tokio::time::sleep(Duration::from_secs(24).saturating_sub(died.elapsed())).await;
    let left = operation(&older, &begun.json()).await;
    assert_eq!(left["status"], "running", "{left:#}");
    assert_eq!(left["steps"][3]["attempts"], 1, "{left:#}");
    start_older(&mut pair).await;
    let began = Instant::now();
    while !pair.api.server.log_of(1).contains(LEFT) {
        assert!(began.elapsed() < PATIENCE, "it says so");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pair.api.server.log_of(1).contains(&id), "and which");

    pair.api.server.up_one(0, &[]);
    for bought in [&begun, &waiting] {
        let ended = older.succeeded(bought).await;
        assert_eq!(ended["steps"][9]["name"], "add-certificate");
        let tenant = format!("/api/v1/tenants/{}", text(&bought.json()["tenant_id"]));
        let events = older.list(&format!("{tenant}/events?limit=200")).await;
        let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert_eq!(numbers, (1..=8).collect::<Vec<u64>>());
    }
    let removed = older.ask(Method::DELETE, &acme).await;
    older.succeeded(&removed).await;
}
