//! The tenant's own PostgreSQL: a small pool that survives its absence, the visits, and whether it is ready.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::runtime::crowd::Crowd;
use crate::runtime::migrate::{MigrateError, connect_options, newest_version};
use crate::runtime::settings::Settings;

/// A tenant is one process of a shared cluster: few connections, none kept for nothing.
const CONNECTIONS: u32 = 4;
/// A page is not worth a longer wait: it is shown without the number.
const WAIT: Duration = Duration::from_secs(2);

const COUNT_VISITS: &str = "WITH today AS (
    INSERT INTO visits (day, count) VALUES (current_date, $1)
    ON CONFLICT (day) DO UPDATE SET count = visits.count + excluded.count
    RETURNING day, count
)
SELECT (SELECT count FROM today),
       ((SELECT count FROM today) + coalesce((SELECT sum(count) FROM visits WHERE day <> (SELECT day FROM today)), 0))::bigint";
const READ_VISITS: &str = "SELECT coalesce(sum(count) FILTER (WHERE day = current_date), 0)::bigint,
       coalesce(sum(count), 0)::bigint FROM visits";

/// How often the page was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Visits {
    /// Since midnight of the database's clock.
    pub today: i64,
    /// Since the tenant was made.
    pub total: i64,
}

/// Why the database cannot be used now.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The tenant has none.
    #[error("`DATABASE_URL` is not set")]
    None,
    /// It did not answer in time, or it said no.
    #[error("the database does not answer")]
    Query(#[source] Arc<sqlx::Error>),
    /// The release needs a newer schema.
    #[error("the database has schema version {found:?}, this release needs {needed}")]
    Outdated {
        /// What it has.
        found: Option<i64>,
        /// What the release brings.
        needed: i64,
    },
}

/// The tenant's database.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Option<PgPool>,
    needed: Option<i64>,
    visitors: Arc<Crowd<Result<Visits, DatabaseError>>>,
}

impl Database {
    /// Prepares connections; none is made before it is needed, so a database that is away does not stop the start.
    ///
    /// # Errors
    /// `DATABASE_URL` is no URL, or the migrations of the project cannot be read.
    pub fn open(settings: &Settings) -> Result<Self, MigrateError> {
        let Some(url) = &settings.database_url else {
            return Ok(Self {
                pool: None,
                needed: None,
                visitors: Arc::default(),
            });
        };
        let options = connect_options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(WAIT)
            .idle_timeout(Duration::from_secs(60))
            .max_lifetime(Duration::from_secs(900))
            .connect_lazy_with(options.application_name("systemprompt-services"));
        Ok(Self {
            pool: Some(pool),
            needed: newest_version(&settings.services_path)?,
            visitors: Arc::default(),
        })
    }

    /// Counts one visit and answers the new numbers.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn count_visit(&self) -> Result<Visits, DatabaseError> {
        self.visits(1).await
    }

    /// The numbers as they are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read_visits(&self) -> Result<Visits, DatabaseError> {
        self.visits(0).await
    }

    async fn visits(&self, new: i64) -> Result<Visits, DatabaseError> {
        let pool = self.pool()?;
        let question = async |new| {
            let query = match new {
                0 => sqlx::query_as(READ_VISITS),
                _ => sqlx::query_as(COUNT_VISITS).bind(new),
            };
            let (today, total) = in_time(query.fetch_one(pool)).await?;
            Ok(Visits { today, total })
        };
        self.visitors.ask(new, question).await
    }

    /// Whether the database answers and has the schema that this release needs. A tenant without a database is ready.
    ///
    /// # Errors
    /// It does not answer, or its schema is older.
    pub async fn check(&self) -> Result<(), DatabaseError> {
        let Some(pool) = &self.pool else { return Ok(()) };
        let Some(needed) = self.needed else {
            return in_time(sqlx::query("SELECT 1").execute(pool)).await.map(drop);
        };
        let query = sqlx::query_scalar::<_, Option<i64>>("SELECT max(version) FROM schema_history");
        let found = in_time(query.fetch_one(pool)).await?;
        if found.is_some_and(|found| found >= needed) {
            Ok(())
        } else {
            Err(DatabaseError::Outdated { found, needed })
        }
    }

    /// Gives the connections back.
    pub async fn close(&self) {
        if let Some(pool) = &self.pool {
            pool.close().await;
        }
    }

    fn pool(&self) -> Result<&PgPool, DatabaseError> {
        self.pool.as_ref().ok_or(DatabaseError::None)
    }
}

async fn in_time<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DatabaseError> {
    match tokio::time::timeout(WAIT, query).await {
        Ok(outcome) => outcome.map_err(|error| DatabaseError::Query(Arc::new(error))),
        Err(_) => Err(DatabaseError::Query(Arc::new(sqlx::Error::PoolTimedOut))),
    }
}
