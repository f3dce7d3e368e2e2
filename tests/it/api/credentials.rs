//! Nobody is let in without a good credential: by enumeration of the table of routes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::json;
use systemprompt::api::routes::{ALL, Access, Route};

use crate::api::rig::{Api, SCOPES, filled, problem, text};
use crate::cli::rig::Server;
use crate::gate::harness::Client;

fn guarded() -> impl Iterator<Item = &'static Route> {
    ALL.iter()
        .filter(|route| !matches!(route.access, Access::Open | Access::Loopback))
}

/// Every guarded route refuses this caller alike.
async fn refused_everywhere(caller: &Client) {
    let mut seen = 0;
    for route in guarded() {
        let name = format!("{} {}", route.method, route.path);
        let answer = caller.send(caller.to(route, &filled(route, &[]))).await;
        assert_eq!(problem(&answer), (401, "unauthenticated".to_owned()), "{name}");
        assert_eq!(
            answer.json()["request_id"],
            answer.header("x-request-id"),
            "{name}"
        );
        assert!(answer.header("www-authenticate").starts_with("Bearer "), "{name}");
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        seen += 1;
    }
    assert!(seen >= 35, "only {seen} routes are guarded");
}

#[tokio::test]
async fn every_route_refuses_who_shows_nothing() {
    let api = Api::start();
    refused_everywhere(&api.anonymous()).await;
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
}

#[tokio::test]
async fn every_route_refuses_what_is_no_credential_of_this_server() {
    let api = Api::start();
    let mut another = api.token.clone();
    another.pop();
    another.push(if api.token.ends_with('A') { 'B' } else { 'A' });
    for shown in [
        "Bearer garbage".to_owned(),
        format!("Bearer {another}"),
        format!("Bearer {}", unsigned_token()),
        format!("Basic {}", api.token),
    ] {
        refused_everywhere(&api.showing(&shown)).await;
    }
}

/// An access token as somebody would forge it: `alg` is `none`.
fn unsigned_token() -> String {
    let part = |document: serde_json::Value| URL_SAFE_NO_PAD.encode(document.to_string());
    let id = "00000000000000000000000000";
    let claims = json!({
        "sub": format!("acc_{id}"), "sid": format!("ses_{id}"), "scope": "read deploy secrets admin",
        "iat": 1_700_000_000, "exp": 4_000_000_000_u64,
    });
    format!("{}.{}.", part(json!({"alg": "none", "typ": "JWT"})), part(claims))
}

#[tokio::test]
async fn open_routes_let_everybody_in() {
    let api = Api::start();
    let caller = api.anonymous();
    for route in ALL.iter().filter(|route| route.access == Access::Open) {
        let answer = caller.send(caller.to(route, &filled(route, &[]))).await;
        // Without their form the sign-in routes say so; that is not a refusal of who asks.
        assert!(
            matches!(answer.status, 200 | 400),
            "{} {}: {}",
            route.method,
            route.path,
            answer.status
        );
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn what_is_for_this_machine_is_not_passed_on() {
    let api = Api::start();
    let caller = api.anonymous();
    for route in ALL.iter().filter(|route| route.access == Access::Loopback) {
        assert_eq!(caller.get(route.path).await.status, 200);
        for header in ["forwarded", "x-forwarded-for"] {
            let passed_on = caller.call(Method::GET, route.path).header(header, "127.0.0.1");
            let answer = caller.send(passed_on).await;
            assert_eq!(problem(&answer), (403, "forbidden".to_owned()), "{header}");
        }
    }
}

#[tokio::test]
async fn what_operators_see_nobody_else_does() {
    let api = Api::start();
    let other = api.account("bob@example.com");
    let read_only = api.limited("read,deploy,secrets", &[]);
    for route in ALL.iter().filter(|route| route.access == Access::Operator) {
        let answer = api.owner.send(api.owner.to(route, route.path)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for caller in [&other, &read_only] {
            let answer = caller.send(caller.to(route, route.path)).await;
            assert_eq!(problem(&answer), (403, "forbidden".to_owned()));
        }
    }
}

#[tokio::test]
async fn a_token_ends_when_it_expires() {
    let api = Api::start();
    let caller = api.limited("read", &["--expires-in", "2s"]);
    let began = std::time::Instant::now();
    while caller.get("/api/v1/me").await.status == 200 {
        assert!(began.elapsed().as_secs() < 10, "it goes on for ever");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let answer = caller.get("/api/v1/me").await;
    assert_eq!(problem(&answer), (401, "unauthenticated".to_owned()));
    assert_eq!(answer.json()["detail"], "the API token has expired");
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked() {
    let api = Api::start();
    let wanted = json!({"name": "ci", "scopes": ["read"], "expires_in_seconds": 600});
    let made = api.owner.post("/api/v1/tokens", &wanted).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    let caller = api.with_token(&text(&made["token"]));
    assert_eq!(caller.read("/api/v1/me").await["scopes"], json!(["read"]));
    let path = format!("/api/v1/tokens/{}", text(&made["id"]));
    assert_eq!(api.owner.delete(&path).await.status, 204);
    let answer = caller.get("/api/v1/me").await;
    assert_eq!(answer.json()["detail"], "the API token was revoked");
    assert_eq!(api.owner.delete(&path).await.status, 404);
}

#[tokio::test]
async fn a_token_is_shown_once() {
    let api = Api::start();
    let wanted = json!({"name": "ci", "scopes": ["read"], "expires_in_seconds": 600});
    let made = api.owner.post("/api/v1/tokens", &wanted).await;
    assert_eq!(made.header("cache-control"), "no-store");
    let token = text(&made.json()["token"]);
    let listed = api.owner.get("/api/v1/tokens").await;
    assert!(listed.text().contains("\"name\":\"ci\""));
    assert!(!listed.text().contains(&token));
    assert!(!api.server.log().contains(&token));
}

#[tokio::test]
async fn a_token_makes_none_that_may_do_more() {
    let api = Api::start();
    let caller = api.limited("read,admin", &["--expires-in", "1h"]);
    let ask = async |scopes: &[&str], seconds: u64| {
        let body = json!({"name": "more", "scopes": scopes, "expires_in_seconds": seconds});
        caller.post("/api/v1/tokens", &body).await.status
    };
    assert_eq!(ask(&["read", "admin"], 60).await, 201);
    assert_eq!(ask(&["read", "deploy"], 60).await, 403);
    assert_eq!(ask(&["read"], 7200).await, 403);
    assert_eq!(ask(&["read"], 91 * 24 * 3600).await, 400);
    assert_eq!(ask(&[], 60).await, 400);
}

#[tokio::test]
async fn me_says_who_the_token_speaks_for() {
    let api = Api::start();
    let me = api.owner.read("/api/v1/me").await;
    assert_eq!(me["email"], Server::EMAIL);
    assert_eq!(me["operator"], true);
    assert_eq!(me["scopes"], json!(SCOPES));
    assert_eq!(me["credential"], "api_token");
    assert_eq!(me["tenant_id"], json!(null));
}
