//! The least that an API over a database can do: axum and sqlx, the token looked up in its table, then one statement, then
//! JSON. `api SQLITE-FILE|POSTGRES-URL` prints where it answers.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a floor of benches")]

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{ColumnIndex, Decode, Row, Type};

const TOKEN: &str = "SELECT t.id, t.account_id, t.scopes, t.expires_at, t.revoked_at, a.email, a.operator
    FROM api_tokens t JOIN accounts a ON a.id = t.account_id WHERE t.token_hash = $1";
const ONE: &str = "SELECT t.*, m.role AS member_role FROM tenants t
    JOIN members m ON m.tenant_id = t.id AND m.account_id = $2 WHERE t.id = $1";
const PAGE: &str = "SELECT t.* FROM members m JOIN tenants t ON t.id = m.tenant_id
    WHERE m.account_id = $1 AND m.tenant_id > $2 AND t.status <> 'deleted' ORDER BY m.tenant_id LIMIT 51";
/// PostgreSQL would read every tenant before the page with the one above.
const PAGE_OF_POSTGRES: &str = "SELECT t.* FROM members m
    CROSS JOIN LATERAL (SELECT * FROM tenants WHERE id = m.tenant_id AND status <> 'deleted' OFFSET 0) t
    WHERE m.account_id = $1 AND m.tenant_id > $2 ORDER BY m.tenant_id LIMIT 51";

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[derive(Serialize)]
struct Tenant {
    id: String,
    name: String,
    status: String,
    owner_id: String,
    plan: String,
    region: String,
    provider: String,
    memory_mb: i64,
    database: String,
    current_release: Option<i64>,
    hostname: String,
    url: String,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct Page {
    data: Vec<Tenant>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    cursor: String,
}

fn tenant<R: Row>(row: &R) -> Tenant
where
    for<'a> &'a str: ColumnIndex<R>,
    for<'a> String: Decode<'a, R::Database> + Type<R::Database>,
    for<'a> i64: Decode<'a, R::Database> + Type<R::Database>,
{
    let text = |column: &str| row.try_get::<String, _>(column).expect("text");
    let time = |column: &str| {
        let millis = row.try_get::<i64, _>(column).expect("a time");
        jiff::Timestamp::from_millisecond(millis)
            .expect("a time")
            .to_string()
    };
    let label = text("label");
    Tenant {
        id: text("id"),
        name: text("name"),
        status: text("status"),
        owner_id: text("owner_id"),
        plan: text("plan"),
        region: text("region"),
        provider: text("provider"),
        memory_mb: row.try_get("memory_mb").expect("a number"),
        database: text("database_kind"),
        current_release: None,
        hostname: format!("{label}.localhost"),
        url: format!("http://{label}.localhost:8080"),
        created_at: time("created_at"),
        updated_at: time("updated_at"),
    }
}

/// Runs a statement with text arguments on whichever of the two it is.
macro_rules! rows {
    ($pool:expr, $sql:expr, $fetch:ident, |$row:ident| $read:expr, $($arg:expr),+) => {
        match $pool {
            Pool::Sqlite(pool) => sqlx::query($sql)$(.bind($arg))+.$fetch(pool).await.expect("answered")
                .into_iter().map(|$row: SqliteRow| $read).collect::<Vec<_>>(),
            Pool::Postgres(pool) => sqlx::query($sql)$(.bind($arg))+.$fetch(pool).await.expect("answered")
                .into_iter().map(|$row: PgRow| $read).collect::<Vec<_>>(),
        }
    };
}

async fn account(pool: &Pool, headers: &HeaderMap) -> Result<String, StatusCode> {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = shown
        .and_then(|shown| shown.strip_prefix("Bearer "))
        .ok_or(StatusCode::UNAUTHORIZED)?;
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    let found = rows!(
        pool,
        TOKEN,
        fetch_optional,
        |row| row.try_get::<String, _>("account_id").expect("text"),
        &hash
    );
    found.into_iter().next().ok_or(StatusCode::UNAUTHORIZED)
}

async fn one(
    State(pool): State<Pool>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Tenant>, StatusCode> {
    let account = account(&pool, &headers).await?;
    let found = rows!(&pool, ONE, fetch_optional, |row| tenant(&row), &id, &account);
    found.into_iter().next().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn list(
    State(pool): State<Pool>,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Json<Page>, StatusCode> {
    let account = account(&pool, &headers).await?;
    let after = URL_SAFE_NO_PAD
        .decode(&query.cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(StatusCode::UNPROCESSABLE_ENTITY)?;
    let page = match &pool {
        Pool::Sqlite(_) => PAGE,
        Pool::Postgres(_) => PAGE_OF_POSTGRES,
    };
    let mut data = rows!(&pool, page, fetch_all, |row| tenant(&row), &account, &after);
    let more = data.len() > 50;
    data.truncate(50);
    let next_cursor = data.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(Page { data, next_cursor }))
}

#[tokio::main]
async fn main() {
    let at = std::env::args().nth(1).expect("a database");
    let pool = if at.starts_with("postgres") {
        let pool = PgPoolOptions::new()
            .max_connections(16)
            .test_before_acquire(false);
        Pool::Postgres(pool.connect(&at).await.expect("connected"))
    } else {
        let options = SqliteConnectOptions::new()
            .filename(&at)
            .journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false);
        Pool::Sqlite(pool.connect_with(options.read_only(true)).await.expect("opened"))
    };
    let router = Router::new()
        .route("/api/v1/tenants", get(list))
        .route("/api/v1/tenants/{id}", get(one))
        .with_state(pool);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    println!("http://{}", listener.local_addr().expect("an address"));
    axum::serve(listener, router).await.expect("served");
}
