//! What a tenant uses and how it answers, asked by a person and by a program.

use serde_json::{Value, json};
use systemprompt::api::time::Time;
use systemprompt::server::clock::Clock;

use crate::cli::answers::snapshot;
use crate::observe::rig::Place;

const METRICS: [&str; 3] = ["tenant", "metrics", "acme"];

/// Requests that the edge answers at a time.
fn answered(place: &Place, at: Time, statuses: &[(u16, u64)]) {
    let requests = statuses.iter().map(|(status, duration_ms)| {
        json!({
            "at": at, "label": "acme", "method": "GET", "path": "/a?token=secret", "status": status,
            "duration_ms": duration_ms, "bytes": 12,
        })
    });
    let world = place.api.server.world();
    world
        .change(|state| state.access.extend(requests))
        .expect("a world");
}

async fn now(place: &Place) -> Value {
    place.api.owner.read(&format!("{}/metrics", place.path)).await
}

/// Asks until so many requests were counted.
async fn counted(place: &Place, count: u64) -> Value {
    for _ in 0..400 {
        let metrics = now(place).await;
        if metrics["requests"]["count"] == count {
            return metrics;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{count} requests are not counted: {:#}", now(place).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_once_whoever_dies() {
    let mut place = Place::running().await;
    let at = Clock::system().now();
    // A request of two hours ago, when no server was there, is in the long history alone.
    answered(&place, at.plus_seconds(-7200), &[(200, 3)]);
    answered(
        &place,
        at,
        &[(200, 3), (200, 40), (301, 1), (404, 2), (503, 900), (0, 10)],
    );
    let metrics = counted(&place, 6).await;
    assert_eq!(
        metrics["requests"]["status"],
        json!({"other": 1, "2xx": 2, "3xx": 1, "4xx": 1, "5xx": 1})
    );
    assert_eq!(
        metrics["requests"]["latency"],
        json!({"p50_ms": 3, "p95_ms": 928, "p99_ms": 928})
    );
    place.api.server.kill();
    answered(&place, at, &[(200, 3)]);
    place.api.server.up();
    counted(&place, 7).await;
    answered(&place, at, &[(200, 3)]);
    counted(&place, 8).await;
    let long = place
        .api
        .owner
        .read(&format!("{}/metrics/history?range=24h", place.path))
        .await;
    let points = long["points"].as_array().expect("points");
    let count: u64 = points
        .iter()
        .filter_map(|point| point["requests"]["count"].as_u64())
        .sum();
    assert_eq!((count, &long["step_seconds"]), (9, &json!(300)), "{long:#}");
    let said = place
        .api
        .server
        .run(&["tenant", "logs", "acme", "--source", "edge", "--tail", "2"])
        .ok();
    assert!(!said.stdout.contains("secret"), "{}", said.whole());
    assert_eq!(
        said.stdout.matches("GET /a 200 3 ms 12 B").count(),
        2,
        "{}",
        said.whole()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_it() {
    let place = Place::empty().await;
    let server = &place.api.server;
    snapshot("metrics-never-ran", &server.run(&METRICS));
    place.release("first").await;
    for (index, status) in [200, 200, 204, 500].into_iter().enumerate() {
        answered(&place, Clock::system().now(), &[(status, 5 + index as u64)]);
    }
    counted(&place, 4).await;
    for _ in 0..400 {
        if now(&place).await["memory_bytes"].is_u64() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    snapshot("metrics", &server.run(&METRICS));
    snapshot(
        "metrics-day",
        &server.run(&["tenant", "metrics", "acme", "--range", "24h"]),
    );
    snapshot(
        "metrics-range",
        &server.run(&["tenant", "metrics", "acme", "--range", "soon"]),
    );
    snapshot(
        "metrics-step",
        &server.run(&["tenant", "metrics", "acme", "--range", "24h", "--step", "15"]),
    );
    let said = server.run(&["tenant", "metrics", "acme", "--json"]).ok().json();
    assert_eq!(said["history"]["step_seconds"], 15);
    assert_eq!(said["now"]["memory_limit_bytes"], 256 * 1024 * 1024, "{said:#}");
    server.run(&["tenant", "delete", "acme", "--yes"]).ok();
    let id = place.path.rsplit('/').next().expect("an id");
    snapshot("metrics-deleted", &server.run(&["tenant", "metrics", id]));
}
