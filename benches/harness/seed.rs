//! A server's data, written by bulk SQL while it does not run: accounts with tokens, tenants, queued work.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::harness::contest::Outcome;
use crate::harness::served::{Served, block_on};

/// A database of ours.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    Sqlite(std::path::PathBuf),
    Postgres(String),
}

impl Database {
    /// That of a data folder.
    pub(crate) fn in_folder(data: &Path) -> Self {
        Self::Sqlite(data.join("systemprompt.db"))
    }

    /// As a floor is told of it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Starts the server once, which makes the tables, and stops it.
    pub(crate) fn prepare(&self, data: &Path) -> Outcome<()> {
        drop(self.serve(data, &[])?);
        Ok(())
    }

    /// A server of ours over it.
    pub(crate) fn serve(&self, data: &Path, more: &[&str]) -> Outcome<Served> {
        match self {
            Self::Sqlite(_) => Served::ours(data, more),
            Self::Postgres(url) => Served::ours(data, &[&["--database-url", url.as_str()], more].concat()),
        }
    }

    /// Runs statements, in which `{id}` is the number of a row with 26 digits and `{rows N}` gives the rows `n` 1 to N.
    pub(crate) fn run(&self, statements: &[String]) -> Outcome<()> {
        block_on(async {
            match self {
                Self::Sqlite(path) => {
                    let options = sqlx::sqlite::SqliteConnectOptions::new()
                        .filename(path)
                        .synchronous(sqlx::sqlite::SqliteSynchronous::Off);
                    let mut connection = sqlx::sqlite::SqliteConnection::connect_with(&options).await?;
                    for statement in statements {
                        let statement = spelled(statement, "printf('%026d', n)", |count| {
                            format!(
                                "(WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < {count}) SELECT n FROM rows)"
                            )
                        });
                        connection.execute(AssertSqlSafe(statement)).await?;
                    }
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await?;
                    connection.execute("ANALYZE").await?;
                    connection.close().await?;
                }
                Self::Postgres(url) => {
                    let mut connection = sqlx::postgres::PgConnection::connect(url).await?;
                    for statement in statements {
                        let statement = spelled(statement, "lpad(n::text, 26, '0')", |count| {
                            format!("generate_series(1, {count}) AS rows(n)")
                        });
                        connection.execute(AssertSqlSafe(statement)).await?;
                    }
                    connection.execute("VACUUM ANALYZE").await?;
                    connection.close().await?;
                }
            }
            Ok::<(), sqlx::Error>(())
        })?;
        Ok(())
    }
}

fn spelled(statement: &str, id: &str, rows: impl Fn(&str) -> String) -> String {
    let mut text = statement.replace("{id}", id);
    while let Some((head, rest)) = text.clone().split_once("{rows ") {
        let Some((count, tail)) = rest.split_once('}') else {
            break;
        };
        text = format!("{head}{}{tail}", rows(count));
    }
    text
}

/// The token of that number.
pub(crate) fn token(number: usize) -> String {
    format!("spt_{number:043}")
}

/// The tenant of that number; the first is 1.
pub(crate) fn tenant_id(number: usize) -> String {
    format!("ten_{number:026}")
}

/// So many accounts, and so many tokens of these scopes shared out to them in turn; the first is 1.
pub(crate) fn accounts(count: usize, tokens: usize, scopes: &str) -> Vec<String> {
    let mut statements = vec![format!(
        "INSERT INTO accounts (id, email, operator, created_at)
         SELECT 'acc_' || {{id}}, 'user-' || n || '@example.com', 0, 1 FROM {{rows {count}}}"
    )];
    let values: Vec<String> = (1..=tokens)
        .map(|number| {
            let account = (number - 1) % count + 1;
            let hash = hex::encode(Sha256::digest(token(number).as_bytes()));
            format!(
                "('tok_{number:026}', 'acc_{account:026}', 'bench', '{hash}', '{scopes}', 1, 9000000000000)"
            )
        })
        .collect();
    statements.extend(values.chunks(500).map(|values| {
        format!(
            "INSERT INTO api_tokens (id, account_id, name, token_hash, scopes, created_at, expires_at) VALUES {}",
            values.join(", ")
        )
    }));
    statements
}

/// So many tenants in a state, shared out to the first so many accounts as their owners.
pub(crate) fn tenants(count: usize, owners: usize, status: &str) -> Vec<String> {
    vec![format!(
        "INSERT INTO tenants (id, name, live_name, live_label, label, owner_id, status, plan, region, provider,
             memory_mb, database_kind, network_slot, login_slot, last_event_seq, created_at, updated_at)
         SELECT 'ten_' || {{id}}, 'tenant-' || n, 'tenant-' || n, 'tenant-' || n, 'tenant-' || n,
             (SELECT id FROM accounts WHERE email = 'user-' || (1 + n % {owners}) || '@example.com'),
             '{status}', 'starter', 'local', 'fake', 512, 'postgres', n, 'a', 0, 1, 1 FROM {{rows {count}}}"
    )]
}

/// The creation of each of the first so many tenants, in the queue.
pub(crate) fn creations(count: usize) -> Vec<String> {
    let mut statements = vec![format!(
        "INSERT INTO operations (id, tenant_id, kind, status, params, result, requested_by, fence, run_at, created_at,
             updated_at)
         SELECT 'op_' || {{id}}, 'ten_' || {{id}}, 'create-tenant', 'queued', '{{}}', 'null', 'bench', 0, 1, 1, 1
         FROM {{rows {count}}}"
    )];
    statements.extend(STEPS.iter().enumerate().map(|(position, name)| {
        format!(
            "INSERT INTO operation_steps (operation_id, position, name, status, attempts, output, updated_at)
             SELECT 'op_' || {{id}}, {position}, '{name}', 'waiting', 0, 'null', 1 FROM {{rows {count}}}"
        )
    }));
    statements
}

/// What the creation of a tenant consists of.
pub(crate) const STEPS: [&str; 10] = [
    "start",
    "generate-secrets",
    "create-network",
    "create-volume",
    "tell-edge",
    "open-edge",
    "make-database",
    "join-database",
    "store-secrets",
    "add-certificate",
];
