//! The master key: rotated beside a running server, resumed after a death, lost and found.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures::FutureExt as _;
use serde_json::json;
use systemprompt::api::id::TenantId;
use systemprompt::api::secret::SecretText;
use systemprompt::server::clock::Clock;
use systemprompt::server::rotation::{rotate, status};
use systemprompt::server::store::tenant_keys::{self, TenantKeyRow};
use systemprompt::server::store::{Store, audit};
use systemprompt::server::vault::{SealedKey, SecretName, Vault};

use crate::api::rig::Api;
use crate::store::cases::{NOW, tenant};

const NAME: SecretName<'static> = SecretName {
    scope: "user",
    key: "OPENAI_API_KEY",
    version: 1,
};

#[tokio::test]
async fn a_running_server_goes_on_through_a_rotation() {
    let mut api = Api::start();
    let path = api.owner.tenant("acme").await;
    api.owner.stage(&path, "OPENAI_API_KEY", "sk-1").await;
    let keys = |api: &Api, arguments: &[&str]| {
        let all = [&["keys"], arguments, &["--json"]].concat();
        api.command(&all, "").json()
    };
    let rotated = keys(&api, &["rotate"]);
    assert_eq!(
        (&rotated["version"], &rotated["added"], &rotated["rewrapped"]),
        (&json!(2), &json!(true), &json!(1))
    );
    // The server that has run all the while: an old tenant's secrets, and a new tenant's.
    let deployed = api.owner.deploy(&path, "one").await;
    api.owner.succeeded(&deployed).await;
    let other = api.owner.tenant("other").await;
    api.owner.stage(&other, "OPENAI_API_KEY", "sk-2").await;
    let gone = keys(&api, &["rotate", "--forget-old"]);
    assert_eq!((&gone["added"], &gone["forgotten"]), (&json!(false), &json!([1])));
    let stands = keys(&api, &["status"]);
    assert_eq!(
        (&stands["current"], &stands["versions"]),
        (&json!(2), &json!([{"version": 2, "there": true, "tenants": 2}]))
    );
    for tenant in [&path, &other] {
        let deployed = api.owner.deploy(tenant, "two").await;
        api.owner.succeeded(&deployed).await;
    }
    api.server.stop_well();
    api.server.up();
    let deployed = api.owner.deploy(&path, "three").await;
    api.owner.succeeded(&deployed).await;
    let acts = api.owner.list("/api/v1/audit?limit=200").await;
    assert!(acts.iter().any(|act| act["action"] == "rotate_master_key"));
    // A lost key, and then another one in its place: the server does not start, and says why.
    api.server.stop_well();
    let data = api.server.data_dir();
    let file = Path::new(&data).join("master.key");
    let kept = std::fs::read(&file).expect("a key");
    std::fs::remove_file(&file).expect("removed");
    let lost = api.server.serve_once();
    assert!(
        lost.stderr.contains("failed to find the master key"),
        "{}",
        lost.whole()
    );
    let one_line = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    api.server.house.set("SYSTEMPROMPT_MASTER_KEY", one_line);
    let wrong = api.server.serve_once();
    assert!(wrong.stderr.contains("is not the one"), "{}", wrong.whole());
    assert_ne!((lost.code, wrong.code), (Some(0), Some(0)));
    std::io::Write::write_all(&mut std::fs::File::create(&file).expect("a file"), &kept).expect("written");
    let command = format!("cat {}", file.display());
    api.server.house.set("SYSTEMPROMPT_MASTER_KEY_COMMAND", &command);
    api.server.up();
    assert_eq!(api.owner.read(&path).await["status"], "running");
}

#[tokio::test]
async fn the_key_of_access_tokens_is_rotated_beside_a_running_server() {
    let mut api = Api::start();
    let client = api.owner.clone();
    let published = async |of: &crate::gate::harness::Client| {
        let answer = of.read("/.well-known/jwks.json").await;
        let keys = answer["keys"].as_array().cloned().unwrap_or_default();
        let kids = keys.iter().map(|key| {
            assert_eq!(
                (&key["kty"], &key["crv"], &key["alg"]),
                (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
            );
            assert!(key.get("d").is_none(), "the private half is nobody's: {key}");
            crate::api::rig::text(&key["kid"])
        });
        kids.collect::<std::collections::BTreeSet<String>>()
    };
    let before = published(&client).await;
    assert_eq!(before.len(), 2);
    let rotated = api.command(&["keys", "rotate", "--signing", "--json"], "").json();
    let state = |ring: &serde_json::Value, state: &str| {
        let ring = ring["signing"].as_array().cloned().unwrap_or_default();
        let found = ring.into_iter().filter(|key| key["state"] == state);
        found
            .map(|key| crate::api::rig::text(&key["kid"]))
            .collect::<Vec<_>>()
    };
    let (signs, former) = (state(&rotated, "signs"), state(&rotated, "former"));
    assert_eq!(
        (signs.len(), former.len(), state(&rotated, "next").len()),
        (1, 1, 1)
    );
    assert!(before.contains(&signs[0]) && before.contains(&former[0]));
    assert_eq!(published(&client).await.len(), 3);
    // The same ring after the server was killed, and no private half in what people and programs are told.
    api.server.kill();
    api.server.up();
    let status = api.command(&["keys", "status", "--json"], "").json();
    assert_eq!(state(&status, "signs"), signs);
    let gone = api
        .command(&["keys", "rotate", "--signing", "--forget-old", "--json"], "")
        .json();
    assert!(state(&gone, "former").is_empty());
    let now = published(&client).await;
    assert!(now.len() == 2 && now.is_disjoint(&before), "{now:?}");
    let acts = client.list("/api/v1/audit?limit=200").await;
    let rotations = acts.iter().filter(|act| act["action"] == "rotate_signing_key");
    assert_eq!(rotations.count(), 2);
    let mut metadata = client.read("/.well-known/oauth-authorization-server").await;
    let keys = crate::api::rig::text(&metadata["jwks_uri"].take());
    assert!(keys.ends_with("/.well-known/jwks.json"), "{keys}");
}

#[tokio::test]
async fn a_key_that_has_signed_for_90_days_is_rotated_by_the_server_itself() {
    let mut api = Api::start();
    let client = api.owner.clone();
    let published = async || {
        let keys = client.read("/.well-known/jwks.json").await;
        let keys = keys["keys"].as_array().cloned().unwrap_or_default();
        let kids = keys.iter().map(|key| crate::api::rig::text(&key["kid"]));
        kids.collect::<std::collections::BTreeSet<String>>()
    };
    let before = published().await;
    for (days, rotated) in [(89, false), (91, true)] {
        api.server.stop_well();
        let store = api.server.store().await;
        let mut tx = store.begin().await.expect("begun");
        let then = Clock::system().now().plus_seconds(-days * 24 * 3600);
        let sql = "UPDATE signing_keys SET signs_from = $1 WHERE state = 'signs'";
        tx.execute(sql, vec![then.into()]).await.expect("changed");
        tx.commit().await.expect("committed");
        store.close().await;
        api.server.up();
        let began = std::time::Instant::now();
        let patience = std::time::Duration::from_secs(if rotated { 20 } else { 2 });
        while began.elapsed() < patience && published().await == before {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let now = published().await;
        assert_eq!(now != before, rotated, "after {days} days");
        assert!(now.is_superset(&before), "nothing ends at once");
    }
    let acts = client.list("/api/v1/audit?limit=200").await;
    let rotations: Vec<_> = acts
        .iter()
        .filter(|act| act["action"] == "rotate_signing_key")
        .map(|act| (&act["actor"], &act["target"]))
        .collect();
    assert_eq!(rotations, [(&json!("server"), &json!("by itself"))]);
}

/// A store with this many tenants, each with a key and a value that it has sealed.
async fn sealed(store: &Store, vault: &Vault, clock: &Clock, count: usize) -> Vec<(TenantId, String)> {
    let mut all = Vec::new();
    for number in 0..count {
        let row = tenant(store, clock, &format!("acme-{number}")).await;
        let key = vault.new_tenant_key(&row.id).expect("a key");
        let value = SecretText::new(format!("value {number}"));
        let value = vault.seal(&row.id, &key, NAME, &value).expect("sealed");
        let kept = TenantKeyRow {
            master_version: key.master_version,
            sealed_key: key.sealed_key,
        };
        let mut tx = store.begin().await.expect("begun");
        tenant_keys::insert(&mut tx, &row.id, &kept, NOW)
            .await
            .expect("kept");
        tx.commit().await.expect("committed");
        all.push((row.id, value));
    }
    all
}

#[tokio::test]
async fn a_rotation_that_dies_is_finished_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::system();
    let store = Store::open_sqlite(&folder.path().join("store.db"))
        .await
        .expect("opened");
    store.migrate_up().await.expect("migrated");
    let vault = Vault::open(folder.path(), clock.clone()).expect("a vault");
    let all = sealed(&store, &vault, &clock, 130).await;
    let dying = AssertUnwindSafe(rotate(&store, (&vault, &clock), true, |_| panic!("killed")));
    assert!(dying.catch_unwind().await.is_err());
    let half = status(&store, &vault).await.expect("read");
    let told: Vec<_> = half
        .versions
        .iter()
        .map(|one| (one.version, one.tenants))
        .collect();
    assert_eq!((half.current, told), (2, vec![(1, 30), (2, 100)]));
    let finished = rotate(&store, (&vault, &clock), false, |_| {})
        .await
        .expect("finished");
    assert_eq!(
        (finished.version, finished.added, finished.rewrapped),
        (2, false, 30)
    );
    // Everything is done: the next one is a rotation of its own, and the old keys go with it.
    let next = rotate(&store, (&vault, &clock), false, |_| {})
        .await
        .expect("rotated");
    assert_eq!((next.version, next.added, next.rewrapped), (3, true, 130));
    let last = rotate(&store, (&vault, &clock), true, |_| {})
        .await
        .expect("forgotten");
    assert_eq!((last.added, last.forgotten), (false, vec![1, 2]));
    let again = Vault::open(folder.path(), clock).expect("the canary is of the newest key");
    assert_eq!(again.versions(), (3, vec![3]));
    let mut tx = store.begin_read().await.expect("begun");
    for (number, (tenant, value)) in all.iter().enumerate() {
        let row = tenant_keys::find(&mut tx, tenant)
            .await
            .expect("read")
            .expect("a key");
        let key = SealedKey {
            master_version: row.master_version,
            sealed_key: row.sealed_key,
        };
        let opened = again.unseal(tenant, &key, NAME, value).expect("opened");
        assert_eq!(opened.expose(), format!("value {number}"));
    }
    let acts = audit::list(&mut tx, None, (0, None), 10).await.expect("listed");
    assert_eq!(acts.len(), 4);
}
