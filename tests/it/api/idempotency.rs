//! `Idempotency-Key`: what is sent again is answered again and not done again.

use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::server::world::Fault;

use crate::api::rig::{Api, free, problem, text};
use crate::gate::harness::{Answer, Client};

const CHECKOUT: &str = "/api/v1/checkout";

async fn keyed(caller: &Client, key: &str, path: &str, body: &Value) -> Answer {
    let request = caller.call(Method::POST, path).header("idempotency-key", key);
    caller.send(request.json(body)).await
}

/// The second answer is the first one again.
fn replays(first: &Answer, second: &Answer) {
    assert_eq!(second.status, first.status);
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!(second.header("content-type"), first.header("content-type"));
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(first.header("idempotency-replayed"), "");
}

#[tokio::test]
async fn the_same_request_is_answered_again_and_done_once() {
    let api = Api::start();
    let first = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    assert_eq!(first.status, 201, "{}", first.text());
    api.owner.succeeded(&first).await;
    // A quoted string is the draft's way of writing the same key.
    for key in ["one", "\"one\""] {
        let again = keyed(&api.owner, key, CHECKOUT, &free("acme")).await;
        replays(&first, &again);
        assert_eq!(again.body, first.body);
    }
    assert_eq!(api.owner.list("/api/v1/tenants").await.len(), 1);
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let api = Api::start();
    let first = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    assert_eq!(first.status, 201);
    let other = keyed(&api.owner, "one", CHECKOUT, &free("other")).await;
    assert_eq!(problem(&other), (422, "key-reused".to_owned()));
    let again = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    replays(&first, &again);
}

#[tokio::test]
async fn a_query_is_part_of_the_request() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let secret = json!({"key": "OPENAI_API_KEY", "value": "v"});
    let path = format!("{tenant}/secrets");
    let first = keyed(&api.owner, "one", &format!("{path}?stage=true"), &secret).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let other = keyed(&api.owner, "one", &format!("{path}?stage=false"), &secret).await;
    assert_eq!(problem(&other), (422, "key-reused".to_owned()));
}

#[tokio::test]
async fn a_key_belongs_to_one_caller() {
    let api = Api::start();
    let other = api.account("bob@example.com");
    let first = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    let theirs = keyed(&other, "one", CHECKOUT, &free("theirs")).await;
    assert_eq!(theirs.status, 201, "{}", theirs.text());
    assert_ne!(theirs.json()["tenant_id"], first.json()["tenant_id"]);
    let again = keyed(&other, "one", CHECKOUT, &free("theirs")).await;
    replays(&theirs, &again);
}

#[tokio::test]
async fn a_key_belongs_to_one_route() {
    let api = Api::start();
    let first = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    assert_eq!(first.status, 201);
    let token = json!({"name": "x", "scopes": ["read"], "expires_in_seconds": 60});
    let made = keyed(&api.owner, "one", "/api/v1/tokens", &token).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("idempotency-replayed"), "");
}

#[tokio::test]
async fn a_refusal_that_stays_is_given_again() {
    let api = Api::start();
    api.account("bob@example.com").tenant("acme").await;
    let first = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    assert_eq!(problem(&first), (409, "name-taken".to_owned()));
    let again = keyed(&api.owner, "one", CHECKOUT, &free("acme")).await;
    replays(&first, &again);
    // Every answer has the id of its own request.
    assert_eq!(again.json()["request_id"], again.header("x-request-id"));
    assert_ne!(again.json()["request_id"], first.json()["request_id"]);
}

#[tokio::test]
async fn a_refusal_that_passes_is_not_kept() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let world = api.server.world();
    let delay = Fault::Delay { millis: 1500 };
    world.plan("provider.start_machine", 1, delay).expect("plans");
    let path = format!("{tenant}/restart");
    let holder = api.owner.post_empty(&path).await;
    let keyed_restart = async || {
        let request = api
            .owner
            .call(Method::POST, &path)
            .header("idempotency-key", "one");
        api.owner.send(request).await
    };
    assert_eq!(problem(&keyed_restart().await), (409, "tenant-busy".to_owned()));
    api.owner.succeeded(&holder).await;
    let taken = keyed_restart().await;
    assert_eq!(taken.status, 202, "{}", taken.text());
    replays(&taken, &keyed_restart().await);
}

#[tokio::test]
async fn two_at_once_do_it_once() {
    let api = Api::start();
    let body = free("acme");
    let send = || keyed(&api.owner, "one", CHECKOUT, &body);
    let (a, b, c, d) = tokio::join!(send(), send(), send(), send());
    let mut made = 0;
    for answer in [a, b, c, d] {
        match answer.status {
            201 if answer.header("idempotency-replayed").is_empty() => made += 1,
            201 => {}
            _ => {
                assert_eq!(problem(&answer), (409, "still-running".to_owned()));
                assert_eq!(answer.header("retry-after"), "1");
            }
        }
    }
    assert_eq!(made, 1);
    assert_eq!(api.owner.list("/api/v1/tenants").await.len(), 1);
}

#[tokio::test]
async fn an_answer_outlives_the_server() {
    let mut api = Api::start();
    let token = json!({"name": "x", "scopes": ["read"], "expires_in_seconds": 600});
    let first = keyed(&api.owner, "one", "/api/v1/tokens", &token).await;
    assert_eq!(first.status, 201);
    api.server.kill();
    api.server.up();
    let again = keyed(&api.owner, "one", "/api/v1/tokens", &token).await;
    replays(&first, &again);
    assert_eq!(again.json()["token"], first.json()["token"]);
    assert!(text(&again.json()["token"]).starts_with("spt_"));
}

#[tokio::test]
async fn keys_that_are_none_are_refused() {
    let api = Api::start();
    for key in ["\"\"", &"k".repeat(256)] {
        let answer = keyed(&api.owner, key, CHECKOUT, &free("acme")).await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{key}");
    }
    let request = api.owner.call(Method::GET, "/api/v1/me");
    let answer = api.owner.send(request.header("idempotency-key", "")).await;
    assert_eq!(answer.status, 200, "reading takes no key");
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
}
