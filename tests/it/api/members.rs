//! Members: who is added, changed and taken away, what that means at once, and that a tenant has an owner always.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::rig::{Api, PASSWORD, SCOPES, problem, text};
use crate::cli::answers::snapshot;
use crate::cli::rig::Server;
use crate::gate::harness::Client;

const BOB: &str = "bob@example.com";

async fn add(owner: &Client, tenant: &str, email: &str, role: &str) -> Value {
    let member = json!({"email": email, "role": role});
    let answer = owner.post(&format!("{tenant}/members"), &member).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

async fn roles(owner: &Client, tenant: &str) -> Vec<(String, String)> {
    let all = owner.list(&format!("{tenant}/members")).await;
    let told = |member: &Value| (text(&member["email"]), text(&member["role"]));
    all.iter().map(told).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(email, role): &(&str, &str)| ((*email).to_owned(), (*role).to_owned());
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn members_come_change_and_go() {
    let api = Api::start();
    let bob = api.account(BOB);
    let tenant = api.owner.tenant("acme").await;
    let id = tenant.rsplit('/').next().expect("an id").to_owned();
    assert_eq!(
        roles(&api.owner, &tenant).await,
        pairs(&[(Server::EMAIL, "owner")])
    );
    let member = add(&api.owner, &tenant, " Bob@Example.com ", "viewer").await;
    assert_eq!(
        (&member["role"], &member["added_by"]),
        (&json!("viewer"), &json!(Server::EMAIL))
    );
    let expected = pairs(&[(Server::EMAIL, "owner"), (BOB, "viewer")]);
    assert_eq!(roles(&bob, &tenant).await, expected);
    // Sees it, and changes nothing.
    assert_eq!(bob.list("/api/v1/tenants").await[0]["id"], id.as_str());
    let seen = bob.read(&tenant).await;
    assert!(seen["credentials_token"].is_null(), "an owner's alone");
    let secret = json!({"key": "A_KEY", "value": "x"});
    let refused = bob.post(&format!("{tenant}/secrets"), &secret).await;
    assert_eq!(problem(&refused), (403, "forbidden".to_owned()));
    assert_eq!(
        refused.json()["detail"],
        "this needs the role `developer`, and you are `viewer` here"
    );
    let one = format!("{tenant}/members/{}", text(&member["account_id"]));
    let developer = json!({"role": "developer"});
    let changed = api.owner.say(Method::PATCH, &one, &developer).await;
    assert_eq!(
        (changed.status, &changed.json()["role"]),
        (200, &json!("developer"))
    );
    bob.stage(&tenant, "A_KEY", "x").await;
    assert!(bob.read(&tenant).await["credentials_token"].is_null());
    // A token for this tenant ends with the membership.
    let bound = api.with_token(&api.token_of(BOB, &SCOPES.join(","), &["--tenant", &id]));
    assert_eq!(bound.get(&tenant).await.status, 200);
    assert_eq!(api.owner.delete(&one).await.status, 204);
    for caller in [&bob, &bound] {
        assert_eq!(problem(&caller.get(&tenant).await), (404, "not-found".to_owned()));
        assert!(caller.list("/api/v1/tenants").await.is_empty());
    }
    assert_eq!(problem(&api.owner.delete(&one).await).0, 404);
    let acts = api.owner.list(&format!("{tenant}/audit?limit=200")).await;
    let told: Vec<String> = acts
        .iter()
        .filter(|act| text(&act["action"]).ends_with("_member") || act["action"] == "create_secret")
        .map(|act| {
            format!(
                "{} {} {} {}",
                text(&act["action"]),
                text(&act["role"]),
                text(&act["target"]),
                text(&act["result"])
            )
        })
        .collect();
    assert_eq!(
        told[..5],
        [
            "add_member owner bob@example.com viewer done",
            "create_secret viewer A_KEY refused",
            "update_member owner bob@example.com developer done",
            "create_secret developer A_KEY done",
            "remove_member owner bob@example.com done",
        ]
    );
}

#[tokio::test]
async fn who_cannot_be_added() {
    let api = Api::start();
    api.account(BOB);
    let tenant = api.owner.tenant("acme").await;
    let path = format!("{tenant}/members");
    add(&api.owner, &tenant, BOB, "viewer").await;
    let again = api
        .owner
        .post(&path, &json!({"email": BOB, "role": "owner"}))
        .await;
    assert_eq!(problem(&again), (409, "already-member".to_owned()));
    for (email, role) in [("nobody@example.com", "viewer"), ("bob", "viewer"), (BOB, "king")] {
        let answer = api
            .owner
            .post(&path, &json!({"email": email, "role": role}))
            .await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{email}");
    }
    let expected = pairs(&[(Server::EMAIL, "owner"), (BOB, "viewer")]);
    assert_eq!(roles(&api.owner, &tenant).await, expected);
}

#[tokio::test]
async fn a_tenant_has_an_owner_always() {
    let api = Api::start();
    let bob = api.account(BOB);
    let tenant = api.owner.tenant("acme").await;
    let own = api.owner.list(&format!("{tenant}/members")).await;
    let mine = format!("{tenant}/members/{}", text(&own[0]["account_id"]));
    let less = json!({"role": "viewer"});
    for answer in [
        api.owner.delete(&mine).await,
        api.owner.say(Method::PATCH, &mine, &less).await,
    ] {
        assert_eq!(problem(&answer), (409, "last-owner".to_owned()));
    }
    let member = add(&api.owner, &tenant, BOB, "owner").await;
    // Whoever stays pays, if the plan has room for it.
    let mut others = Vec::new();
    for name in ["one", "two", "three"] {
        others.push(bob.tenant(name).await);
    }
    let full = api.owner.delete(&mine).await;
    assert_eq!(problem(&full), (402, "plan-limit".to_owned()));
    bob.succeeded(&bob.delete(&others[0]).await).await;
    assert_eq!(api.owner.delete(&mine).await.status, 204);
    assert_eq!(bob.read(&tenant).await["owner_id"], member["account_id"]);
    assert_eq!(roles(&bob, &tenant).await, pairs(&[(BOB, "owner")]));
    assert_eq!(api.owner.get(&tenant).await.status, 404);
    let his = format!("{tenant}/members/{}", text(&member["account_id"]));
    assert_eq!(problem(&bob.delete(&his).await), (409, "last-owner".to_owned()));
}

#[tokio::test]
async fn two_owners_do_not_take_each_other_away() {
    let api = Api::start();
    let bob = api.account(BOB);
    let tenant = api.owner.tenant("acme").await;
    let mine = api.owner.list(&format!("{tenant}/members")).await;
    let mine = format!("{tenant}/members/{}", text(&mine[0]["account_id"]));
    let his = add(&api.owner, &tenant, BOB, "owner").await;
    let his = format!("{tenant}/members/{}", text(&his["account_id"]));
    let (one, other) = tokio::join!(api.owner.delete(&his), bob.delete(&mine));
    let mut told = [one.status, other.status];
    told.sort_unstable();
    assert!(told == [204, 404] || told == [204, 409], "{told:?}");
    let left = if one.status == 204 { &api.owner } else { &bob };
    assert_eq!(roles(left, &tenant).await.len(), 1);
}

#[tokio::test]
async fn who_is_taken_away_stops_reading_too() {
    let api = Api::start();
    let bob = api.account(BOB);
    let tenant = api.owner.tenant("acme").await;
    let member = add(&api.owner, &tenant, BOB, "viewer").await;
    let request = bob.call(Method::GET, &format!("{tenant}/events"));
    let response = request.header("accept", "text/event-stream").send().await;
    let mut stream = response.expect("an answer").bytes_stream();
    stream.next().await.expect("a first piece").expect("read");
    let one = format!("{tenant}/members/{}", text(&member["account_id"]));
    assert_eq!(api.owner.delete(&one).await.status, 204);
    let began = Instant::now();
    let to_the_end = async { while stream.next().await.is_some_and(|piece| piece.is_ok()) {} };
    let ended = tokio::time::timeout(Duration::from_secs(30), to_the_end).await;
    assert!(ended.is_ok(), "still reading after {:?}", began.elapsed());
}

#[tokio::test]
async fn as_people_see_it() {
    let mut api = Api::start();
    let token = api.token.clone();
    api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
    api.owner.tenant("acme").await;
    api.command(&["account", "create", BOB], &format!("{PASSWORD}\n"));
    for (name, words) in [
        ("members-add", "members add bob@example.com --role developer"),
        ("members-add-again", "members add bob@example.com --role owner"),
        (
            "members-add-nobody",
            "members add nobody@example.com --role viewer",
        ),
        ("members-add-king", "members add bob@example.com --role king"),
        ("members-set-role", "members set-role bob@example.com viewer"),
        ("members-list", "members list"),
        ("members-remove-last", "members remove operator@example.com"),
        ("members-remove", "members remove bob@example.com"),
        ("members-remove-again", "members remove bob@example.com"),
    ] {
        snapshot(name, &api.of_acme(words));
    }
}
