//! The schema: embedded migrations, applied in order under the engine's own lock.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::server::store::{Store, StoreError};

const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "initial", include_str!("migrations/0001_initial.sql"))];

/// One migration and when it was applied.
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

fn migrator() -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            Migration::new(
                *version,
                Cow::Borrowed(*name),
                MigrationType::Simple,
                sqlx::AssertSqlSafe(*sql).into_sql_str(),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
}

impl Store {
    /// Applies every migration that this database lacks.
    ///
    /// # Errors
    /// A migration fails, or the database has one that this binary does not know.
    pub async fn migrate_up(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite { writer, .. } => migrator().run(writer).await,
            Self::Postgres(pool) => migrator().run(pool).await,
        }
        .map_err(StoreError::Migrate)
    }
}
