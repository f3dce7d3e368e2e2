//! What a refused request is told: whole answers.

use std::fmt::Write as _;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::api::rig::{Api, free, pretty, snapshot};
use crate::gate::harness::Answer;

/// Headers that a test cannot foresee, or that the transport adds.
const LEFT_OUT: [&str; 2] = ["date", "content-length"];

/// The whole answer, as a snapshot holds it.
fn whole(asked: &str, answer: &Answer) -> String {
    let mut shown = format!("> {asked}\n{}\n", answer.status);
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ascii")))
        .collect();
    headers.sort();
    let body =
        serde_json::from_slice::<Value>(&answer.body).map_or_else(|_| answer.text(), |json| pretty(&json));
    let _ = writeln!(shown, "{}\n{body}", headers.join("\n"));
    shown
}

/// Sends requests one after the other; answers all answers.
async fn answers(api: &Api, requests: Vec<(&str, RequestBuilder)>) -> String {
    let mut all = String::new();
    for (asked, request) in requests {
        all.push_str(&whole(asked, &api.owner.send(request).await));
        all.push('\n');
    }
    all
}

#[tokio::test]
async fn bodies_that_cannot_be_taken() {
    let api = Api::start();
    let post = || api.owner.call(Method::POST, "/api/v1/checkout");
    let as_json = |text: &'static str| post().header("content-type", "application/json").body(text);
    let shown = answers(
        &api,
        vec![
            (
                "an unknown field",
                as_json(r#"{"price_id":"pri_free","name":"acme","region":"local","colour":"red"}"#),
            ),
            (
                "a field of another type",
                as_json(r#"{"price_id":"pri_free","name":7,"region":"local"}"#),
            ),
            (
                "a missing field",
                as_json(r#"{"price_id":"pri_free","region":"local"}"#),
            ),
            (
                "a name that is none",
                as_json(r#"{"price_id":"pri_free","name":"No Caps","region":"local"}"#),
            ),
            ("text that is not JSON", as_json(r#"{"price_id":"#)),
            (
                "more after the end",
                as_json(r#"{"price_id":"pri_free","name":"acme","region":"local"} {}"#),
            ),
            ("nothing", as_json("")),
            (
                "the fields as a list",
                as_json(r#"["pri_free","acme","local",null,"postgres",null]"#),
            ),
            ("a text", as_json(r#""acme""#)),
            (
                "a field twice",
                as_json(r#"{"name":"acme","name":"bcme","price_id":"pri_free","region":"local"}"#),
            ),
        ],
    )
    .await;
    snapshot("bodies", &shown);
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
}

#[tokio::test]
async fn bodies_of_another_type_or_too_large() {
    let api = Api::start();
    let post = || api.owner.call(Method::POST, "/api/v1/checkout");
    let large = json!({"price_id": "p".repeat(1 << 20), "name": "acme", "region": "local"});
    let shown = answers(
        &api,
        vec![
            ("a form", post().form(&[("name", "acme")])),
            ("no type", post().body("{}")),
            ("over 1 MiB", post().json(&large)),
            (
                "over 1 MiB with a key",
                post().header("idempotency-key", "one").json(&large),
            ),
        ],
    )
    .await;
    snapshot("types-and-sizes", &shown);
}

#[tokio::test]
async fn routes_and_methods_that_are_not_there() {
    let api = Api::start();
    let shown = answers(
        &api,
        vec![
            (
                "GET /api/v1/nothing",
                api.owner.call(Method::GET, "/api/v1/nothing"),
            ),
            ("GET /api/v2/me", api.owner.call(Method::GET, "/api/v2/me")),
            ("PUT /api/v1/me", api.owner.call(Method::PUT, "/api/v1/me")),
            ("DELETE /livez", api.owner.call(Method::DELETE, "/livez")),
            (
                "an id that is none",
                api.owner.call(Method::GET, "/api/v1/tenants/acme"),
            ),
            (
                "an id of another kind",
                api.owner
                    .call(Method::GET, "/api/v1/tenants/op_00000000000000000000000000"),
            ),
            (
                "a way out of the path",
                api.owner
                    .call(Method::GET, "/api/v1/tenants/..%2F..%2Fetc%2Fpasswd"),
            ),
        ],
    )
    .await;
    snapshot("routes-and-methods", &shown);
}

#[tokio::test]
async fn queries_that_cannot_be_taken() {
    let api = Api::start();
    let get = |query: &str| api.owner.call(Method::GET, &format!("/api/v1/tenants?{query}"));
    let shown = answers(
        &api,
        vec![
            ("?limit=0", get("limit=0")),
            ("?limit=201", get("limit=201")),
            ("?limit=many", get("limit=many")),
            ("?cursor=%25%25", get("cursor=%25%25")),
            ("?cursor=YWNtZQ", get("cursor=YWNtZQ")),
            ("?colour=red", get("colour=red")),
        ],
    )
    .await;
    snapshot("queries", &shown);
}

#[tokio::test]
async fn purchases_that_cannot_be_made() {
    let api = Api::start();
    let with = |name: &str, value: Value| {
        let mut body = free("acme");
        body[name] = value;
        api.owner.call(Method::POST, "/api/v1/checkout").json(&body)
    };
    let shown = answers(
        &api,
        vec![
            ("a price that is none", with("price_id", json!("pri_gold"))),
            ("a region that is none", with("region", json!("moon"))),
            ("a memory size that is none", with("memory_mb", json!(300))),
            ("more memory than the plan has", with("memory_mb", json!(2048))),
            ("a database that is none", with("database", json!("oracle"))),
            ("a name that the platform uses", with("name", json!("postgres"))),
            (
                "a place to go back to that is none",
                with("redirect_uri", json!("javascript:alert(1)")),
            ),
        ],
    )
    .await;
    snapshot("purchases", &shown);
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
}

#[tokio::test]
async fn callers_that_are_not_let_in() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let nobody = api.anonymous();
    let reader = api.limited("read", &[]);
    let answer = whole("nothing shown", &nobody.get(&tenant).await);
    let garbage = whole("garbage shown", &api.with_token("x").get(&tenant).await);
    let scope = whole("a scope is lacking", &reader.delete(&tenant).await);
    snapshot("callers", &[answer, garbage, scope].join("\n"));
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let api = Api::start();
    let caller = api.anonymous();
    let form = [("grant_type", "refresh_token"), ("client_id", "systemprompt-cli")];
    let mut last = caller.form("/api/v1/oauth/token", &form).await;
    for _ in 0..200 {
        if last.status == 429 {
            break;
        }
        last = caller.form("/api/v1/oauth/token", &form).await;
    }
    assert_eq!(last.status, 429, "{}", last.text());
    assert_eq!(last.json()["code"], "rate-limited");
    assert!(last.header("retry-after").parse::<u32>().expect("seconds") >= 1);
    assert!(last.header("ratelimit").starts_with("\"sign-in\";r=0;"));
    assert_eq!(last.header("ratelimit-policy"), "\"sign-in\";q=120;w=60");
    assert_eq!(
        api.owner.get("/api/v1/me").await.status,
        200,
        "others are not held up"
    );
}
