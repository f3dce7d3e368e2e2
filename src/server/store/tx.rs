//! [`Tx`], the unit of work, and what is run in it.
//!
//! What a driver holds while it waits for its answer is large and is held by itself: by value, everybody who waits for whoever
//! waits for a statement would hold it too, be moved with it, and keep it from beginning to end.

use crate::server::store::connections::PostgresTx;
use crate::server::store::postgres::is_outdated;
use crate::server::store::row::{Row, Value};
use crate::server::store::sqlite::SqliteTx;
use crate::server::store::{Store, StoreError, acts, audit};

/// A transaction: nothing of it is seen before [`Tx::commit`]; dropped, it is rolled back.
pub enum Tx {
    /// On SQLite.
    Sqlite(SqliteTx),
    /// On PostgreSQL.
    Postgres(PostgresTx),
    /// None: statements that only read, each by itself.
    Look(Store),
}

macro_rules! bound {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query($sql);
        for arg in $args {
            query = match arg {
                Value::Text(text) => query.bind(text),
                Value::Int(number) => query.bind(number),
            };
        }
        query
    }};
}

/// Runs a statement in a transaction on PostgreSQL: one that is the first of it, and was planned for tables as they were
/// before a newer server migrated them, is run once more on another connection.
macro_rules! in_transaction {
    ($tx:expr, $sql:expr, $args:expr, $how:ident) => {{
        let again = $tx.is_untouched().then(|| $args.clone());
        let answer = $tx.answered(async |tx| bound!($sql, $args).$how(tx).await).await;
        match (answer, again) {
            (Err(error), Some(args)) if is_outdated(&error) => match $tx.begin_again().await {
                Ok(()) => $tx.answered(async |tx| bound!($sql, args).$how(tx).await).await,
                Err(error) => Err(error),
            },
            (answer, _) => answer,
        }
    }};
}

/// The same by itself.
macro_rules! by_itself {
    ($connections:expr, $sql:expr, $args:expr, $how:ident) => {{
        let again = $args.clone();
        let answer = $connections
            .alone(async |connection| bound!($sql, $args).$how(connection).await)
            .await;
        match answer {
            Err(error) if is_outdated(&error) => {
                $connections
                    .alone(async |connection| bound!($sql, again).$how(connection).await)
                    .await
            }
            answer => answer,
        }
    }};
}

fn reads(sql: &str) -> bool {
    sql.trim_start().starts_with("SELECT")
}

fn only_reads() -> sqlx::Error {
    sqlx::Error::Protocol("a statement that writes needs a transaction".to_owned())
}

fn statement_error(error: sqlx::Error) -> StoreError {
    if error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    {
        return StoreError::Duplicate(error);
    }
    StoreError::Statement(error)
}

impl Tx {
    /// Whether what is asked is SQLite; else it is PostgreSQL.
    #[must_use]
    pub const fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_) | Self::Look(Store::Sqlite { .. }))
    }

    /// Runs a statement with `$1`, `$2` … and answers how many rows it changed.
    ///
    /// # Errors
    /// The statement fails; a broken UNIQUE rule is [`StoreError::Duplicate`].
    pub async fn execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, StoreError> {
        Box::pin(self.run_execute(sql, args)).await
    }

    async fn run_execute(&mut self, sql: &'static str, args: Vec<Value>) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(held) => bound!(sql, args)
                .execute(&mut *held.tx)
                .await
                .map(|done| done.rows_affected()),
            Self::Postgres(tx) => in_transaction!(tx, sql, args, execute).map(|done| done.rows_affected()),
            Self::Look(_) => Err(only_reads()),
        }
        .map_err(statement_error)
    }

    /// Runs a query and answers all its rows.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn fetch_all(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        Box::pin(self.run_fetch_all(sql, args)).await
    }

    async fn run_fetch_all(&mut self, sql: &'static str, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(held) => bound!(sql, args)
                .fetch_all(&mut *held.tx)
                .await
                .map(|rows| rows.into_iter().map(Row::Sqlite).collect()),
            Self::Postgres(tx) => in_transaction!(tx, sql, args, fetch_all)
                .map(|rows| rows.into_iter().map(Row::Postgres).collect()),
            Self::Look(_) if !reads(sql) => Err(only_reads()),
            Self::Look(Store::Sqlite { reader, group, .. }) => {
                let rows = bound!(sql, args).fetch_all(&*reader).await;
                // What is seen must last.
                group.settled().await.map_err(StoreError::Statement)?;
                rows.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
            Self::Look(Store::Postgres(connections)) => by_itself!(connections, sql, args, fetch_all)
                .map(|rows| rows.into_iter().map(Row::Postgres).collect()),
        }
        .map_err(statement_error)
    }

    /// Runs a query and answers its first row, if it has one.
    ///
    /// # Errors
    /// The statement fails.
    pub async fn fetch_optional(
        &mut self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Box::pin(self.run_fetch_optional(sql, args)).await
    }

    async fn run_fetch_optional(
        &mut self,
        sql: &'static str,
        args: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Sqlite(held) => bound!(sql, args)
                .fetch_optional(&mut *held.tx)
                .await
                .map(|row| row.map(Row::Sqlite)),
            Self::Postgres(tx) => {
                in_transaction!(tx, sql, args, fetch_optional).map(|row| row.map(Row::Postgres))
            }
            Self::Look(_) if !reads(sql) => Err(only_reads()),
            Self::Look(Store::Sqlite { reader, group, .. }) => {
                let row = bound!(sql, args).fetch_optional(&*reader).await;
                group.settled().await.map_err(StoreError::Statement)?;
                row.map(|row| row.map(Row::Sqlite))
            }
            Self::Look(Store::Postgres(connections)) => {
                by_itself!(connections, sql, args, fetch_optional).map(|row| row.map(Row::Postgres))
            }
        }
        .map_err(statement_error)
    }

    /// Makes everything since the beginning last, and with it the record of the act that is under way, if one is.
    ///
    /// # Errors
    /// The database refuses or cannot be reached; then nothing of it lasts.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let act = acts::unrecorded();
        if let Some(act) = &act {
            // Last of all: the end of the chain is locked until the commit.
            audit::append(&mut self, act).await?;
        }
        self.commit_aside().await?;
        if act.is_some() {
            acts::recorded();
        }
        Ok(())
    }

    /// The same for what is written on the way to an act and is no part of it: the act's record waits for the next commit.
    ///
    /// # Errors
    /// The database refuses or cannot be reached; then nothing of it lasts.
    pub async fn commit_aside(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(held) => Box::pin(async move { held.group.commit(held.tx).await }).await,
            Self::Postgres(tx) => Box::pin(tx.commit()).await,
            Self::Look(_) => Ok(()),
        }
        .map_err(statement_error)
    }
}
