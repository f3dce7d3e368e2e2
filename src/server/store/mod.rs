//! The store: one schema and one set of statements over SQLite and PostgreSQL; `Tx` is the unit of work.
//!
//! One file per table: plain functions over [`Tx`] (`find_` answers `Option`, `get_` errs), called before one commit.

pub mod accounts;
pub mod acts;
pub mod api_tokens;
pub mod audit;
pub mod bell;
pub mod callers;
pub mod checkouts;
mod collation;
pub mod connections;
pub mod copy;
pub mod credential_grants;
pub mod device_grants;
pub mod duties;
pub mod edge_sessions;
pub mod events;
pub mod idempotency_keys;
pub mod identities;
pub mod log_chunks;
pub mod log_lines;
pub mod log_positions;
pub mod members;
pub mod metric_blocks;
pub mod migrate;
pub mod operation_leases;
pub mod operation_steps;
pub mod operations;
pub mod password_tries;
pub mod postgres;
pub mod rate_limits;
pub mod receipts;
pub mod releases;
pub mod resources;
pub mod roles;
pub mod row;
pub mod secret_versions;
pub mod sessions;
pub mod settings;
pub mod sign_in_links;
pub mod signing_keys;
pub mod sqlite;
pub mod support_grants;
pub mod tenant_keys;
pub mod tenant_life;
pub mod tenant_lists;
pub mod tenants;
pub mod trust_rules;
mod tx;
pub mod used_identities;
pub mod web_sessions;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use crate::api::secret::SecretText;
use crate::server::store::connections::Connections;
use crate::server::store::postgres::PostgresSettings;
use crate::server::store::sqlite::{Group, SqliteTx};
pub use crate::server::store::tx::Tx;

/// For how long the database may take to say that it is there.
const PING_WITHIN: Duration = Duration::from_secs(2);

/// So much of the file readers look at where the kernel keeps it (<https://sqlite.org/mmap.html>), in bytes. Of a file with a
/// million tenants a request for one would read five pages otherwise: a quarter of its processor time.
/// Writes, and reads before a write, go by calls that can fail: a bad disk is told by an error there.
const READ_IN_PLACE: &str = "1073741824";

/// What can go wrong below a statement.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened or reached.
    #[error("failed to open the database")]
    Open(#[source] sqlx::Error),
    /// A statement failed.
    #[error("failed to run a statement")]
    Statement(#[source] sqlx::Error),
    /// A row that breaks a UNIQUE rule.
    #[error("a row with the same unique value exists")]
    Duplicate(#[source] sqlx::Error),
    /// A column that cannot be read as what it must be.
    #[error("column `{column}` holds `{value}`, which is not what it must hold")]
    BadRow {
        /// Which column.
        column: &'static str,
        /// What stands there.
        value: String,
        /// Why it was refused.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A NULL where there must be none.
    #[error("column `{column}` is NULL and must not be")]
    UnexpectedNull {
        /// Which column.
        column: &'static str,
    },
    /// A row that must be there is not.
    #[error("no {what} `{id}`")]
    Missing {
        /// Kind of row.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// A state that cannot follow the present one.
    #[error("a {what} that is `{from}` cannot become `{to}`")]
    IllegalTransition {
        /// Kind of row.
        what: &'static str,
        /// The state it is in.
        from: String,
        /// The state that was asked for.
        to: String,
    },
    /// The worker that writes does not hold the operation any more.
    #[error("operation `{id}` is held by another worker now")]
    Fenced {
        /// Which operation.
        id: String,
    },
    /// A newer program has been at work on this database.
    #[error(
        "failed to use the database: it has migration {version}, and this program knows them up to {known}\n\
         hint: run the newer version of `systemprompt` that wrote it, or restore a backup from before"
    )]
    NewerSchema {
        /// The migration that is not known.
        version: i64,
        /// The last one that is.
        known: i64,
    },
    /// A migration was not applied yet.
    #[error(
        "failed to use the database: migration {version} (`{name}`) is not applied\n\
         hint: `systemprompt server migrate up`, or start without `--no-migrate`"
    )]
    OlderSchema {
        /// The first one that is missing.
        version: i64,
        /// Its name.
        name: String,
    },
    /// The role may not change tables.
    #[error("the role of this server may not change tables")]
    MayNotMigrate(#[source] sqlx::migrate::MigrateError),
    /// The schema could not be brought up to date.
    #[error("failed to migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// A database of one of the two kinds.
#[derive(Clone, Debug)]
pub enum Store {
    /// One file; one writer at a time, readers beside it.
    Sqlite {
        /// The only connection that writes.
        writer: SqlitePool,
        /// Connections that only read.
        reader: SqlitePool,
        /// The flush that all commits share.
        group: Arc<Group>,
    },
    /// A server.
    Postgres(Connections),
}

impl Store {
    /// Opens the SQLite file at `path`, creating it when it is not there.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Flushed by `Group`, once for all commits that wait.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            // Only another program can hold the file. A request waits behind others, and again for its refusal's record.
            .busy_timeout(Duration::from_millis(2500));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(StoreError::Open)?;
        let reader = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(
                options
                    .read_only(true)
                    .create_if_missing(false)
                    .pragma("mmap_size", READ_IN_PLACE),
            )
            .await
            .map_err(StoreError::Open)?;
        Ok(Self::Sqlite {
            writer,
            reader,
            group: Group::new(path),
        })
    }

    /// Connects to the PostgreSQL server that `url` names.
    ///
    /// # Errors
    /// The URL is malformed or the server cannot be reached.
    pub async fn open_postgres(url: &str) -> Result<Self, StoreError> {
        Self::connect(&PostgresSettings {
            url: SecretText::new(url),
            connections: postgres::CONNECTIONS,
        })
        .await
    }

    /// The same with as many connections as the settings say.
    ///
    /// # Errors
    /// The URL is malformed or the server cannot be reached.
    pub async fn connect(settings: &PostgresSettings) -> Result<Self, StoreError> {
        postgres::connect(settings).await.map(Self::Postgres)
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Box::pin(self.begin_any()).await
    }

    async fn begin_any(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { writer, group, .. } => {
                let tx = sqlite::begin_writing(writer).await;
                let group = group.clone();
                tx.map(|tx| Tx::Sqlite(SqliteTx { tx, group }))
                    .map_err(StoreError::Statement)
            }
            Self::Postgres(connections) => connections
                .begin("BEGIN")
                .await
                .map(Tx::Postgres)
                .map_err(StoreError::Statement),
        }
    }

    /// Begins a transaction that only reads, beside the writer.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn begin_read(&self) -> Result<Tx, StoreError> {
        Box::pin(self.begin_read_any()).await
    }

    async fn begin_read_any(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite { reader, group, .. } => {
                let mut tx = reader.begin().await.map_err(StoreError::Statement)?;
                // The first statement decides what is seen; what is seen must last.
                sqlx::query("SELECT 1 FROM sqlite_master LIMIT 1")
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(StoreError::Statement)?;
                group.settled().await.map_err(StoreError::Statement)?;
                let group = group.clone();
                Ok(Tx::Sqlite(SqliteTx { tx, group }))
            }
            Self::Postgres(connections) => connections
                .begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await
                .map(Tx::Postgres)
                .map_err(StoreError::Statement),
        }
    }

    /// For single statements that only read: each is by itself and sees what lasts at its moment. Several that must fit
    /// together need [`Store::begin_read`], which costs two more.
    #[must_use]
    pub fn look(&self) -> Tx {
        Tx::Look(self.clone())
    }

    /// Whether a statement can be run now; asks for no longer than whoever routes requests waits for the answer.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = async {
            let mut tx = self.begin_read().await?;
            tx.fetch_optional("SELECT 1 AS one", vec![]).await.map(drop)
        };
        match tokio::time::timeout(PING_WITHIN, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Statement(sqlx::Error::Io(
                std::io::ErrorKind::TimedOut.into(),
            ))),
        }
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { writer, reader, .. } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(connections) => connections.close().await,
        }
    }
}
