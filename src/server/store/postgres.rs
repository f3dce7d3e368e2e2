//! PostgreSQL: how its sessions are opened, what the server's own role may do there, and which errors pass.
//!
//! A server that is restarted says so; a network that is cut says nothing. So whatever waits for the server waits
//! for a bounded time, and a connection that does not answer is thrown away in place of going back to the others.

use std::io;
use std::str::FromStr as _;

use sqlx::Error;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};

use crate::api::secret::SecretText;
use crate::server::store::connections::Connections;
use crate::server::store::{Store, StoreError};

/// How many connections one server holds, unless told.
pub const CONNECTIONS: u32 = 16;
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

pub(super) async fn connect(settings: &PostgresSettings) -> Result<Connections, StoreError> {
    let most = settings.connections.max(2) as usize;
    Connections::open(options(settings.url.expose())?, most)
        .await
        .map_err(StoreError::Open)
}

/// Whether the server is not there yet, as while it starts: the same may work in a moment.
pub(super) fn is_starting(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Error::Database(error) => error.code().is_some_and(|code| code == "57P03"),
        _ => false,
    }
}

/// Whether the statement was planned for a table that has another shape now: a newer server has migrated it meanwhile. The
/// text of this error is in the server's language, and its code is that of everything that is not supported.
pub(super) fn is_outdated(error: &Error) -> bool {
    let Error::Database(error) = error else {
        return false;
    };
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.is_some_and(|error| error.code() == "0A000" && error.routine() == Some("RevalidateCachedQuery"))
}

/// Whether the server, or the way to it, is away for now: the same may work in a moment.
pub(super) fn is_away(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => true,
        outdated if is_outdated(outdated) => true,
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
