//! Whole installations that earlier versions left in the middle of their work: this version goes on with each of them.
//!
//! `RECORD_FORMATS=0.2.0 cargo nextest run --test it an_installation_is_recorded` leaves one of this version. A recording
//! is never changed: it stands for the installations that are out there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::Store;
use systemprompt::server::world::Fault;
use systemprompt::server::world::Machine;

use crate::api::rig::{Api, client, text};
use crate::cli::rig::Server;
use crate::store::recorded::{cells, write};

/// Tables after those that their rows point to. The audit's chain is another test's, and every tenant brings its owner.
const TABLES: &[&str] = &[
    "settings",
    "accounts",
    "api_tokens",
    "web_sessions",
    "sessions",
    "tenants",
    "operations",
    "operation_steps",
    "events",
    "resources",
    "releases",
    "tenant_keys",
    "secret_versions",
    "credential_grants",
    "receipts",
    "checkouts",
    "idempotency_keys",
    "trust_rules",
    "support_grants",
    "log_streams",
    "log_chunks",
    "log_positions",
    "metric_blocks",
];
/// Times of these tables are not those at which something ends.
const AT: [&str; 2] = ["at", "lease_until"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/formats")
}

fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    let mut file = std::fs::File::create(path).expect("a file");
    file.write_all(bytes).expect("written");
}

/// Copies files from folder to folder, as `keep` wants it.
fn copy(from: &Path, to: &Path, keep: &dyn Fn(&str) -> bool) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if !keep(&name) {
            continue;
        }
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &to.join(&name), keep);
        } else {
            put(&to.join(&name), &std::fs::read(entry.path()).expect("read"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the test environment is no setting of the program"
)]
async fn an_installation_is_recorded() {
    let Ok(version) = std::env::var("RECORD_FORMATS") else {
        return;
    };
    let folder = folder().join(version);
    let mut api = Api::over(Server::alone());
    api.server.sign_in();
    api.server.tenant("kept");
    let tenants = api.owner.list("/api/v1/tenants").await;
    let kept = format!("/api/v1/tenants/{}", text(&tenants[0]["id"]));
    api.owner.stage(&kept, "OPENAI_API_KEY", "a value").await;
    for content in ["one", "two"] {
        let deployed = api.owner.deploy(&kept, content).await;
        api.owner.succeeded(&deployed).await;
    }
    let removed = api.owner.tenant("gone").await;
    let removed = api.owner.ask(Method::DELETE, &removed).await;
    api.owner.succeeded(&removed).await;
    let keyed = api.owner.call(Method::POST, &format!("{kept}/restart"));
    let keyed = api.owner.send(keyed.header("idempotency-key", "recorded")).await;
    api.owner.succeeded(&keyed).await;
    let page = api.owner.get(&format!("{kept}/operations?limit=2")).await;
    // The lines of its releases are read by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let world = api.server.world();
    let slow = Fault::Delay { millis: 600_000 };
    world.plan("provider.create_volume", 1, slow).expect("planned");
    let before = world.calls("provider.create_volume").expect("the world");
    let begun = api.owner.checkout("begun").await;
    while world.calls("provider.create_volume").expect("the world") == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let Store::Sqlite { reader, .. } = api.server.store().await else {
        panic!("a file");
    };
    let mut rows = Map::new();
    for table in TABLES {
        let select = AssertSqlSafe(format!("SELECT * FROM {table}"));
        let all = sqlx::query(select).fetch_all(&reader).await.expect("rows");
        rows.insert((*table).to_owned(), all.iter().map(cells).collect());
    }
    api.server.kill();
    let answers = json!({
        "recorded_at": Clock::system().now().as_millis(),
        "token": api.token,
        "cursor": page.json()["next_cursor"],
        "keyed": {"key": "recorded", "id": keyed.json()["id"]},
        "kept": kept,
        "begun": begun.json()["operation_id"],
    });
    let pretty = |document: &Json| serde_json::to_vec_pretty(document).expect("JSON");
    put(&folder.join("rows.json"), &pretty(&Json::Object(rows)));
    put(&folder.join("answers.json"), &pretty(&answers));
    let data = PathBuf::from(api.server.data_dir());
    copy(&data, &folder.join("data"), &|name| {
        !name.starts_with("systemprompt.db")
    });
    copy(
        &api.server.house.path(".systemprompt"),
        &folder.join("project"),
        &|_| true,
    );
}

/// The recording as if it had been made a moment ago: what ends with time has not ended.
fn young(rows: &mut Map<String, Json>, recorded_at: i64) {
    let later = Clock::system().now().as_millis() - recorded_at;
    let rows = rows.values_mut().filter_map(Json::as_array_mut).flatten();
    for (name, cell) in rows.filter_map(Json::as_object_mut).flatten() {
        let is_time = name.ends_with("_at") || AT.contains(&name.as_str());
        if let Some(number) = cell.as_i64().filter(|_| is_time) {
            *cell = json!(number + later);
        }
    }
}

fn read(folder: &Path, name: &str) -> Map<String, Json> {
    let text = std::fs::read_to_string(folder.join(name)).expect("a recording");
    serde_json::from_str(&text).expect("JSON")
}

/// A server over what was recorded, and what it had answered.
async fn revived(folder: &Path, later: bool) -> (Server, Map<String, Json>) {
    let (mut rows, answers) = (read(folder, "rows.json"), read(folder, "answers.json"));
    young(&mut rows, answers["recorded_at"].as_i64().expect("a time"));
    let mut server = Server::down();
    let data = PathBuf::from(server.data_dir());
    copy(&folder.join("data"), &data, &|_| true);
    copy(
        &folder.join("project"),
        &server.house.path(".systemprompt"),
        &|_| true,
    );
    let store = Store::open_sqlite(&data.join("systemprompt.db"))
        .await
        .expect("opened");
    store.migrate_up().await.expect("migrated");
    write(&store, &rows, later).await;
    let mut tx = store.begin().await.expect("begun");
    for setting in rows["settings"].as_array().expect("rows") {
        let (key, value) = (text(&setting["key"]), text(&setting["value"]));
        tx.execute(
            "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            vec![key.into(), value.into()],
        )
        .await
        .expect("written");
    }
    tx.commit().await.expect("committed");
    store.close().await;
    if later {
        let path = ".systemprompt/tenants.json";
        let known = server.house.read(path);
        server
            .house
            .put(path, &known.replacen('{', "{\"of_a_later_version\": 1,", 1));
    }
    server.up();
    let token = text(&answers["token"]);
    server.house.set("SYSTEMPROMPT_TOKEN", &token);
    (server, answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installations_of_other_versions_go_on() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).expect("recordings") {
        let folder = entry.expect("an entry").path();
        if folder.is_dir() {
            goes_on(&folder, false).await;
            goes_on(&folder, true).await;
            count += 1;
        }
    }
    assert!(count > 0, "there is a recording");
}

async fn goes_on(folder: &Path, later: bool) {
    let (server, answers) = revived(folder, later).await;
    let token = text(&answers["token"]);
    let owner = client(&server, Some(&format!("Bearer {token}")));
    let kept = text(&answers["kept"]);

    // What was in the middle of a step comes to its end, after the events that were there.
    let begun = format!("/api/v1/operations/{}", text(&answers["begun"]));
    let began = std::time::Instant::now();
    let ended = loop {
        let operation = owner.read(&begun).await;
        if operation["status"] == "succeeded" {
            break operation;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{operation:#}{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let tenant = format!("/api/v1/tenants/{}", text(&ended["tenant_id"]));
    for tenant in [&tenant, &kept] {
        let events = owner.list(&format!("{tenant}/events?limit=200")).await;
        let numbers: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        assert!(events.len() >= 8);
    }

    // A cursor and a key that it had given out, and answered, are good.
    let cursor = text(&answers["cursor"]);
    let rest = owner
        .list(&format!("{kept}/operations?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(rest.len(), 2, "{rest:?}");
    let keyed = owner.call(Method::POST, &format!("{kept}/restart"));
    let keyed = owner
        .send(keyed.header("idempotency-key", text(&answers["keyed"]["key"])))
        .await;
    assert_eq!(keyed.json()["id"], answers["keyed"]["id"], "{}", keyed.text());
    assert_eq!(keyed.header("idempotency-replayed"), "true");

    // The project knows its tenant, secrets are opened for a new release, and an old one comes back whole.
    let listed = server.run(&["tenant", "list", "--json"]).ok().json();
    assert!(
        listed["tenants"].as_array().is_some_and(|all| all.len() == 2),
        "{listed:#}"
    );
    server.run(&["tenant", "status", "kept"]).ok();
    assert!(
        server
            .run(&["tenant", "logs", "kept"])
            .ok()
            .stdout
            .contains("ready")
    );
    let before = owner.list(&format!("{kept}/releases")).await.len();
    server.run(&["rollback", "v1", "--tenant", "kept", "--yes"]).ok();
    let releases = owner.list(&format!("{kept}/releases")).await;
    assert_eq!(releases.len(), before + 1);
    let machines = server
        .world()
        .change(|state| state.machines.clone())
        .expect("the world");
    let digest = hex::encode(Sha256::digest("a value"));
    let opened = |machine: &Machine| machine.environment.get("OPENAI_API_KEY") == Some(&digest);
    assert!(machines.values().any(opened), "{machines:?}");
    server.run(&["tenant", "edit", "kept", "--name", "renamed"]).ok();
    let project = server.house.read(".systemprompt/tenants.json");
    assert!(project.contains("renamed"), "{project}");
    assert_eq!(project.contains("of_a_later_version"), later, "{project}");
}
