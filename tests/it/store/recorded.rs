//! Rows that earlier versions wrote, read by this one; and rows of a later one, which knows more than this one does.
//!
//! `RECORD_ROWS=0.2.0 cargo nextest run --test it rows_are_recorded` writes those of this version. A recording is never
//! changed: it stands for the databases that are out there.

use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use serde_json::{Map, Value as Json, json};
use sqlx::{AssertSqlSafe, Column as _, Row as _};
use systemprompt::api::id::TenantId;
use systemprompt::server::store::row::Value;
use systemprompt::server::store::{
    Store, accounts, api_tokens, checkouts, credential_grants, events, operation_steps, operations, receipts,
    releases, resources, secret_versions, settings, tenant_keys, tenants,
};

use crate::api::rig::Api;
use crate::cli::rig::Server;
use crate::store::Case;
use crate::store::cases::NOW;

pub(crate) const ALL: &[Case] = &[
    ("rows of earlier versions are read", |store| {
        read_all(store, false).boxed()
    }),
    ("rows of a later version are read", |store| {
        read_all(store, true).boxed()
    }),
];

/// What the migrations write is there already.
const SEEDED: [&str; 2] = ["settings", "audit_head"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/rows")
}

fn recordings() -> Vec<Map<String, Json>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("recordings")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there is a recording");
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a recording");
    files
        .iter()
        .map(|path| serde_json::from_str(&read(path)).expect("JSON"))
        .collect()
}

/// Columns that hold documents, which may grow; other JSON is a map or a list of what is there.
const DOCUMENTS: [&str; 7] = ["params", "result", "error", "detail", "output", "request", "body"];

/// What a later version might add to a document that is kept as JSON.
fn with_more(text: &str) -> Option<String> {
    let mut document: Map<String, Json> = serde_json::from_str(text).ok()?;
    document.insert("of_a_later_version".to_owned(), json!({"new": [1, 2]}));
    Some(Json::Object(document).to_string())
}

fn value(cell: &Json, later: bool) -> Value {
    match cell {
        Json::Null => Value::Text(None),
        Json::Number(number) => Value::from(number.as_i64().expect("an integer")),
        Json::String(text) if later => Value::from(with_more(text).unwrap_or_else(|| text.clone())),
        Json::String(text) => Value::from(text.as_str()),
        other => panic!("{other} is no cell"),
    }
}

/// Writes recorded rows as the version that recorded them did: columns that came later are not named.
pub(crate) async fn write(store: &Store, recording: &Map<String, Json>, later: bool) {
    let mut tx = store.begin().await.expect("begun");
    for (table, rows) in recording {
        if SEEDED.contains(&table.as_str()) || table == "audit" {
            continue;
        }
        for row in rows.as_array().expect("rows") {
            // A NULL needs no type where it is not named at all.
            let cells: Vec<(&String, &Json)> = row
                .as_object()
                .expect("a row")
                .iter()
                .filter(|(_, cell)| !cell.is_null())
                .collect();
            let names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
            let places: Vec<String> = (1..=cells.len()).map(|number| format!("${number}")).collect();
            let sql = format!(
                "INSERT INTO {table} ({}) VALUES ({})",
                names.join(", "),
                places.join(", ")
            );
            let grows = |name: &str| later && DOCUMENTS.contains(&name);
            let values = cells
                .iter()
                .map(|(name, cell)| value(cell, grows(name)))
                .collect();
            let sql: &'static str = Box::leak(sql.into_boxed_str());
            tx.execute(sql, values)
                .await
                .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        }
    }
    tx.commit().await.expect("committed");
}

fn texts(recording: &Map<String, Json>, table: &str, column: &str) -> Vec<String> {
    let rows = recording[table].as_array().expect("rows");
    rows.iter()
        .map(|row| row[column].as_str().expect("a text").to_owned())
        .collect()
}

async fn read_all(store: Store, later: bool) {
    for recording in recordings() {
        write(&store, &recording, later).await;
        read(&store, &recording).await;
    }
}

async fn read(store: &Store, recording: &Map<String, Json>) {
    let mut tx = store.begin_read().await.expect("begun");
    for id in texts(recording, "accounts", "id") {
        let id = id.parse().expect("an id");
        let account = accounts::find(&mut tx, &id).await.expect("read");
        assert!(account.is_some());
        api_tokens::list(&mut tx, &id, "", 100).await.expect("tokens");
    }
    for id in texts(recording, "tenants", "id") {
        let id: TenantId = id.parse().expect("an id");
        let tenant = tenants::get(&mut tx, &id).await.expect("a tenant");
        let all = events::list_after(&mut tx, &id, 0, 1000).await.expect("events");
        assert_eq!(all.len() as u64, tenant.last_event_seq);
        assert!(
            !resources::list(&mut tx, &id)
                .await
                .expect("the ledger")
                .is_empty()
        );
        releases::list(&mut tx, &id, None, 100).await.expect("releases");
        tenant_keys::find(&mut tx, &id).await.expect("a key");
        credential_grants::find_open(&mut tx, &id, NOW)
            .await
            .expect("a grant");
        receipts::find(&mut tx, &id).await.expect("a receipt");
        for scope in [
            secret_versions::SecretScope::User,
            secret_versions::SecretScope::Platform,
        ] {
            secret_versions::list_latest(&mut tx, &id, scope)
                .await
                .expect("secrets");
        }
    }
    for id in texts(recording, "operations", "id") {
        let id = id.parse().expect("an id");
        operations::get(&mut tx, &id).await.expect("an operation");
        let steps = operation_steps::list(&mut tx, &id).await.expect("steps");
        assert!(!steps.is_empty());
    }
    for id in texts(recording, "checkouts", "id") {
        let found = checkouts::find(&mut tx, &id.parse().expect("an id")).await;
        assert!(found.expect("read").is_some());
    }
    settings::find(&mut tx, "instance").await.expect("a setting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(
    clippy::disallowed_methods,
    reason = "the test environment is no setting of the program"
)]
async fn rows_are_recorded() {
    let Ok(version) = std::env::var("RECORD_ROWS") else {
        return;
    };
    let api = Api::over(Server::alone());
    let (kept, gone) = (api.owner.tenant("kept").await, api.owner.tenant("gone").await);
    api.owner.stage(&kept, "OPENAI_API_KEY", "value").await;
    for content in ["one", "two"] {
        let deployed = api.owner.deploy(&kept, content).await;
        api.owner.succeeded(&deployed).await;
    }
    let removed = api.owner.ask(reqwest::Method::DELETE, &gone).await;
    api.owner.succeeded(&removed).await;
    let Store::Sqlite { reader, .. } = api.server.store().await else {
        panic!("a file");
    };
    let mut recording = Map::new();
    for table in in_order() {
        let select = AssertSqlSafe(format!("SELECT * FROM {table}"));
        let rows = sqlx::query(select).fetch_all(&reader).await.expect("rows");
        let rows: Vec<Json> = rows.iter().map(cells).collect();
        recording.insert(table.to_owned(), Json::Array(rows));
    }
    let text = serde_json::to_string_pretty(&recording).expect("JSON");
    let mut file = std::fs::File::create(folder().join(format!("{version}.json"))).expect("a file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
}

/// Tables after those that their rows point to.
fn in_order() -> [&'static str; 17] {
    [
        "settings",
        "accounts",
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
        "api_tokens",
        "idempotency_keys",
        "audit_head",
        "audit",
    ]
}

pub(crate) fn cells(row: &sqlx::sqlite::SqliteRow) -> Json {
    let cell = |name: &str| match row.try_get::<Option<i64>, _>(name) {
        Ok(number) => json!(number),
        Err(_) => json!(row.try_get::<Option<String>, _>(name).expect("a text")),
    };
    let names = row.columns().iter().map(|column| column.name());
    Json::Object(names.map(|name| (name.to_owned(), cell(name))).collect())
}
