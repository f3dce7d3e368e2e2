//! How PostgreSQL compares texts: byte by byte, as SQLite does, whatever the language of the database.
//!
//! What is compared here are ids, hashes and names of letters, digits and hyphens. By the rules of a language that takes
//! twice the time of a page of tenants, and an index that is in the order of a language is damaged when the machine's C
//! library changes its mind about it (<https://www.postgresql.org/docs/current/collation.html>).

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};

/// Tables of this role with texts in the order of the database's language, if that is not the bytes', and what mends them.
const ORDERED_BY_LANGUAGE: &str = r#"
    SELECT c.relname AS name, format('ALTER TABLE %I ', c.relname)
        || string_agg(format('ALTER COLUMN %I TYPE text COLLATE "C"', a.attname), ', ') AS mend
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE')
        AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'text'::regtype
        AND a.attcollation = (SELECT oid FROM pg_collation WHERE collname = 'default')
        AND 'a' < 'B'
    GROUP BY c.relname ORDER BY c.relname"#;
/// Two servers that start at once mend one after the other.
const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('systemprompt.collation', 0))";
/// For whoever waits for a table, everybody else waits too.
const WAIT: &str = "SET lock_timeout = '2s'";

const STILL_BY_LANGUAGE: &str = "texts in PostgreSQL are still compared by the rules of a language, which is slower; the next start, \
    or `systemprompt server migrate up`, tries again";

/// Has every table compare bytes from now on. What cannot be done now is done at the next start: answers are the same.
pub(super) async fn compare_bytes(options: PgConnectOptions) {
    if let Err(error) = mend(options.options([("statement_timeout", "0")])).await {
        tracing::warn!(%error, "{STILL_BY_LANGUAGE}");
    }
}

async fn mend(options: PgConnectOptions) -> sqlx::Result<()> {
    let mut connection = options.connect().await?;
    if !tables(&mut connection).await?.is_empty() {
        connection.execute(LOCK).await?;
        connection.execute(WAIT).await?;
        for (table, mend) in tables(&mut connection).await? {
            match connection.execute(AssertSqlSafe(mend)).await {
                Ok(_) => tracing::info!(table, "texts are compared by their bytes from now on"),
                Err(error) => {
                    tracing::warn!(table, %error, "{STILL_BY_LANGUAGE}");
                }
            }
        }
    }
    connection.close().await
}

async fn tables(connection: &mut PgConnection) -> sqlx::Result<Vec<(String, String)>> {
    let rows = sqlx::query(ORDERED_BY_LANGUAGE).fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("name")?, row.try_get("mend")?)))
        .collect()
}
