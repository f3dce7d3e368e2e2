//! The schema: embedded migrations, applied in order under the engine's own lock, and what is known of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::server::store::{Store, StoreError, Tx, collation, settings};

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("migrations/0001_initial.sql")),
    (2, "releases", include_str!("migrations/0002_releases.sql")),
    (3, "audit", include_str!("migrations/0003_audit.sql")),
    (4, "observe", include_str!("migrations/0004_observe.sql")),
    (5, "operations", include_str!("migrations/0005_operations.sql")),
    (6, "strategy", include_str!("migrations/0006_strategy.sql")),
    (7, "rate_limits", include_str!("migrations/0007_rate_limits.sql")),
    (8, "members", include_str!("migrations/0008_members.sql")),
    (9, "trust", include_str!("migrations/0009_trust.sql")),
    (
        10,
        "signing_keys",
        include_str!("migrations/0010_signing_keys.sql"),
    ),
    (11, "identities", include_str!("migrations/0011_identities.sql")),
    (12, "queue", include_str!("migrations/0012_queue.sql")),
    (
        13,
        "edge_sessions",
        include_str!("migrations/0013_edge_sessions.sql"),
    ),
    (14, "jwt_secrets", include_str!("migrations/0014_jwt_secrets.sql")),
    (
        15,
        "password_tries",
        include_str!("migrations/0015_password_tries.sql"),
    ),
];

/// The last migration that this program knows.
const LAST: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;
/// The last migration of the oldest program that can work beside this one, on the schema that this one makes. Migrations
/// only add (a table; a column that has a default), so it stays; one that cannot do so raises it to its own number.
const OLDEST: i64 = 1;
/// Where the database says so.
const OLDEST_PROGRAM: &str = "oldest-program";

/// What follows such a line is for that engine only, until the next such line (`-- only: both` ends it).
const ONLY: &str = "-- only: ";

/// One migration and whether this database has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Whether this program knows it; one that it does not know was applied by a newer one.
    pub known: bool,
    /// When it was applied, RFC 3339; `None` while it waits.
    pub applied_at: Option<String>,
}

/// One migration that was applied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AppliedMigration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// When, RFC 3339.
    pub applied_at: String,
    /// How long it took.
    pub took_ms: u64,
}

/// One migration and whether a database has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Whether this database has it.
    pub applied: bool,
    /// When it was applied, as the engine wrote it.
    pub applied_at: Option<String>,
}

fn migrator(engine: &str) -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(
                *version,
                Cow::Borrowed(*name),
                MigrationType::Simple,
                sqlx::AssertSqlSafe(for_engine(sql, engine)).into_sql_str(),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
}

/// A migration without what is for the other engine: triggers have no common language.
fn for_engine(sql: &str, engine: &str) -> String {
    let mut wanted = true;
    let mut kept = String::with_capacity(sql.len());
    for line in sql.split_inclusive('\n') {
        if let Some(only) = line.strip_prefix(ONLY) {
            wanted = matches!(only.trim(), "both") || only.trim() == engine;
        } else if wanted {
            kept.push_str(line);
        }
    }
    kept
}

impl Store {
    /// Every migration that this binary knows, in order, and whether this database has it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn migration_history(&self) -> Result<Vec<Applied>, StoreError> {
        let mut tx = self.begin_read().await?;
        // The table is sqlx's own; before the first migration there is none.
        let exists = match &tx {
            Tx::Sqlite(_) => {
                "SELECT 1 AS one FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'"
            }
            Tx::Postgres(_) | Tx::Look(_) => {
                "SELECT 1 AS one FROM pg_tables WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations'"
            }
        };
        let rows = if tx.fetch_optional(exists, vec![]).await?.is_some() {
            let sql = "SELECT version, CAST(installed_on AS TEXT) AS applied_at FROM _sqlx_migrations WHERE success";
            tx.fetch_all(sql, vec![]).await?
        } else {
            Vec::new()
        };
        let mut applied = BTreeMap::new();
        for row in rows {
            applied.insert(row.int("version")?, row.text("applied_at")?);
        }
        Ok(MIGRATIONS
            .iter()
            .map(|(version, name, _)| Applied {
                version: *version,
                name: (*name).to_owned(),
                applied: applied.contains_key(version),
                applied_at: applied.get(version).cloned(),
            })
            .collect())
    }

    /// Applies every migration that this database lacks.
    ///
    /// # Errors
    /// A migration fails or the role may not apply it, or a newer program has been here that leaves no room for this one.
    pub async fn migrate_up(&self) -> Result<(), StoreError> {
        self.check_not_newer().await?;
        let mut migrator = migrator(match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres(_) => "postgres",
        });
        migrator.set_ignore_missing(true);
        match self {
            Self::Sqlite { writer, .. } => migrator.run(writer).await,
            Self::Postgres(connections) => run_patiently(connections.options().clone(), &migrator).await,
        }
        .map_err(|error| {
            if is_denied(&error) {
                StoreError::MayNotMigrate(error)
            } else {
                StoreError::Migrate(error)
            }
        })?;
        if let Self::Postgres(connections) = self {
            collation::compare_bytes(connections.options().clone()).await;
        }
        let mut tx = self.begin().await?;
        let known = settings::find(&mut tx, OLDEST_PROGRAM).await?;
        let known: i64 = known.and_then(|text| text.parse().ok()).unwrap_or(0);
        settings::put(&mut tx, OLDEST_PROGRAM, &known.max(OLDEST).to_string()).await?;
        tx.commit().await
    }

    /// Whether this program may work beside whatever newer one has migrated this database.
    ///
    /// # Errors
    /// It may not, or the database cannot be read.
    pub async fn check_not_newer(&self) -> Result<(), StoreError> {
        let newest = self.migrate_status().await?.into_iter().rfind(|line| !line.known);
        let Some(newest) = newest else { return Ok(()) };
        let mut tx = self.begin_read().await?;
        let oldest = settings::find(&mut tx, OLDEST_PROGRAM).await?;
        let oldest: i64 = oldest.and_then(|text| text.parse().ok()).unwrap_or(i64::MAX);
        if LAST < oldest {
            return Err(newer(newest.version));
        }
        tracing::warn!(
            migration = newest.version,
            "a newer server shares this database; this one works beside it until it is replaced"
        );
        Ok(())
    }

    /// Every migration that this program knows or this database has, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn migrate_status(&self) -> Result<Vec<MigrationStatus>, StoreError> {
        let applied = self.migrate_history().await?;
        let mut all: Vec<MigrationStatus> = MIGRATIONS
            .iter()
            .map(|(version, name, _)| MigrationStatus {
                version: *version,
                name: (*name).to_owned(),
                known: true,
                applied_at: None,
            })
            .collect();
        for line in applied {
            match all.iter_mut().find(|known| known.version == line.version) {
                Some(known) => known.applied_at = Some(line.applied_at),
                None => all.push(MigrationStatus {
                    version: line.version,
                    name: line.name,
                    known: false,
                    applied_at: Some(line.applied_at),
                }),
            }
        }
        all.sort_by_key(|line| line.version);
        Ok(all)
    }

    /// Every migration that this database has, in the order of their numbers.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn migrate_history(&self) -> Result<Vec<AppliedMigration>, StoreError> {
        let mut tx = self.begin_read().await?;
        if !has_migrations(&mut tx).await? {
            return Ok(Vec::new());
        }
        // The one place where the engines' own functions are needed: the table is the library's, not ours.
        let sql = match tx {
            Tx::Sqlite(_) => {
                "SELECT version, description, strftime('%Y-%m-%dT%H:%M:%SZ', installed_on) AS applied_at,
                     execution_time FROM _sqlx_migrations WHERE success ORDER BY version"
            }
            Tx::Postgres(_) | Tx::Look(_) => {
                "SELECT version, description,
                     to_char(installed_on AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS applied_at,
                     execution_time FROM _sqlx_migrations WHERE success ORDER BY version"
            }
        };
        tx.fetch_all(sql, vec![])
            .await?
            .iter()
            .map(|row| {
                Ok(AppliedMigration {
                    version: row.int("version")?,
                    name: row.text("description")?,
                    applied_at: row.text("applied_at")?,
                    took_ms: u64::try_from(row.int("execution_time")? / 1_000_000).unwrap_or(0),
                })
            })
            .collect()
    }

    /// Whether this database is what this program works with; for a start without migrations.
    ///
    /// # Errors
    /// It lacks a migration, has one that this program does not know, or cannot be read.
    pub async fn migrate_check(&self) -> Result<(), StoreError> {
        self.check_not_newer().await?;
        for line in self.migrate_status().await? {
            if line.applied_at.is_none() {
                return Err(StoreError::OlderSchema {
                    version: line.version,
                    name: line.name,
                });
            }
        }
        Ok(())
    }
}

async fn has_migrations(tx: &mut Tx) -> Result<bool, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => "SELECT 1 AS one FROM sqlite_master WHERE name = '_sqlx_migrations'",
        Tx::Postgres(_) | Tx::Look(_) => "SELECT 1 AS one WHERE to_regclass('_sqlx_migrations') IS NOT NULL",
    };
    Ok(tx.fetch_optional(sql, vec![]).await?.is_some())
}

/// On a connection of its own: a migration may take longer than a statement, and so may the wait for another server's.
async fn run_patiently(options: PgConnectOptions, migrator: &Migrator) -> Result<(), MigrateError> {
    let own = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.options([("statement_timeout", "0")]))
        .await?;
    let done = migrator.run(&own).await;
    own.close().await;
    done
}

/// Whether the role may not do what a migration does.
fn is_denied(error: &MigrateError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let code = error
            .downcast_ref::<sqlx::Error>()
            .and_then(sqlx::Error::as_database_error)
            .and_then(|error| error.code());
        if code.is_some_and(|code| code == "42501") {
            return true;
        }
        next = error.source();
    }
    false
}

const fn newer(version: i64) -> StoreError {
    StoreError::NewerSchema { version, known: LAST }
}

#[cfg(test)]
mod tests {
    use crate::server::store::Store;

    #[tokio::test]
    async fn the_history_tells_what_is_missing() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::open_sqlite(&directory.path().join("test.db"))
            .await
            .expect("opened");
        assert!(
            store
                .migration_history()
                .await
                .expect("read")
                .iter()
                .all(|one| !one.applied)
        );
        store.migrate_up().await.expect("migrated");
        let history = store.migration_history().await.expect("read");
        assert!(history.iter().all(|one| one.applied && one.applied_at.is_some()));
    }
}
