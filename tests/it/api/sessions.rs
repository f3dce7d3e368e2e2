//! Sessions: listed, ended, and what ends with them.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::Value;

use crate::api::identity::Browser;
use crate::api::rig::{Api, PASSWORD, text};
use crate::gate::harness::Client;

const ADA: &str = "ada@example.com";

/// A browser that Ada has signed in with, which says that it is this.
async fn browser(api: &Api, name: &str) -> Browser {
    let mut browser = Browser::new(api.anonymous());
    browser.client.http = reqwest::Client::builder()
        .no_proxy()
        .user_agent(name)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let answer = browser
        .post("/sign-in", &[("email", ADA), ("password", PASSWORD)])
        .await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    browser
}

async fn ended(client: &Client, id: &Value) -> u16 {
    let path = format!("/api/v1/sessions/{}", text(id));
    client.ask(Method::DELETE, &path).await.status
}

#[tokio::test]
async fn a_browser_that_was_left_behind_is_signed_out_from_elsewhere() {
    let api = Api::start();
    let ada = api.account(ADA);
    let (mut here, mut lost) = (browser(&api, "here").await, browser(&api, "lost <b>").await);
    let listed = ada.list("/api/v1/sessions").await;
    assert_eq!(listed.len(), 2);
    let of = |name: &str| {
        listed
            .iter()
            .find(|one| one["name"] == name)
            .expect("listed")
            .clone()
    };
    let gone = of("lost <b>");
    assert_eq!(
        (&gone["kind"], &gone["signed_in_by"], &gone["current"]),
        (&"browser".into(), &"password".into(), &false.into())
    );
    // Whoever is somebody else does not even learn that it is there.
    assert_eq!(ended(&api.owner, &gone["id"]).await, 404);
    assert_eq!(ended(&ada, &gone["id"]).await, 204);
    assert_eq!(ended(&ada, &gone["id"]).await, 404);
    assert_eq!(lost.get("/").await.status, 303);
    assert_eq!(here.get("/").await.status, 200);
    let limited = api.with_token(&api.token_of(ADA, "read", &[]));
    assert_eq!(ended(&limited, &of("here")["id"]).await, 403);
    let session = here
        .cookies
        .iter()
        .find(|(name, _)| name.starts_with("sp_session"));
    let cookie = session.expect("a cookie").1.clone();
    let listed = ada.read("/api/v1/sessions").await.to_string();
    assert!(!listed.contains(&cookie) && !listed.contains("csrf"), "{listed}");
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_credential() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let made = serde_json::json!({ "name": "lost", "scopes": ["read"], "expires_in_seconds": 3600 });
    let made = api.owner.post("/api/v1/tokens", &made).await.json();
    let reader = api.with_token(&text(&made["token"]));
    let request = reader.call(Method::GET, &format!("{tenant}/events"));
    let answer = request
        .header("accept", "text/event-stream")
        .send()
        .await
        .expect("a stream");
    assert_eq!(answer.status(), 200);
    let mut stream = answer.bytes_stream();
    assert!(stream.next().await.is_some());
    let path = format!("/api/v1/tokens/{}", text(&made["id"]));
    assert_eq!(api.owner.ask(Method::DELETE, &path).await.status, 204);
    let began = Instant::now();
    let end = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(30), end)
        .await
        .expect("the stream ends");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
