//! The clock is put back under running servers: what is held stays held, what is told stays in order, nobody is locked out.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use systemprompt::server::world::Fault;

use crate::api::rig::{Api, PATIENCE, text};
use crate::cli::rig::{Server, finish};
use crate::replicas::rig::Pair;

const AN_HOUR_AGO: &str = "-3600";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_takes_nothing_from_anybody() {
    put_back(Api::over(Server::start_watched())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_goes_back_under_two_servers() {
    let Some(mut pair) = Pair::start() else { return };
    let server = &mut pair.api.server;
    server.watch();
    server.kill();
    server.up();
    let token = pair.api.token.clone();
    pair.api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
    put_back(pair.api).await;
}

async fn put_back(mut api: Api) {
    let first = api.owner.tenant("first").await;
    let deployed = api.owner.deploy(&first, "one").await;
    api.owner.succeeded(&deployed).await;
    let second = what_is_held_stays_held(&api, &first, &text(&deployed.json()["created_at"])).await;
    what_is_told_is_in_order(&api, &first, &second).await;
    nobody_is_locked_out(&api, &first).await;
    let third = started_meanwhile(&mut api, &first, &second).await;

    // And forward again, while something is being worked on.
    let before = slow(&api, 8000);
    let fourth = api.owner.checkout("fourth").await;
    assert_eq!(fourth.status, 201, "{}", fourth.text());
    begun(&api, before).await;
    put_clock(&api, "0").await;
    let ended = api.owner.succeeded(&fourth).await;
    nobody_took_it_over(&api, &ended);
    assert!(format!("/api/v1/tenants/{}", text(&ended["tenant_id"])) > third);
}

/// Servers look every 20 ms what their clock shall say.
async fn put_clock(api: &Api, seconds: &str) {
    api.server.tell("clock", seconds);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Makes the next creation of a volume take so long; answers how many there were.
fn slow(api: &Api, millis: u64) -> u64 {
    let (world, slow) = (api.server.world(), Fault::Delay { millis });
    world.plan("provider.create_volume", 1, slow).expect("planned");
    world.calls("provider.create_volume").expect("the world")
}

async fn begun(api: &Api, before: u64) {
    let world = api.server.world();
    while world.calls("provider.create_volume").expect("the world") == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn nobody_took_it_over(api: &Api, operation: &Value) {
    for step in operation["steps"].as_array().expect("steps") {
        assert_eq!(step["attempts"], 1, "{step}");
    }
    let log = api.server.log();
    assert!(!log.contains("left to another worker"), "{log}");
}

async fn kinds(api: &Api, tenant: &str) -> Vec<String> {
    let all = api.owner.list(&format!("{tenant}/operations")).await;
    all.iter().map(|one| text(&one["kind"])).collect()
}

/// The clock goes back while a tenant is made, which is followed.
async fn what_is_held_stays_held(api: &Api, first: &str, deployed_at: &str) -> String {
    // Longer than a lease that would be taken for one of another time, and than the heartbeat.
    let before = slow(api, 14_000);
    let follower = api
        .server
        .house
        .start(&["tenant", "create", "second", "--plan", "free", "--yes"]);
    begun(api, before).await;
    put_clock(api, AN_HOUR_AGO).await;
    // Something else is in the queue, so that workers look at it.
    let restarted = api.owner.post_empty(&format!("{first}/restart")).await;
    assert_eq!(restarted.status, 202, "{}", restarted.text());
    let ended = api.owner.succeeded(&restarted).await;
    assert!(
        text(&ended["created_at"]).as_str() < deployed_at,
        "the clock did go back"
    );

    let said = finish(follower).ok();
    assert!(said.stderr.contains("is ready"), "{}", said.whole());
    assert!(
        api.server.log().contains("the clock was moved"),
        "{}",
        api.server.log()
    );
    let tenants = api.owner.list("/api/v1/tenants").await;
    let second = tenants
        .iter()
        .find(|tenant| tenant["name"] == "second")
        .expect("it is there");
    let second = format!("/api/v1/tenants/{}", text(&second["id"]));
    let operations = api.owner.list(&format!("{second}/operations")).await;
    let path = format!("/api/v1/operations/{}", text(&operations[0]["id"]));
    nobody_took_it_over(api, &api.owner.read(&path).await);
    second
}

async fn what_is_told_is_in_order(api: &Api, first: &str, second: &str) {
    // Lists are in the order in which things were made, whatever their times say.
    assert_eq!(kinds(api, first).await, ["restart", "deploy", "create-tenant"]);
    for tenant in [first, second] {
        let events = api.owner.list(&format!("{tenant}/events?limit=200")).await;
        let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<u64>>());
        let last = numbers.len() as u64;
        let since = api
            .owner
            .list(&format!("{tenant}/events?since={}", last - 1))
            .await;
        assert_eq!(since.len(), 1);
    }
}

async fn nobody_is_locked_out(api: &Api, first: &str) {
    // Nobody is locked out: not by a token from the future, and not by a count of requests from there.
    for _ in 0..40 {
        assert_eq!(api.owner.get("/api/v1/me").await.status, 200);
    }
    let keyed = || {
        let request = api.owner.call(Method::POST, &format!("{first}/restart"));
        api.owner
            .send(request.header("idempotency-key", "after the clock"))
    };
    let (once, again) = (keyed().await, keyed().await);
    assert_eq!((once.status, again.status), (202, 202), "{}", again.text());
    assert_eq!(once.json()["id"], again.json()["id"]);
    api.owner.succeeded(&once).await;
}

async fn started_meanwhile(api: &mut Api, first: &str, second: &str) -> String {
    // A server that is started meanwhile goes on after the ids that it finds.
    api.server.kill();
    api.server.up();
    let began = Instant::now();
    while api.owner.call(Method::GET, "/livez").send().await.is_err() {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let third = api.owner.tenant("third").await;
    assert!(
        third.as_str() > second && second > first,
        "{first}, {second}, {third}"
    );
    let removed = api.owner.ask(Method::DELETE, first).await;
    api.owner.succeeded(&removed).await;
    assert_eq!(
        kinds(api, first).await,
        ["delete-tenant", "restart", "restart", "deploy", "create-tenant"]
    );
    third
}
