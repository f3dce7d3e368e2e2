//! Support: an operator gets in only by a door that an owner has opened, no further than it leads, not a moment longer
//! than it is open, and everything they do is on record with it.

use serde_json::{Value, json};

use crate::api::rig::{Api, problem, text};
use crate::cli::answers::snapshot;
use crate::gate::harness::Client;

const CAROL: &str = "carol@example.com";

async fn open(owner: &Client, tenant: &str, access: &str) -> Value {
    let wanted = json!({"access": access, "expires_in_seconds": 3600});
    let answer = owner.post(&format!("{tenant}/support-grants"), &wanted).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

/// What the tenant's audit tells of support: who came in as what, what they did and how it ended.
async fn told(owner: &Client, tenant: &str, grant: &Value) -> Vec<String> {
    let door = format!("support {}", text(&grant["id"]));
    let acts = owner.list(&format!("{tenant}/audit?limit=200")).await;
    acts.iter()
        .filter(|act| act["role"] == door.as_str())
        .map(|act| format!("{} {}", text(&act["action"]), text(&act["result"])))
        .collect()
}

#[tokio::test]
async fn an_operator_gets_in_by_the_door_alone() {
    let api = Api::start();
    let carol = api.account(CAROL);
    let tenant = carol.tenant("acme").await;
    carol.stage(&tenant, "A_KEY", "x").await;
    let hidden = async || problem(&api.owner.get(&tenant).await) == (404, "not-found".to_owned());
    assert!(hidden().await);
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
    let door = open(&carol, &tenant, "read").await;
    assert_eq!((&door["open"], &door["opened_by"]), (&json!(true), &json!(CAROL)));
    assert_eq!(api.owner.list("/api/v1/tenants").await.len(), 1);
    assert_eq!(api.owner.get(&tenant).await.status, 200);
    assert_eq!(api.owner.get(&format!("{tenant}/logs")).await.status, 409);
    let secret = json!({"key": "A_KEY", "value": "theirs"});
    let path = format!("{tenant}/secrets?stage=true");
    let refused = api.owner.post(&path, &secret).await;
    assert_eq!(problem(&refused).0, 403);
    let hint = text(&refused.json()["hint"]);
    assert!(
        hint.contains("`systemprompt tenant support open --access full"),
        "{hint}"
    );
    assert_eq!(
        told(&carol, &tenant, &door).await,
        ["get_tenant done", "list_logs refused", "create_secret refused"]
    );
    // Another account, operator or not, has no part in it.
    assert_eq!(api.account("bob@example.com").get(&tenant).await.status, 404);
    let one = format!("{tenant}/support-grants/{}", text(&door["id"]));
    assert_eq!(api.owner.delete(&one).await.status, 403);
    assert_eq!(carol.delete(&one).await.status, 204);
    assert!(hidden().await);
    assert_eq!(carol.delete(&one).await.status, 404);
    let listed = carol.list(&format!("{tenant}/support-grants")).await;
    assert_eq!(
        (&listed[0]["open"], &listed[0]["closed_by"]),
        (&json!(false), &json!(CAROL))
    );
}

#[tokio::test]
async fn full_access_is_a_developers_and_no_owners() {
    let api = Api::start();
    let carol = api.account(CAROL);
    let tenant = carol.tenant("acme").await;
    open(&carol, &tenant, "read").await;
    let door = open(&carol, &tenant, "full").await;
    api.owner.stage(&tenant, "A_KEY", "x").await;
    let seen = api.owner.read(&tenant).await;
    assert!(seen["credentials_token"].is_null(), "never support's");
    let credentials = text(&carol.read(&tenant).await["credentials_token"]);
    let member = json!({"email": "operator@example.com", "role": "owner"});
    let longer = json!({"access": "full", "expires_in_seconds": 600_000});
    for answer in [
        api.owner.post(&format!("{tenant}/members"), &member).await,
        api.owner.post(&format!("{tenant}/support-grants"), &longer).await,
        api.owner
            .get(&format!("{tenant}/credentials/{credentials}"))
            .await,
        api.owner.get(&format!("{tenant}/audit")).await,
        api.owner.delete(&tenant).await,
    ] {
        assert_eq!(problem(&answer), (403, "forbidden".to_owned()));
        let detail = text(&answer.json()["detail"]);
        assert!(detail.contains("`owner`"), "{detail}");
    }
    assert_eq!(
        told(&carol, &tenant, &door).await,
        [
            "create_secret done",
            "get_tenant done",
            "add_member refused",
            "open_support refused",
            "get_credentials refused",
            "list_tenant_audit refused",
            "delete_tenant refused",
        ]
    );
    // Its own tenant an operator looks at without a record of it.
    let own = api.owner.tenant("own").await;
    api.owner.read(&own).await;
    let acts = api.owner.list(&format!("{own}/audit?limit=200")).await;
    assert!(acts.iter().all(|act| act["action"] != "get_tenant"));
}

#[tokio::test]
async fn a_door_is_open_for_a_minute_to_seven_days() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let path = format!("{tenant}/support-grants");
    for seconds in [0, 59, 7 * 24 * 3600 + 1] {
        let wanted = json!({"access": "read", "expires_in_seconds": seconds});
        let answer = api.owner.post(&path, &wanted).await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{seconds}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "#/expires_in_seconds");
    }
    let wide = json!({"access": "everything", "expires_in_seconds": 60});
    assert_eq!(problem(&api.owner.post(&path, &wide).await).0, 400);
    assert!(api.owner.list(&path).await.is_empty());
}

#[tokio::test]
async fn operators_see_what_every_tenant_is_and_nothing_in_it() {
    let api = Api::start();
    let carol = api.account(CAROL);
    let tenant = carol.tenant("acme").await;
    carol.stage(&tenant, "A_KEY", "x").await;
    let all = api.owner.list("/api/v1/operator/tenants").await;
    assert_eq!(all.len(), 1);
    let seen: Vec<&str> = all[0]
        .as_object()
        .expect("a tenant")
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = vec![
        "id",
        "name",
        "status",
        "owner_id",
        "plan",
        "region",
        "provider",
        "memory_mb",
        "database",
        "hostname",
        "url",
        "current_release",
        "created_at",
        "updated_at",
    ];
    expected.sort_unstable();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert_eq!(problem(&carol.get("/api/v1/operator/tenants").await).0, 403);
}

#[tokio::test]
async fn as_people_see_it() {
    let mut api = Api::start();
    let token = api.token.clone();
    api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
    snapshot(
        "tenant-list-all-none",
        &api.server.run(&["tenant", "list", "--all"]),
    );
    api.owner.tenant("acme").await;
    for (name, words) in [
        ("support-list-none", "support list"),
        ("support-close-none", "support close"),
        ("support-open-short", "support open --access read --for 5s"),
        ("support-open", "support open --access full --for 2h"),
        ("support-list", "support list"),
        ("support-close", "support close"),
        ("support-list-closed", "support list"),
    ] {
        snapshot(name, &api.of_acme(words));
    }
    snapshot("tenant-list-all", &api.server.run(&["tenant", "list", "--all"]));
}
