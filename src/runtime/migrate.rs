//! `services db migrate`: the project's SQL files, in order, once each, under a lock of the database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::time::Instant;

use crate::api::secret::SecretText;
use crate::runtime::migration_files::{File, is_irreversible, pending, read_files};
use crate::runtime::settings::Settings;

/// Any number, as long as nobody else uses it for another lock in this database.
const LOCK: i64 = 0x7370_6d69_6772_6174;
/// Another release may be migrating; it gets this long before we give up.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '120s'";
const PAUSE: Duration = Duration::from_millis(250);

const CREATE_HISTORY: &str = "CREATE TABLE IF NOT EXISTS schema_history (
    version bigint PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";

/// Why the database was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nothing to connect to.
    #[error("`DATABASE_URL` is not set")]
    NoDatabase,
    /// Its text is no URL of a PostgreSQL. The text itself may hold a password and is not shown.
    #[error("`DATABASE_URL` is not a PostgreSQL URL")]
    Url(#[source] Option<sqlx::Error>),
    /// It did not answer in time.
    #[error("failed to reach the database")]
    Unreachable(#[source] Answer),
    /// The folder or a file in it cannot be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file's name gives no number, or one that another file has.
    #[error("`{name}` is not named like `0001_visits.sql`, or its number is taken by another file")]
    Name {
        /// Which.
        name: String,
    },
    /// A file was edited after it had been applied.
    #[error("`{name}` was changed after it had been applied")]
    Changed {
        /// Which.
        name: String,
    },
    /// A file's SQL was refused.
    #[error("failed to apply `{name}`{}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Sql {
        /// Which.
        name: String,
        /// Where, if the database said.
        line: Option<usize>,
        /// Why.
        #[source]
        source: Answer,
    },
    /// The history cannot be read or written, or the lock was not free in time.
    #[error("failed to read or lock the history of migrations")]
    History(#[source] Answer),
}

/// What the database or the way to it said. The driver's own text adds the line of PostgreSQL's source that refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Answer(String);

impl From<sqlx::Error> for Answer {
    fn from(error: sqlx::Error) -> Self {
        Self(match error.as_database_error() {
            Some(refusal) => refusal.message().to_owned(),
            None => error.to_string(),
        })
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that this run applied, in order.
    pub applied: Vec<String>,
    /// Those of them that say of themselves that they cannot be taken back: a line `-- irreversible`.
    pub irreversible: Vec<String>,
    /// Number of files that the database has now.
    pub total: usize,
}

/// Applies every file that the database does not have yet; waits up to `patience` for the database to answer.
///
/// # Errors
/// See [`MigrateError`]; files before the one that failed stay applied, the one that failed leaves nothing.
pub async fn run(settings: &Settings, patience: Duration) -> Result<Report, MigrateError> {
    let files = read_files(&settings.services_path.join("migrations"))?;
    let mut connection = connect(settings, patience).await?;
    let outcome = apply(&mut connection, &files).await;
    // Closing releases the lock; there is nothing to do about a connection that cannot even be closed.
    let _ = connection.close().await;
    outcome
}

/// The newest version among the project's files, which a ready database has.
///
/// # Errors
/// The folder cannot be read.
pub fn newest_version(services_path: &Path) -> Result<Option<i64>, MigrateError> {
    Ok(read_files(&services_path.join("migrations"))?
        .last()
        .map(|file| file.version))
}

async fn apply(connection: &mut PgConnection, files: &[File]) -> Result<Report, MigrateError> {
    let report = |applied: Vec<String>| Report {
        irreversible: files
            .iter()
            .filter(|file| is_irreversible(&file.sql) && applied.contains(&file.name))
            .map(|file| file.name.clone())
            .collect(),
        applied,
        total: files.len(),
    };
    // The usual case at a start: everything is there. It costs one query and no lock.
    if pending(files, &history(connection).await?)?.is_empty() {
        return Ok(report(Vec::new()));
    }
    lock(connection)
        .await
        .map_err(|error| MigrateError::History(error.into()))?;
    let known = history(connection).await?;
    let mut applied = Vec::new();
    for file in pending(files, &known)? {
        apply_file(connection, file)
            .await
            .map_err(|error| MigrateError::Sql {
                name: file.name.clone(),
                line: line_of(&file.sql, &error),
                source: error.into(),
            })?;
        tracing::info!(migration = file.name, "applied migration");
        applied.push(file.name.clone());
    }
    Ok(report(applied))
}

async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await?;
    sqlx::raw_sql(CREATE_HISTORY).execute(&mut *connection).await?;
    Ok(())
}

async fn apply_file(connection: &mut PgConnection, file: &File) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(file.sql.as_str()))
        .execute(&mut *transaction)
        .await?;
    sqlx::query("INSERT INTO schema_history (version, name, checksum) VALUES ($1, $2, $3)")
        .bind(file.version)
        .bind(&file.name)
        .bind(&file.checksum)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Version → checksum of what the database has; empty where there is no history yet.
async fn history(connection: &mut PgConnection) -> Result<BTreeMap<i64, String>, MigrateError> {
    let rows = sqlx::query("SELECT version, checksum FROM schema_history")
        .fetch_all(connection)
        .await;
    match rows {
        Ok(rows) => Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
        Err(error) if is_undefined_table(&error) => Ok(BTreeMap::new()),
        Err(error) => Err(MigrateError::History(error.into())),
    }
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("42P01"))
}

/// Reads a PostgreSQL URL; the driver would take any scheme.
///
/// # Errors
/// It is none.
pub fn connect_options(url: &SecretText) -> Result<PgConnectOptions, MigrateError> {
    let url = url.expose();
    if !["postgresql://", "postgres://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(MigrateError::Url(None));
    }
    url.parse().map_err(|error| MigrateError::Url(Some(error)))
}

async fn connect(settings: &Settings, patience: Duration) -> Result<PgConnection, MigrateError> {
    let url = settings.database_url.as_ref().ok_or(MigrateError::NoDatabase)?;
    let options = connect_options(url)?;
    let deadline = Instant::now() + patience;
    loop {
        let attempt = tokio::time::timeout(patience.max(Duration::from_secs(1)), options.connect()).await;
        let error = match attempt {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        // An answer that says no (wrong password, no such database) does not get better by asking again.
        let refused = error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| code.starts_with("28") || code == "3D000");
        if refused || Instant::now() + PAUSE > deadline {
            return Err(MigrateError::Unreachable(error.into()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The line of the file at which the database stopped reading.
fn line_of(sql: &str, error: &sqlx::Error) -> Option<usize> {
    let error = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    match error.position()? {
        PgErrorPosition::Original(position) => {
            let before = sql.chars().take(position.saturating_sub(1));
            Some(before.filter(|character| *character == '\n').count() + 1)
        }
        PgErrorPosition::Internal { .. } => None,
    }
}
