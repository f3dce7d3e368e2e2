//! The secret that a tenant signs its own tokens with, rotated over HTTP and by the command.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::api::rig::{Api, problem, text};
use crate::gate::harness::Client;

/// The signing secret as its owner is given it, once.
async fn given(owner: &Client, tenant: &str) -> String {
    let token = text(&owner.read(tenant).await["credentials_token"]);
    let path = format!("{tenant}/credentials/{token}");
    let secret = text(&owner.read(&path).await["jwt_secret"]);
    assert!(owner.post_empty(&format!("{path}/confirm")).await.status < 300);
    secret
}

/// What the tenant's machine knows of both secrets, as digests.
fn known(api: &Api) -> (String, Option<String>) {
    let machines = api
        .server
        .world()
        .change(|state| state.machines.clone())
        .expect("a world");
    let machine = machines
        .into_values()
        .find(|machine| machine.traffic)
        .expect("it serves");
    let value = |name: &str| machine.environment.get(name).cloned();
    (
        value("JWT_SECRET").expect("a secret"),
        value("JWT_SECRET_PREVIOUS"),
    )
}

#[tokio::test]
async fn a_rotation_keeps_the_former_secret_for_a_time() {
    let api = Api::start();
    let owner = &api.owner;
    let tenant = owner.tenant("acme").await;
    let answer = owner.deploy(&tenant, "one").await;
    owner.succeeded(&answer).await;
    let digest = |secret: &str| hex::encode(Sha256::digest(secret.as_bytes()));
    let first = given(owner, &tenant).await;
    assert_eq!(known(&api), (digest(&first), None));

    let path = format!("{tenant}/rotate-jwt-secret");
    let answer = owner.post(&path, &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    owner.succeeded(&answer).await;
    let second = given(owner, &tenant).await;
    assert_ne!(first, second);
    assert_eq!(known(&api), (digest(&second), Some(digest(&first))));
    let events = owner.list(&format!("{tenant}/events?limit=200")).await;
    let told = text(&events.last().expect("an event")["message"]);
    assert!(told.contains("those signed before are good until 20"), "{told}");
    let shown = owner.list(&format!("{tenant}/environment")).await;
    let former = shown
        .iter()
        .find(|entry| entry["name"] == "JWT_SECRET_PREVIOUS")
        .expect("shown");
    assert_eq!(
        (text(&former["source"]), text(&former["value"])),
        ("platform".to_owned(), "••••••".to_owned())
    );

    let refused = owner.post(&path, &json!({"overlap_seconds": 60})).await;
    assert_eq!(problem(&refused).0, 409, "{}", refused.text());
    let refused = owner.post(&path, &json!({"overlap_seconds": 2_592_001})).await;
    assert_eq!(problem(&refused).0, 400);
    let secret = json!({"key": "JWT_SECRET_PREVIOUS", "value": "mine"});
    assert_eq!(
        problem(&owner.post(&format!("{tenant}/secrets"), &secret).await).0,
        400
    );
    let both = json!({"overlap_seconds": 60, "end_overlap": true});
    assert_eq!(problem(&owner.post(&path, &both).await).0, 400);
    let answer = owner.post(&path, &json!({"end_overlap": true})).await;
    owner.succeeded(&answer).await;
    assert_eq!(known(&api), (digest(&second), None), "before its time");
    assert_eq!(
        problem(&owner.post(&path, &json!({"end_overlap": true})).await).0,
        409
    );
    // Whoever has lost one ends everything that was signed so far.
    let answer = owner.post(&path, &json!({"overlap_seconds": 0})).await;
    owner.succeeded(&answer).await;
    let third = given(owner, &tenant).await;
    assert_eq!(known(&api), (digest(&third), None));
}
