//! What a plan allows and how many may be at it at once: refusals say the limit, what is used, and the way out.

use std::time::Instant;

use reqwest::{Method, Response};
use serde_json::json;
use systemprompt::api::id::{OperationId, TenantId};
use systemprompt::api::release::Release;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::releases;

use crate::api::rig::{Api, PATIENCE, problem, text};
use crate::gate::harness::Client;

/// What `max_releases_per_day` of the free plan is.
const RELEASES_PER_DAY: u32 = 200;

/// Writes releases until there are `count`, as if there had been as many deploys.
async fn fill_up(api: &Api, tenant: &str, count: u32) {
    let id: TenantId = tenant.rsplit('/').next().expect("an id").parse().expect("an id");
    let first = api.owner.read(&format!("{tenant}/releases/1")).await;
    let first: Release = serde_json::from_value(first).expect("a release");
    let store = api.server.store().await;
    let clock = Clock::system();
    let mut tx = store.begin().await.expect("begun");
    let from = releases::last_number(&mut tx, &id).await.expect("a number") + 1;
    for number in from..=count {
        let release = Release {
            number,
            operation_id: OperationId::new(clock.uuid()),
            ..first.clone()
        };
        releases::insert(&mut tx, &id, &release).await.expect("inserted");
    }
    tx.commit().await.expect("committed");
    store.close().await;
}

#[tokio::test]
async fn a_tenant_has_so_many_releases_a_day_and_a_way_back_always() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    for content in ["one", "two"] {
        api.owner
            .succeeded(&api.owner.deploy(&tenant, content).await)
            .await;
    }
    fill_up(&api, &tenant, RELEASES_PER_DAY - 1).await;
    let restart = format!("{tenant}/restart");
    api.owner.succeeded(&api.owner.post_empty(&restart).await).await;
    let current = json!({"image": "current"});
    let secret = json!({"key": "A_KEY", "value": "x"});
    for refused in [
        api.owner.post_empty(&restart).await,
        api.owner.post(&format!("{tenant}/deploy"), &current).await,
        api.owner.post(&format!("{tenant}/secrets"), &secret).await,
    ] {
        assert_eq!(problem(&refused), (402, "plan-limit".to_owned()));
        let document = refused.json();
        assert_eq!(
            document["detail"],
            "the plan `free` allows 200 releases of a tenant in 24 hours, and `acme` has had 200"
        );
        let hint = text(&document["hint"]);
        assert!(
            hint.starts_with("wait until 2") && hint.ends_with("`basic` allows more"),
            "{hint}"
        );
    }
    assert_eq!(api.owner.list(&format!("{tenant}/secrets")).await.len(), 0);
    api.owner.stage(&tenant, "A_KEY", "x").await;
    let back = api
        .owner
        .post(&format!("{tenant}/rollback"), &json!({"release": 1}))
        .await;
    api.owner.succeeded(&back).await;
}

#[tokio::test]
async fn a_plan_says_its_limit_and_the_way_out() {
    let api = Api::start();
    let body = json!({"price_id": "pri_free", "name": "acme", "region": "local", "memory_mb": 1024});
    let refused = api.owner.post("/api/v1/checkout", &body).await;
    assert_eq!(problem(&refused), (402, "plan-limit".to_owned()));
    assert_eq!(
        refused.json()["hint"],
        "ask for 512 MB or less; the plan `basic` allows more"
    );
    for name in ["acme-1", "acme-2", "acme-3"] {
        assert_eq!(api.owner.checkout(name).await.status, 201);
    }
    let full = api.owner.checkout("acme-4").await.json();
    assert_eq!(
        full["detail"],
        "the plan `free` allows 3 tenants, and there are 3"
    );
    let hint = text(&full["hint"]);
    assert!(
        hint.contains("`systemprompt tenant list`") && hint.contains("`--plan basic`"),
        "{hint}"
    );
}

#[tokio::test]
async fn whoever_tries_credentials_is_counted_by_address() {
    let api = Api::start();
    let left = async |client: &Client| {
        let answer = client.get("/api/v1/me").await;
        assert_eq!(answer.status, 401);
        assert_eq!(
            answer.header("ratelimit-policy"),
            "\"unauthenticated\";q=1000;w=60"
        );
        let told = answer.header("ratelimit").to_owned();
        let left = told
            .split(';')
            .find_map(|part| part.strip_prefix("r="))
            .expect("a number");
        left.parse::<u32>().expect("a number")
    };
    let first = left(&api.anonymous()).await;
    let second = left(&api.with_token("spt_made-up")).await;
    assert!(first < 1000 && second < first + 5, "{first} {second}");
    let known = api.owner.get("/api/v1/me").await;
    assert_eq!(known.header("ratelimit-policy"), "\"default\";q=3000;w=60");
}

async fn stream(client: &Client, tenant: &str) -> Response {
    let request = client.call(Method::GET, &format!("{tenant}/events"));
    let request = request.header("accept", "text/event-stream");
    request.send().await.expect("an answer")
}

// Seats are a server's own: named so that it is left out where several servers take turns.
#[tokio::test]
async fn requests_are_counted_at_once_by_account() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let bob = api.account("bob@example.com");
    let theirs = bob.tenant("other").await;
    let mut open = Vec::new();
    for _ in 0..100 {
        let answer = stream(&api.owner, &tenant).await;
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
    let another = api.limited("read", &[]);
    let refused = stream(&another, &tenant).await;
    assert_eq!(refused.status(), 429);
    let header = |name: &str| refused.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("retry-after"), "5");
    assert_eq!(
        header("ratelimit-policy"),
        "\"streams\";q=100;qu=\"concurrent-requests\""
    );
    assert_eq!(header("ratelimit"), "\"streams\";r=0;t=5");
    let told: serde_json::Value = refused.json().await.expect("JSON");
    assert_eq!(
        (&told["code"], &told["detail"]),
        (&json!("too-many-at-once"), &json!("100 streams are open already"))
    );
    let follow = another.get(&format!("{tenant}/logs?follow=true")).await;
    assert_eq!(problem(&follow).0, 429);
    assert_eq!(
        stream(&bob, &theirs).await.status(),
        200,
        "others are not held up"
    );
    assert_eq!(
        another.get(&format!("{tenant}/events")).await.status,
        200,
        "a page is no stream"
    );
    open.pop();
    let began = Instant::now();
    while stream(&another, &tenant).await.status() == 429 {
        assert!(began.elapsed() < PATIENCE, "the seat does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
