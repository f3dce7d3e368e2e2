//! What a secret was, and back to it: versions and digests are told, values never.

use serde_json::{Value, json};

use crate::api::rig::{Api, pretty, problem, text};
use crate::cli::answers::snapshot;
use crate::cli::rig::Said;

const FIRST: &str = "sk-the-first-value-1234567890";
const SECOND: &str = "sk-another-value-0987654321";

async fn digests(api: &Api, secret: &str) -> Vec<(u64, String)> {
    let versions = api.owner.list(&format!("{secret}/versions")).await;
    let told = |one: &Value| (one["version"].as_u64().expect("a number"), text(&one["digest"]));
    versions.iter().map(told).collect()
}

#[tokio::test]
async fn an_earlier_value_comes_back_as_a_new_version() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let secret = format!("{tenant}/secrets/OPENAI_API_KEY");
    let restore = format!("{secret}/restore");
    api.owner.stage(&tenant, "OPENAI_API_KEY", FIRST).await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", SECOND).await;
    let answer = api.owner.post(&restore, &json!({"version": 1})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["secret"]["version"], 3);
    let told = digests(&api, &secret).await;
    assert_eq!(told.iter().map(|one| one.0).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(told[0].1, told[2].1);
    assert_ne!(told[0].1, told[1].1);
    // One that was removed comes back too.
    assert_eq!(api.owner.delete(&secret).await.status, 200);
    let back = api.owner.post(&restore, &json!({"version": 2})).await;
    assert_eq!((back.status, &back.json()["secret"]["version"]), (200, &json!(5)));
    assert_eq!(digests(&api, &secret).await[0].1, told[1].1);
    for answer in [&answer, &back] {
        assert!(!answer.text().contains(FIRST) && !answer.text().contains(SECOND));
    }
    let history = pretty(&json!(api.owner.list(&format!("{tenant}/events")).await));
    assert!(
        history.contains("`OPENAI_API_KEY` has the value of version 1 again"),
        "{history}"
    );
    let acts = api.owner.list(&format!("{tenant}/audit?limit=200")).await;
    let targets: Vec<&str> = acts
        .iter()
        .filter(|act| act["action"] == "restore_secret")
        .filter_map(|act| act["target"].as_str())
        .collect();
    assert_eq!(targets, ["OPENAI_API_KEY version 1", "OPENAI_API_KEY version 2"]);
    let everything = format!("{history}{}{}", pretty(&json!(acts)), api.server.log());
    assert!(!everything.contains(FIRST) && !everything.contains(SECOND));
}

#[tokio::test]
async fn only_a_version_that_has_a_value_comes_back() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let secret = format!("{tenant}/secrets/OPENAI_API_KEY");
    api.owner.stage(&tenant, "OPENAI_API_KEY", FIRST).await;
    assert_eq!(api.owner.delete(&secret).await.status, 200);
    let events = api.owner.event_names(&tenant).await.len();
    // Version 2 is the removal; nothing but a number is a version.
    for version in [0, 2, 3, 4_294_967_295_u32] {
        let answer = api
            .owner
            .post(&format!("{secret}/restore"), &json!({"version": version}))
            .await;
        assert_eq!(problem(&answer), (404, "not-found".to_owned()), "{version}");
        let hint = text(&answer.json()["hint"]);
        assert!(
            hint.contains("`systemprompt secrets history OPENAI_API_KEY`"),
            "{hint}"
        );
    }
    for body in [json!({}), json!({"version": -1}), json!({"version": "1"})] {
        let answer = api.owner.post(&format!("{secret}/restore"), &body).await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{body}");
    }
    // What the platform keeps for itself is no secret of the tenant's.
    let platform = format!("{tenant}/secrets/DATABASE_URL/restore");
    assert_eq!(
        api.owner.post(&platform, &json!({"version": 1})).await.status,
        404
    );
    assert_eq!(digests(&api, &secret).await.len(), 2);
    assert_eq!(api.owner.event_names(&tenant).await.len(), events);
}

#[tokio::test]
async fn what_runs_gets_the_earlier_value_by_a_new_release() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", FIRST).await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", SECOND).await;
    let restore = format!("{tenant}/secrets/OPENAI_API_KEY/restore");
    let staged = api
        .owner
        .post(&format!("{restore}?stage=true"), &json!({"version": 2}))
        .await;
    assert_eq!(staged.status, 200, "{}", staged.text());
    assert_eq!(staged.json()["operation_id"], Value::Null);
    let answer = api.owner.post(&restore, &json!({"version": 1})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let operation = api.owner.succeeded(&answer).await;
    assert_eq!(operation["kind"], "apply-secrets");
    let release = api.owner.read(&format!("{tenant}/releases/2")).await;
    assert_eq!(release["secret_versions"], json!({"OPENAI_API_KEY": 4}));
}

/// Runs `systemprompt secrets`; it never says a value.
fn secrets(api: &Api, words: &str) -> Said {
    let mut arguments = vec!["secrets"];
    arguments.extend(words.split(' '));
    arguments.extend_from_slice(&["--tenant", "acme"]);
    let said = api.server.run(&arguments);
    for value in [FIRST, SECOND] {
        assert!(!said.whole().contains(value), "{}", said.whole());
    }
    said
}

#[tokio::test]
async fn as_people_see_it() {
    let mut api = Api::start();
    let token = api.token.clone();
    api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
    let tenant = api.owner.tenant("acme").await;
    snapshot("secrets-history-none", &secrets(&api, "history A_KEY"));
    snapshot("secrets-diff-none", &secrets(&api, "diff"));
    for (key, value) in [
        ("A_KEY", FIRST),
        ("B_KEY", FIRST),
        ("C_KEY", FIRST),
        ("E_KEY", FIRST),
    ] {
        api.owner.stage(&tenant, key, value).await;
    }
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    snapshot("secrets-diff-same", &secrets(&api, "diff"));
    for (key, value) in [("A_KEY", SECOND), ("D_KEY", SECOND), ("C_KEY", FIRST)] {
        api.owner.stage(&tenant, key, value).await;
    }
    let removed = api
        .owner
        .delete(&format!("{tenant}/secrets/B_KEY?stage=true"))
        .await;
    assert_eq!(removed.status, 200);
    snapshot("secrets-diff", &secrets(&api, "diff --release 1"));
    let told = secrets(&api, "diff --json").ok().json();
    let of = |key: &str| {
        let lines = told["differences"].as_array().expect("a list");
        let line = lines.iter().find(|line| line["key"] == key);
        line.map(|line| text(&line["difference"]))
    };
    let named = ["A_KEY", "B_KEY", "C_KEY", "D_KEY"].map(of);
    let words = ["changed", "removed", "same", "added"].map(|word| Some(word.to_owned()));
    assert_eq!((named, of("E_KEY")), (words, None));
    snapshot("secrets-history", &secrets(&api, "history A_KEY"));
    snapshot("secrets-history-removed", &secrets(&api, "history B_KEY"));
    // C_KEY was set twice to one value: there is no other to go back to.
    snapshot("secrets-rollback-none", &secrets(&api, "rollback C_KEY --stage"));
    snapshot("secrets-rollback-bad", &secrets(&api, "rollback A_KEY --to 9"));
    snapshot(
        "secrets-rollback-staged",
        &secrets(&api, "rollback B_KEY --stage"),
    );
    snapshot("secrets-rollback", &secrets(&api, "rollback A_KEY"));
    snapshot("secrets-diff-unknown", &secrets(&api, "diff --release 9"));
}
