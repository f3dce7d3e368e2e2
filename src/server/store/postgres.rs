//! Connections to PostgreSQL: how many, how long anything may take, and what becomes of a broken one.
//!
//! A server that is restarted says so; a network that is cut says nothing. So whatever waits for the server waits
//! for a bounded time, and a connection that does not answer is thrown away in place of going back to the pool.

use std::future::Future;
use std::io;
use std::str::FromStr as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Error, Postgres};

use crate::api::secret::SecretText;
use crate::server::store::{Store, StoreError};

/// How many connections one server holds, unless told.
pub const CONNECTIONS: u32 = 16;
/// For how long a free connection is waited for.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// For how long a connection may take to prove that it lives.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);
/// A connection that lived this short a time ago need not prove it.
const ALIVE_STILL: Duration = Duration::from_secs(1);
/// For how long an answer is waited for: longer than the server itself works on a statement.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// For so long after an interruption every connection that is given back proves that it lives: the one on which something
/// is under way is given back at once.
const INTERRUPTED_LATELY: Duration = Duration::from_secs(2);

/// What every session is told, unless the URL says otherwise. A replica that has lost its power must not hold rows for
/// longer than others can wait.
const SESSION: &[(&str, &str)] = &[
    ("statement_timeout", "15s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20s"),
];

/// Where the server is, and how many connections to it are held.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// With user, password and database.
    pub url: SecretText,
    /// At most so many.
    pub connections: u32,
}

impl Store {
    /// What the server's own role may do in PostgreSQL; `None` for a file.
    ///
    /// # Errors
    /// The database fails or answers something else.
    pub async fn power(&self) -> Result<Option<Power>, StoreError> {
        if matches!(self, Self::Sqlite { .. }) {
            return Ok(None);
        }
        let sql = "SELECT CASE
                WHEN rolsuper THEN 3::bigint
                WHEN rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls THEN 2
                WHEN EXISTS (SELECT FROM pg_class WHERE relname = 'audit' AND relnamespace = current_schema()::regnamespace
                    AND relowner = pg_roles.oid) THEN 1
                ELSE 0 END AS power
            FROM pg_roles WHERE rolname = current_user";
        let row = self.begin_read().await?.fetch_optional(sql, vec![]).await?;
        row.map(|row| {
            Ok(match row.u64("power")? {
                0 => Power::Worker,
                1 => Power::Owner,
                2 => Power::Maker,
                _ => Power::Superuser,
            })
        })
        .transpose()
    }
}

/// What a role may do beyond working with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Nothing.
    Worker,
    /// It owns them.
    Owner,
    /// It may make roles or databases, replicate, or pass by row security.
    Maker,
    /// Everything.
    Superuser,
}

pub(super) fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let mut options = PgConnectOptions::from_str(url).map_err(StoreError::Open)?;
    if options.get_application_name().is_none() {
        options = options.application_name("systemprompt");
    }
    let said = options.get_options().unwrap_or_default().to_owned();
    let ours = SESSION.iter().filter(|(name, _)| !said.contains(name));
    Ok(options.options(ours.copied()))
}

pub(super) async fn connect(settings: &PostgresSettings) -> Result<PgPool, StoreError> {
    PgPoolOptions::new()
        .max_connections(settings.connections.max(2))
        .acquire_timeout(ACQUIRE_WITHIN)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for >= ALIVE_STILL {
                    prove_alive(connection).await?;
                }
                Ok(true)
            })
        })
        // A transaction that was dropped is rolled back here, and a connection that hangs is closed. One that was given
        // back with everything answered need not prove anything.
        .after_release(|connection, _| {
            Box::pin(async move {
                if connection.should_flush() || INTERRUPTED.lately() {
                    prove_alive(connection).await?;
                }
                Ok(true)
            })
        })
        .connect_with(options(settings.url.expose())?)
        .await
        .map_err(StoreError::Open)
}

async fn prove_alive(connection: &mut PgConnection) -> Result<(), Error> {
    limited(ALIVE_WITHIN, connection.ping()).await
}

/// Waits for an answer of the server, but not for ever.
pub(super) async fn answered<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let waiting = Waiting { answered: false };
    let answer = limited(ANSWER_WITHIN, answer).await;
    waiting.over(!matches!(answer, Err(Error::Io(_))));
    answer
}

/// A transaction, and whether its last statement was answered.
pub struct PostgresTx {
    // Dropped first, which gives the connection back.
    tx: sqlx::Transaction<'static, Postgres>,
    waiting: Waiting,
}

impl PostgresTx {
    pub(super) fn new(tx: sqlx::Transaction<'static, Postgres>) -> Self {
        Self {
            tx,
            waiting: Waiting { answered: true },
        }
    }

    /// Runs a statement and waits for its answer. Whoever gives up in the middle, and keeps the transaction, gives its
    /// connection back later with the statement under way.
    pub(super) async fn answered<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.waiting.answered = false;
        let answer = limited(ANSWER_WITHIN, statement(&mut self.tx)).await;
        self.waiting.answered = !matches!(answer, Err(Error::Io(_)));
        answer
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        answered(self.tx.commit()).await
    }
}

/// When an answer was last not waited for to its end: whoever is gone, or has lost patience, leaves a connection on which
/// something is still under way.
static INTERRUPTED: Interrupted = Interrupted(Mutex::new(None));

struct Interrupted(Mutex<Option<Instant>>);

impl Interrupted {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn lately(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() <= INTERRUPTED_LATELY)
    }
}

/// Somebody who waits for an answer.
struct Waiting {
    answered: bool,
}

impl Waiting {
    fn over(mut self, answered: bool) {
        self.answered = answered;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            INTERRUPTED.note();
        }
    }
}

async fn limited<T>(time: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(time, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the database server has not answered within {} s", time.as_secs()),
        ))),
    }
}

/// Whether the server, or the way to it, is away for now: the same may work in a moment.
pub(super) fn is_away(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        // 08: connection; 53: out of resources; 57P: shut down, starting, cut off. 57014 is a statement that took too
        // long, 40: a conflict with another transaction, 25P03: a transaction that was idle for too long.
        Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57P", "40"]
                .iter()
                .any(|class| code.starts_with(class))
                || matches!(&*code, "57014" | "25P03" | "25006")
        }),
        _ => false,
    }
}
