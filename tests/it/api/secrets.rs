//! Secrets: set, replaced, removed, applied or staged; their values are seen nowhere.

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::rig::{Api, pretty, problem, snapshot, text};

const VALUE: &str = "sk-open-sesame-1234567890";
const NUMBER: u64 = 4_815_162_342;

fn secret(key: &str, value: &str) -> Value {
    json!({"key": key, "value": value})
}

#[tokio::test]
async fn set_replaced_and_removed_where_nothing_runs() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let all = format!("{tenant}/secrets");
    let set = api.owner.post(&all, &secret("OPENAI_API_KEY", VALUE)).await;
    assert_eq!((set.status, set.header("location")), (200, String::new()));
    snapshot("secret-set", &pretty(&set.json()));
    let one = format!("{all}/OPENAI_API_KEY");
    let replaced = api
        .owner
        .say(Method::PATCH, &one, &json!({"value": "another"}))
        .await;
    assert_eq!(replaced.json()["secret"]["version"], 2);
    assert_ne!(
        replaced.json()["secret"]["digest"],
        set.json()["secret"]["digest"]
    );
    assert_eq!(api.owner.read(&one).await, replaced.json()["secret"]);
    assert_eq!(api.owner.list(&all).await.len(), 1);
    assert_eq!(api.owner.delete(&one).await.status, 200);
    assert!(api.owner.list(&all).await.is_empty());
    let unset = [api.owner.delete(&one).await, api.owner.get(&one).await];
    let patched = api
        .owner
        .say(Method::PATCH, &one, &json!({"value": "another"}))
        .await;
    for answer in unset.iter().chain([&patched]) {
        assert_eq!(problem(answer), (404, "not-found".to_owned()));
    }
    let events = api.owner.event_names(&tenant).await;
    assert_eq!(
        events[events.len() - 3..],
        ["secret_set", "secret_set", "secret_removed"]
    );
}

#[tokio::test]
async fn equal_values_look_equal_in_one_tenant_only() {
    let api = Api::start();
    let digest = async |tenant: &str, key: &str, value: &str| {
        let answer = api
            .owner
            .post(&format!("{tenant}/secrets"), &secret(key, value))
            .await;
        text(&answer.json()["secret"]["digest"])
    };
    let (one, two) = (api.owner.tenant("acme-1").await, api.owner.tenant("acme-2").await);
    let first = digest(&one, "OPENAI_API_KEY", VALUE).await;
    assert_eq!(digest(&one, "GEMINI_API_KEY", VALUE).await, first);
    assert_ne!(digest(&one, "GITHUB_TOKEN", "another").await, first);
    assert_ne!(digest(&two, "OPENAI_API_KEY", VALUE).await, first);
}

#[tokio::test]
async fn a_change_is_applied_by_a_new_release_of_the_same_image() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let set = api
        .owner
        .post(&format!("{tenant}/secrets"), &secret("OPENAI_API_KEY", VALUE))
        .await;
    assert_eq!(set.status, 202, "{}", set.text());
    let operation = api.owner.succeeded(&set).await;
    assert_eq!(operation["kind"], "apply-secrets");
    assert_eq!(
        set.header("location"),
        format!("/api/v1/operations/{}", text(&operation["id"]))
    );
    let first = api.owner.read(&format!("{tenant}/releases/1")).await;
    let second = api.owner.read(&format!("{tenant}/releases/2")).await;
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(
        (&first["secret_versions"], &second["secret_versions"]),
        (&json!({}), &json!({"OPENAI_API_KEY": 1}))
    );
    let shown = api.owner.read(&format!("{tenant}/secrets/OPENAI_API_KEY")).await;
    assert_eq!(shown["staged"], false);
}

#[tokio::test]
async fn a_staged_change_waits_for_the_next_deploy() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", VALUE).await;
    let path = format!("{tenant}/secrets/OPENAI_API_KEY");
    assert_eq!(api.owner.read(&path).await["staged"], true);
    assert_eq!(api.owner.list(&format!("{tenant}/releases")).await.len(), 1);
    api.owner.succeeded(&api.owner.deploy(&tenant, "two").await).await;
    assert_eq!(api.owner.read(&path).await["staged"], false);
    let removed = api.owner.delete(&format!("{path}?stage=true")).await;
    assert_eq!(removed.status, 200, "{}", removed.text());
    let again = format!("{tenant}/deploy");
    let refused = api.owner.post(&again, &json!({"image": "current"})).await;
    assert_eq!(
        refused.status,
        409,
        "the running release has the key: {}",
        refused.text()
    );
    let agreed = json!({"image": "current", "allow_missing": ["OPENAI_API_KEY"]});
    api.owner.succeeded(&api.owner.post(&again, &agreed).await).await;
    let release = api.owner.read(&format!("{tenant}/releases/3")).await;
    assert_eq!(release["secret_versions"], json!({}));
}

#[tokio::test]
async fn names_and_values_that_cannot_be_taken() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let large = "v".repeat(32 * 1024 + 1);
    for (key, value, pointer) in [
        ("lower", "v", "#/key"),
        ("1ST", "v", "#/key"),
        ("A=B", "v", "#/key"),
        ("", "v", "#/key"),
        ("DATABASE_URL", "v", "#/key"),
        ("SYSTEMPROMPT_TOKEN", "v", "#/key"),
        ("OPENAI_API_KEY", large.as_str(), "#/value"),
        ("OPENAI_API_KEY", "a\u{0}b", "#/value"),
    ] {
        let answer = api
            .owner
            .post(&format!("{tenant}/secrets"), &secret(key, value))
            .await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{key}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{key}");
    }
    assert!(api.owner.list(&format!("{tenant}/secrets")).await.is_empty());
    let limit = secret("OPENAI_API_KEY", &"v".repeat(32 * 1024));
    assert_eq!(
        api.owner.post(&format!("{tenant}/secrets"), &limit).await.status,
        200
    );
}

#[tokio::test]
async fn a_refused_value_is_not_repeated() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    for body in [
        json!({"key": "OPENAI_API_KEY", "value": [VALUE]}),
        json!({"key": "OPENAI_API_KEY", "value": {"text": VALUE}}),
        json!({"key": "OPENAI_API_KEY", "value": NUMBER}),
        json!({"key": "lower", "value": VALUE}),
        json!({"key": "OPENAI_API_KEY", "value": "x", "more": VALUE}),
    ] {
        let answer = api.owner.post(&format!("{tenant}/secrets"), &body).await;
        assert_eq!(answer.status, 400);
        let told = answer.text();
        assert!(
            !told.contains(VALUE) && !told.contains(&NUMBER.to_string()),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_value_is_seen_nowhere() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", VALUE).await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    for part in [
        "",
        "/secrets",
        "/secrets/OPENAI_API_KEY",
        "/environment",
        "/events",
        "/operations",
        "/releases",
        "/resources",
        "/status",
        "/logs",
    ] {
        let answer = api.owner.get(&format!("{tenant}{part}")).await;
        assert_eq!(answer.status, 200, "{part}");
        assert!(!answer.text().contains(VALUE), "{part}");
    }
    assert!(!api.server.log().contains(VALUE));
    let kept = api.server.everything_kept();
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    for (name, bytes) in &kept {
        assert!(!holds(bytes, VALUE), "{name} holds the value");
    }
    let tables = kept.iter().filter(|(name, _)| *name != "world.json");
    let named = tables.filter(|(_, bytes)| holds(bytes, "OPENAI_API_KEY"));
    assert!(named.count() > 0, "this is where secrets are kept");
}

#[tokio::test]
async fn rotated_credentials_are_others() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let credentials = async || {
        let token = text(&api.owner.read(&tenant).await["credentials_token"]);
        api.owner.read(&format!("{tenant}/credentials/{token}")).await
    };
    let before = credentials().await;
    let rotated = api
        .owner
        .post_empty(&format!("{tenant}/rotate-credentials"))
        .await;
    assert_eq!(rotated.status, 202, "{}", rotated.text());
    api.owner.succeeded(&rotated).await;
    let after = credentials().await;
    assert_ne!(after["database_url"], before["database_url"]);
    assert!(
        api.owner
            .event_names(&tenant)
            .await
            .contains(&"credentials_rotated".to_owned())
    );
}

#[tokio::test]
async fn every_version_is_remembered_without_its_value() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let one = format!("{tenant}/secrets/OPENAI_API_KEY");
    let versions = format!("{one}/versions");
    assert_eq!(
        problem(&api.owner.get(&versions).await),
        (404, "not-found".to_owned())
    );
    api.owner.stage(&tenant, "OPENAI_API_KEY", VALUE).await;
    assert_eq!(api.owner.delete(&one).await.status, 200);
    api.owner.stage(&tenant, "OPENAI_API_KEY", VALUE).await;
    let told = api.owner.list(&versions).await;
    let seen: Vec<(u64, bool)> = told
        .iter()
        .filter_map(|one| Some((one["version"].as_u64()?, one["removed"].as_bool()?)))
        .collect();
    assert_eq!(seen, [(3, false), (2, true), (1, false)]);
    assert_eq!(told[0]["digest"], told[2]["digest"]);
    let page = api.owner.get(&format!("{versions}?limit=2")).await;
    assert!(page.header("link").contains("rel=\"next\""), "{}", page.text());
    assert!(!page.text().contains(VALUE));
}
