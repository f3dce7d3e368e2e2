//! The database goes away in the middle of everything, and a server does: what was promised is done all the same.

use std::ops::Range;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use systemprompt::server::store::{events, tenants};

use crate::api::rig::{PATIENCE, free, problem, text};
use crate::gate::harness::Client;
use crate::replicas::rig::Pair;
use crate::replicas::wire::Wire;
use crate::store::postgres::Cluster;

/// Asks until the server's readiness is as wanted; answers how long that took.
async fn ready(client: &Client, wanted: u16) -> Duration {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = client.get("/readyz").await;
        assert!(
            asked.elapsed() < Duration::from_secs(4),
            "a balancer does not wait so long"
        );
        if answer.status == wanted {
            if wanted == 503 {
                assert_eq!(problem(&answer), (503, "unavailable".to_owned()));
            }
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "`/readyz` stays {}", answer.status);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Buys a tenant as the command line does: with a key, again and again until there is an answer.
async fn bought(client: Client, name: String) -> Value {
    let began = Instant::now();
    loop {
        let request = client.call(Method::POST, "/api/v1/checkout").json(&free(&name));
        let request = request.header("idempotency-key", format!("key of {name}"));
        if let Ok(answer) = request.send().await {
            let status = answer.status().as_u16();
            let told = answer.text().await.unwrap_or_default();
            if status == 201 {
                return serde_json::from_str(&told).expect("JSON");
            }
            assert!(matches!(status, 409 | 500 | 503 | 504 | 408), "{status}: {told}");
        }
        assert!(began.elapsed() < 3 * PATIENCE, "`{name}` is not to be had");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Waits for what was bought, at whichever server answers.
async fn done(client: &Client, told: &Value) {
    let path = format!("/api/v1/operations/{}", text(&told["operation_id"]));
    let began = Instant::now();
    loop {
        if let Ok(answer) = client.call(Method::GET, &path).send().await
            && answer.status() == 200
        {
            let operation: Value = answer.json().await.expect("JSON");
            match operation["status"].as_str().expect("a status") {
                "succeeded" => return,
                "queued" | "running" => {}
                _ => panic!("{operation:#}"),
            }
        }
        assert!(began.elapsed() < 3 * PATIENCE, "`{path}` does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Every tenant has its events without a gap, and there is nothing in the world that is not theirs.
async fn whole(pair: &Pair, told: &[Value]) {
    let store = pair.store().await;
    let mut tx = store.begin_read().await.expect("begun");
    let mut names = Vec::new();
    for one in told {
        let id = text(&one["tenant_id"]).parse().expect("an id");
        let tenant = tenants::get(&mut tx, &id).await.expect("a tenant");
        let all = events::list_after(&mut tx, &id, 0, 1000).await.expect("events");
        let numbers: Vec<u64> = all.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=tenant.last_event_seq).collect::<Vec<u64>>());
        assert_eq!(
            tenant.status,
            systemprompt::api::tenant::TenantStatus::AwaitingDeploy
        );
        names.push(tenant.label);
    }
    names.sort();
    let resources = pair.api.server.world().resources().expect("world");
    let routes: Vec<String> = resources
        .iter()
        .filter_map(|line| line.strip_prefix("route ").map(str::to_owned))
        .collect();
    assert_eq!(routes, names, "one route a tenant, and no other");
}

/// Somebody for every three tenants: so many are free.
fn buyers(pair: &Pair, count: usize) -> Vec<Client> {
    let mut all = vec![pair.api.owner.clone()];
    while all.len() * 3 < count {
        all.push(pair.api.account(&format!("buyer-{}@example.org", all.len())));
    }
    all
}

async fn buy(buyers: &[Client], numbers: Range<usize>) -> Vec<Value> {
    let all = numbers.map(|number| bought(buyers[number / 3].clone(), format!("tenant-{number}")));
    futures::future::join_all(all).await
}

/// Waits for all of it, each with its owner.
async fn all_done(buyers: &[Client], told: &[Value]) {
    for (number, one) in told.iter().enumerate() {
        done(&buyers[number / 3], one).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_restarted_is_waited_for() {
    let Some(pair) = Pair::own(None) else { return };
    let buyers = buyers(&pair, 12);
    let (mut told, ()) = tokio::join!(buy(&buyers, 0..10), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        pair.cluster().crash();
        for index in 0..2 {
            ready(&pair.at(index), 503).await;
        }
        pair.cluster().up();
        for index in 0..2 {
            let took = ready(&pair.at(index), 200).await;
            eprintln!("server {index} was ready {took:?} after the database");
        }
    });
    told.extend(buy(&buyers, 10..12).await);
    all_done(&buyers, &told).await;
    whole(&pair, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_cut_off_is_waited_for() {
    const CUT: Duration = Duration::from_secs(60);
    let Ok(cluster) = Cluster::start().inspect_err(|reason| eprintln!("skipped: {reason}")) else {
        return;
    };
    let target = cluster.folder().expect("its own").to_owned();
    let wire = Wire::to(&target);
    let Some(pair) = Pair::own(Some((cluster, &wire))) else {
        return;
    };
    let buyers = buyers(&pair, 12);
    let (mut told, ()) = tokio::join!(buy(&buyers, 0..10), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        wire.cut(true);
        let began = Instant::now();
        for index in 0..2 {
            ready(&pair.at(index), 503).await;
            assert_eq!(pair.at(index).get("/livez").await.status, 200);
        }
        tokio::time::sleep(CUT.saturating_sub(began.elapsed())).await;
        wire.cut(false);
        for index in 0..2 {
            let took = ready(&pair.at(index), 200).await;
            eprintln!("server {index} was ready {took:?} after the wire");
        }
    });
    told.extend(buy(&buyers, 10..12).await);
    all_done(&buyers, &told).await;
    whole(&pair, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing() {
    let Some(mut pair) = Pair::start() else { return };
    let buyers = buyers(&pair, 24);
    let (told, ()) = tokio::join!(buy(&buyers, 0..24), async {
        for index in [0, 1, 0] {
            tokio::time::sleep(Duration::from_millis(700)).await;
            pair.api.server.kill_one(index);
            tokio::time::sleep(Duration::from_millis(700)).await;
            pair.api.server.up_one(index, &[]);
        }
    });
    let began = Instant::now();
    all_done(&buyers, &told).await;
    eprintln!("all done {:?} after the last purchase", began.elapsed());
    whole(&pair, &told).await;
}
