//! The audit: every route that changes something leaves exactly one row, in the transaction of its act.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use systemprompt::api::routes::{ALL, Access};

use crate::api::rig::{Api, PASSWORD, filled, problem, text};
use crate::cli::rig::Server;

/// Routes that nobody is known on until they succeed.
const OF_NOBODY: [&str; 3] = [
    "/api/v1/oauth/device_authorization",
    "/api/v1/oauth/token",
    "/api/v1/oauth/revoke",
];

async fn all(api: &Api) -> Vec<Value> {
    api.owner.list("/api/v1/audit?limit=200").await
}

/// What was recorded since `before`, as `action result code`.
fn told(entries: &[Value], before: usize) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |entry: &Value| {
        let parts = ["action", "result", "code"].map(|name| word(&entry[name]));
        parts.join(" ")
    };
    entries[before..].iter().map(line).collect()
}

#[tokio::test]
async fn every_route_that_changes_something_is_on_record_even_when_it_refuses() {
    let api = Api::start();
    let names: Value = api.anonymous().read("/openapi.json").await;
    let mut seen = BTreeSet::new();
    for route in ALL.iter().filter(|route| route.method != "GET") {
        let before = all(&api).await.len();
        let answer = api.owner.send(api.owner.to(route, &filled(route, &[]))).await;
        let entries = all(&api).await;
        let name = format!("{} {}", route.method, route.path);
        if OF_NOBODY.contains(&route.path) {
            assert_eq!(entries.len(), before, "{name}");
            continue;
        }
        assert_ne!(route.access, Access::Open, "{name}: who acts there?");
        assert_eq!(entries.len(), before + 1, "{name}: {}", answer.status);
        let entry = &entries[before];
        let method = route.method.to_lowercase();
        assert_eq!(
            entry["action"], names["paths"][route.path][method]["operationId"],
            "{name}"
        );
        assert_eq!(entry["request_id"], answer.header("x-request-id"), "{name}");
        assert_eq!(entry["email"], Server::EMAIL, "{name}");
        assert_eq!(entry["address"], "127.0.0.1", "{name}");
        let refused = answer.status >= 400;
        assert_eq!(
            entry["result"],
            if refused { "refused" } else { "done" },
            "{name}"
        );
        if refused {
            assert_eq!(entry["code"], answer.json()["code"], "{name}");
        }
        seen.insert(text(&entry["action"]));
    }
    assert!(seen.len() >= 18, "{seen:?}");
    let verdict = api.owner.read("/api/v1/audit/verify").await;
    assert_eq!(
        (&verdict["finished"], &verdict["faults"]),
        (&json!(true), &json!([]))
    );
}

#[tokio::test]
async fn what_is_done_to_a_tenant_is_on_its_record() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", "sk-canary").await;
    let deployed = api.owner.deploy(&tenant, "one").await;
    api.owner.succeeded(&deployed).await;
    let key = "the same twice";
    for _ in 0..2 {
        let path = format!("{tenant}/restart");
        let request = api.owner.call(reqwest::Method::POST, &path);
        let answer = api.owner.send(request.header("idempotency-key", key)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        api.owner.succeeded(&answer).await;
    }
    let limited = api.limited("read", &[]);
    assert_eq!(problem(&limited.delete(&tenant).await).0, 403);
    let intruder = api.account("bob@example.com");
    assert_eq!(intruder.delete(&tenant).await.status, 404);
    api.owner.succeeded(&api.owner.delete(&tenant).await).await;
    let entries = api.owner.list(&format!("{tenant}/audit?limit=200")).await;
    let id = format!("tenant-{}", tenant.rsplit('/').next().expect("an id"));
    assert_eq!(
        told(&entries, 0),
        [
            "create_checkout done -",
            "create_secret done -",
            "get_registry_token done -",
            "push_manifest done -",
            "deploy_tenant done -",
            "restart_tenant done -",
            "delete_tenant refused forbidden",
            "delete_tenant done -",
        ]
    );
    assert_eq!(entries[1]["target"], "OPENAI_API_KEY");
    let pushed = text(&entries[3]["target"]);
    assert!(pushed.starts_with("sha256:") && pushed.ends_with(&id), "{pushed}");
    assert_eq!(
        (&entries[3]["actor"], &entries[3]["address"]),
        (&json!("push_token"), &json!("127.0.0.1"))
    );
    assert_eq!(entries[1]["role"], "owner");
    let whole = serde_json::to_string(&all(&api).await).expect("JSON");
    assert!(!whole.contains("sk-canary"));
    // The intruder is on record for the operator, and did nothing to the tenant.
    let foreign = all(&api).await;
    let foreign: Vec<_> = foreign
        .iter()
        .filter(|entry| entry["email"] == "bob@example.com" && entry["actor"] == "api_token")
        .collect();
    assert_eq!(foreign.len(), 1);
    assert_eq!(
        (&foreign[0]["tenant_id"], &foreign[0]["code"]),
        (&Value::Null, &json!("not-found"))
    );
    assert!(tenant.ends_with(&text(&foreign[0]["target"])));
}

#[tokio::test]
async fn signing_in_is_on_record() {
    let api = Api::start();
    api.command(
        &["account", "create", "bob@example.com"],
        &format!("{PASSWORD}\n"),
    );
    let before = all(&api).await;
    assert_eq!(told(&before, 0)[0], "create_first_account done -");
    assert_eq!(
        (&before[0]["actor"], &before[0]["target"]),
        (&json!("server"), &json!(Server::EMAIL))
    );
    assert!(told(&before, 0).contains(&"create_account done -".to_owned()));
    let browser = api.anonymous();
    for (email, password) in [
        ("bob@example.com", "wrong wrong wrong"),
        ("nobody@example.com", PASSWORD),
        ("bob@example.com", PASSWORD),
    ] {
        browser
            .form("/sign-in", &[("email", email), ("password", password)])
            .await;
    }
    browser.post_empty("/sign-in/made-up").await;
    let entries = all(&api).await;
    assert_eq!(
        told(&entries, before.len()),
        [
            "sign_in_by_password refused 401",
            "sign_in_by_password refused 401",
            "sign_in_by_password done -",
            "sign_in_by_link refused 404",
        ]
    );
    let who: Vec<_> = entries[before.len()..]
        .iter()
        .map(|entry| &entry["email"])
        .collect();
    assert_eq!(
        who,
        [
            &json!("bob@example.com"),
            &Value::Null,
            &json!("bob@example.com"),
            &Value::Null
        ]
    );
}

#[tokio::test]
async fn only_operators_see_everything_and_only_owners_their_own() {
    let api = Api::start();
    let other = api.account("bob@example.com");
    for path in ["/api/v1/audit", "/api/v1/audit/verify"] {
        assert_eq!(other.get(path).await.status, 403);
    }
    let tenant = api.owner.tenant("acme").await;
    let path = format!("{tenant}/audit");
    assert_eq!(other.get(&path).await.status, 404);
    assert_eq!(
        api.limited("read,deploy,secrets", &[]).get(&path).await.status,
        403
    );
    assert_eq!(
        problem(&api.owner.get("/api/v1/audit/verify?after=99999").await).0,
        400
    );
    let first = api
        .owner
        .get("/api/v1/audit?limit=1&since=2020-01-01T00:00:00Z")
        .await;
    let next = first.header("link");
    let next = next.trim_start_matches('<').split('>').next().expect("a link");
    let second = api.owner.read(next).await;
    assert_eq!(second["data"][0]["seq"], 2);
    let future = api.owner.list("/api/v1/audit?since=2099-01-01T00:00:00Z").await;
    assert!(future.is_empty());
}
