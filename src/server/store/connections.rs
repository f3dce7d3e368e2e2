//! Connections to PostgreSQL that are held, handed out and taken back.
//!
//! One whose last statement was answered goes back as it is. sqlx's own pool asks every connection that is given back
//! whether it lives, which doubles what a request that only reads waits for; here that is asked of those that nobody used
//! for a while. One on which something may be under way (its statement was given up, its transaction dropped) is put right
//! before anybody gets it, and closed where that fails.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Error, Executor as _};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::store::postgres::{is_outdated, is_starting};

/// For how long a free connection is waited for.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// For how long a server that starts is waited for: less, so that what it says is told and not that time is up.
const STARTED_WITHIN: Duration = Duration::from_secs(4);
/// For how long a connection may take to prove that it lives, or to be put right.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);
/// A connection that was handed out this short a time ago need not prove it.
const ALIVE_STILL: Duration = Duration::from_secs(1);
/// For how long an answer is waited for: longer than the server itself works on a statement.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// After so long a connection is replaced, so that what a session gathers does not grow for ever.
const LIFETIME: Duration = Duration::from_mins(30);
/// One that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_mins(10);
const LOOK_FOR_IDLE: Duration = Duration::from_mins(1);
/// How soon a server that starts is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often a pool that closes looks whether all have been given back.
const CLOSED_EVERY: Duration = Duration::from_millis(10);

/// The connections of one server. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    pool: Pool<Opener>,
    /// What closes the idle, and puts right what was given up.
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl fmt::Debug for Connections {
    /// Without the options, which hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Connections")
            .field(&self.pool.status())
            .finish()
    }
}

struct Opener {
    options: PgConnectOptions,
    /// When a connection was last found whose plans are of tables as they were.
    outdated: Mutex<Option<std::time::Instant>>,
}

impl Opener {
    fn outdated(&self) -> MutexGuard<'_, Option<std::time::Instant>> {
        self.outdated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl managed::Manager for Opener {
    type Type = PgConnection;
    type Error = Error;

    async fn create(&self) -> Result<PgConnection, Error> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match PgConnection::connect_with(&self.options).await {
                Err(error) if is_starting(&error) && began.elapsed() + pause < STARTED_WITHIN => {
                    sleep(pause).await;
                }
                opened => return opened,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<Error> {
        if metrics.age() >= LIFETIME {
            return Err(RecycleError::message("it is old"));
        }
        if self.outdated().is_some_and(|since| metrics.created <= since) {
            return Err(RecycleError::message("tables have changed since it was opened"));
        }
        if metrics.last_used() >= ALIVE_STILL {
            limited(ALIVE_WITHIN, connection.ping()).await?;
        }
        Ok(())
    }
}

impl Connections {
    /// Opens the first of at most `most`.
    pub(super) async fn open(options: PgConnectOptions, most: usize) -> Result<Self, Error> {
        // The last one that was given back is the first to go: it need not prove that it lives, and the others can rest.
        let opener = Opener {
            options,
            outdated: Mutex::default(),
        };
        let pool = Pool::builder(opener)
            .max_size(most)
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(|error| Error::Configuration(error.into()))?;
        let connections = Self {
            pool,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        drop(connections.acquire().await?);
        let idle = close_idle(connections.pool.weak());
        let closing = connections.closing.clone();
        connections
            .tasks
            .spawn(async move { closing.run_until_cancelled_owned(idle).await });
        Ok(connections)
    }

    /// How each of them is opened.
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.pool.manager().options
    }

    async fn acquire(&self) -> Result<Object<Opener>, Error> {
        match timeout(ACQUIRE_WITHIN, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error),
            Ok(Err(PoolError::Closed)) => Err(Error::PoolClosed),
            Ok(Err(_)) | Err(_) => Err(Error::PoolTimedOut),
        }
    }

    async fn held(&self, in_transaction: bool) -> Result<Held, Error> {
        Ok(Held {
            connection: Some(self.acquire().await?),
            in_transaction,
            tasks: self.tasks.clone(),
        })
    }

    /// Runs one statement by itself.
    pub(super) async fn alone<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut held = self.held(false).await?;
        let answer = held.answered(statement).await?;
        held.give_back();
        Ok(answer)
    }

    /// Begins a transaction with this statement.
    pub(super) async fn begin(&self, statement: &'static str) -> Result<PostgresTx, Error> {
        Ok(PostgresTx {
            held: self.begun(statement).await?,
            connections: self.clone(),
            began_with: statement,
            untouched: true,
        })
    }

    async fn begun(&self, statement: &'static str) -> Result<Held, Error> {
        let mut held = self.held(true).await?;
        held.answered(async |connection| connection.execute(statement).await)
            .await?;
        Ok(held)
    }

    /// Closes every connection, waiting for those in use.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for connection in idle {
            // Its server may be gone.
            let _ = limited(ALIVE_WITHIN, connection.close()).await;
        }
        while self.pool.status().size > 0 {
            sleep(CLOSED_EVERY).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn close_idle(pool: managed::WeakPool<Opener>) {
    loop {
        sleep(LOOK_FOR_IDLE).await;
        let Some(pool) = pool.upgrade() else { return };
        for connection in pool.retain(|_, metrics| metrics.last_used() < IDLE).removed {
            let _ = limited(ALIVE_WITHIN, connection.close()).await;
        }
    }
}

/// A transaction on PostgreSQL; dropped, it is rolled back.
pub struct PostgresTx {
    held: Held,
    connections: Connections,
    began_with: &'static str,
    untouched: bool,
}

impl PostgresTx {
    /// Runs a statement and waits for its answer, but not for ever.
    pub(super) async fn answered<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.untouched = false;
        self.held.answered(statement).await
    }

    /// Whether no statement was run in it.
    pub(super) const fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Begins on another connection; what was done before is lost.
    pub(super) async fn begin_again(&mut self) -> Result<(), Error> {
        self.held = self.connections.begun(self.began_with).await?;
        Ok(())
    }

    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.held
            .answered(async |connection| connection.execute("COMMIT").await)
            .await?;
        self.held.give_back();
        Ok(())
    }
}

/// A connection on which something may be under way until [`Held::give_back`]; dropped before, it is put right first.
struct Held {
    /// `None` once it was given back.
    connection: Option<Object<Opener>>,
    /// Whether it has begun a transaction, or may have.
    in_transaction: bool,
    tasks: TaskTracker,
}

impl Held {
    async fn answered<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(Error::WorkerCrashed);
        };
        let answer = limited(ANSWER_WITHIN, statement(connection)).await;
        if answer.as_ref().is_err_and(is_outdated) {
            self.throw_away();
        }
        answer
    }

    /// What was planned on it, or on one that was opened no later, is for tables as they were: PostgreSQL would refuse it
    /// for as long as the connection lasts.
    fn throw_away(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if let Some(pool) = Object::pool(&connection) {
            *pool.manager().outdated() = Some(std::time::Instant::now());
        }
        drop(Object::take(connection));
    }

    /// Everything was answered.
    fn give_back(&mut self) {
        self.connection = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        match Handle::try_current() {
            Ok(threads) => {
                self.tasks
                    .spawn_on(put_right(connection, self.in_transaction), &threads);
            }
            Err(_) => drop(Object::take(connection)),
        }
    }
}

async fn put_right(mut connection: Object<Opener>, in_transaction: bool) {
    let put_right = async {
        match in_transaction {
            true => connection.execute("ROLLBACK").await.map(drop),
            false => connection.ping().await,
        }
    };
    if limited(ALIVE_WITHIN, put_right).await.is_err() {
        drop(Object::take(connection));
    }
}

/// Waits for an answer of the server, but not for ever.
pub(super) async fn limited<T>(
    time: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match timeout(time, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the database server has not answered within {} s", time.as_secs()),
        ))),
    }
}
