//! The whole database from a SQLite file to PostgreSQL: in one transaction, and compared before it lasts.
//!
//! The tables are taken from the schema itself, so that one that a later migration adds is not forgotten.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Row as _, Sqlite, Transaction};

use crate::server::store::{Store, StoreError};

/// Rows that are carried at once.
const BUNDLE: usize = 500;
/// The list of migrations, which the target has of its own.
const NOT_CARRIED: &str = "_sqlx_migrations";

/// Rows that the migrations themselves write, by table: which ones are more than that.
const SEEDED: &[(&str, &str)] = &[
    ("settings", "key <> 'oldest-program'"),
    ("audit_head", "seq <> 0"),
];

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source is no file, or the target no server.
    #[error("failed to copy: the source must be a SQLite file and the target a PostgreSQL database")]
    Kinds,
    /// The target has rows.
    #[error("the target is not empty: table `{0}` has rows")]
    NotEmpty(String),
    /// A table has a column that is neither TEXT nor BIGINT.
    #[error("failed to copy table `{table}`: the type of its column `{column}` is not known")]
    Column {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
    },
    /// What arrived is not what was sent; the target is as it was.
    #[error("table `{table}` differs after the copy: {sent} rows were sent, {arrived} arrived")]
    Differs {
        /// Which table.
        table: String,
        /// Rows of the source.
        sent: u64,
        /// Rows of the target.
        arrived: u64,
    },
    /// A database fails.
    #[error("failed to read or write a database")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(StoreError::Statement(error))
    }
}

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CopiedTable {
    /// Its name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// A checksum of all its rows, whatever their order; the same on both sides.
    pub checksum: String,
}

struct Table {
    name: String,
    columns: Vec<Column>,
    needs: BTreeSet<String>,
}

#[derive(Clone)]
struct Column {
    name: String,
    is_text: bool,
}

enum Cell {
    Text(Option<String>),
    Int(Option<i64>),
}

/// A sum over rows that does not depend on their order.
#[derive(Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hash: u128,
}

impl Sum {
    fn add(&mut self, cells: &[Cell]) {
        let mut hasher = Sha256::new();
        for cell in cells {
            match cell {
                Cell::Text(None) | Cell::Int(None) => hasher.update([0]),
                Cell::Text(Some(text)) => {
                    hasher.update([1]);
                    hasher.update((text.len() as u64).to_be_bytes());
                    hasher.update(text.as_bytes());
                }
                Cell::Int(Some(number)) => {
                    hasher.update([2]);
                    hasher.update(number.to_be_bytes());
                }
            }
        }
        let digest = hasher.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        self.hash = self.hash.wrapping_add(u128::from_be_bytes(half));
        self.rows += 1;
    }
}

/// Copies every table from a SQLite file into an empty PostgreSQL database of the same migrations.
///
/// # Errors
/// The target has rows, or a database fails; then the target is as it was.
pub async fn copy(source: &Store, target: &Store) -> Result<Vec<CopiedTable>, CopyError> {
    let (Store::Sqlite { reader, .. }, Store::Postgres(connections)) = (source, target) else {
        return Err(CopyError::Kinds);
    };
    // Both see one moment: readers of the file its snapshot, the target its own transaction.
    let mut from = reader.begin().await?;
    let mut own = PgConnection::connect_with(connections.options()).await?;
    let mut to = own.begin().await?;
    // Moving everything may take longer than a statement may, and than a pause between two.
    for setting in ["statement_timeout", "idle_in_transaction_session_timeout"] {
        sqlx::query(AssertSqlSafe(format!("SET LOCAL {setting} = 0")))
            .execute(&mut *to)
            .await?;
    }
    let tables = in_order(tables(&mut from).await?);
    for table in &tables {
        refuse_rows(&mut to, table).await?;
        // Rows are carried as they are; what watches over new ones has watched over these.
        alter(&mut to, table, "DISABLE TRIGGER USER").await?;
    }
    for (seeded, _) in SEEDED {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM \"{seeded}\"")))
            .execute(&mut *to)
            .await?;
    }
    let mut copied = Vec::new();
    for table in &tables {
        let sent = carry(&mut from, &mut to, table).await?;
        let arrived = sum(&mut to, table).await?;
        if sent != arrived {
            return Err(CopyError::Differs {
                table: table.name.clone(),
                sent: sent.rows,
                arrived: arrived.rows,
            });
        }
        copied.push(CopiedTable {
            table: table.name.clone(),
            rows: sent.rows,
            checksum: format!("{:032x}", sent.hash),
        });
    }
    for table in &tables {
        alter(&mut to, table, "ENABLE TRIGGER USER").await?;
    }
    to.commit().await?;
    Ok(copied)
}

async fn alter(
    to: &mut Transaction<'_, Postgres>,
    table: &Table,
    what: &'static str,
) -> Result<(), CopyError> {
    let sql = format!("ALTER TABLE \"{}\" {what}", table.name);
    sqlx::query(AssertSqlSafe(sql)).execute(&mut **to).await?;
    Ok(())
}

async fn tables(from: &mut Transaction<'_, Sqlite>) -> Result<Vec<Table>, CopyError> {
    let names = sqlx::query(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )
    .fetch_all(&mut **from)
    .await?;
    let mut tables = Vec::new();
    for row in names {
        let name: String = row.try_get("name")?;
        if name == NOT_CARRIED {
            continue;
        }
        let mut columns = Vec::new();
        let info = sqlx::query("SELECT name, type FROM pragma_table_info($1) ORDER BY cid").bind(&name);
        for row in info.fetch_all(&mut **from).await? {
            let column: String = row.try_get("name")?;
            let is_text = match row.try_get::<String, _>("type")?.to_uppercase().as_str() {
                "TEXT" => true,
                "BIGINT" => false,
                _ => {
                    return Err(CopyError::Column { table: name, column });
                }
            };
            columns.push(Column {
                name: column,
                is_text,
            });
        }
        let keys = sqlx::query("SELECT \"table\" AS needed FROM pragma_foreign_key_list($1)").bind(&name);
        let mut needs = BTreeSet::new();
        for row in keys.fetch_all(&mut **from).await? {
            needs.insert(row.try_get("needed")?);
        }
        needs.remove(&name);
        tables.push(Table { name, columns, needs });
    }
    Ok(tables)
}

/// Tables after those that their rows point to.
fn in_order(mut waiting: Vec<Table>) -> Vec<Table> {
    let mut ordered: Vec<Table> = Vec::new();
    while !waiting.is_empty() {
        let known: BTreeSet<&str> = ordered.iter().map(|table| table.name.as_str()).collect();
        let free = waiting
            .iter()
            .position(|table| table.needs.iter().all(|name| known.contains(name.as_str())));
        // A circle of keys: the database will say so.
        let table = waiting.remove(free.unwrap_or(0));
        ordered.push(table);
    }
    ordered
}

async fn refuse_rows(to: &mut Transaction<'_, Postgres>, table: &Table) -> Result<(), CopyError> {
    let seeded = SEEDED.iter().find(|(name, _)| *name == table.name);
    let condition = seeded.map_or("TRUE", |(_, more)| more);
    let sql = format!("SELECT 1 FROM \"{}\" WHERE {condition} LIMIT 1", table.name);
    match sqlx::query(AssertSqlSafe(sql)).fetch_optional(&mut **to).await? {
        Some(_) => Err(CopyError::NotEmpty(table.name.clone())),
        None => Ok(()),
    }
}

async fn carry(
    from: &mut Transaction<'_, Sqlite>,
    to: &mut Transaction<'_, Postgres>,
    table: &Table,
) -> Result<Sum, CopyError> {
    let select = format!("SELECT {} FROM \"{}\"", names(table), table.name);
    let mut sum = Sum::default();
    let mut bundle = Vec::with_capacity(BUNDLE);
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut **from);
    while let Some(row) = rows.try_next().await? {
        let cells = from_sqlite(&row, &table.columns)?;
        sum.add(&cells);
        bundle.push(cells);
        if bundle.len() == BUNDLE {
            insert(to, table, std::mem::take(&mut bundle)).await?;
        }
    }
    drop(rows);
    if !bundle.is_empty() {
        insert(to, table, bundle).await?;
    }
    Ok(sum)
}

async fn insert(
    to: &mut Transaction<'_, Postgres>,
    table: &Table,
    bundle: Vec<Vec<Cell>>,
) -> Result<(), CopyError> {
    let arrays: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let kind = if column.is_text { "text" } else { "bigint" };
            format!("${}::{kind}[]", index + 1)
        })
        .collect();
    let sql = format!(
        "INSERT INTO \"{}\" ({}) SELECT * FROM UNNEST({})",
        table.name,
        names(table),
        arrays.join(", ")
    );
    let mut columns: Vec<Vec<Cell>> = table.columns.iter().map(|_| Vec::new()).collect();
    for row in bundle {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.push(cell);
        }
    }
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (column, cells) in table.columns.iter().zip(columns) {
        query = if column.is_text {
            query.bind(cells.into_iter().map(Cell::text).collect::<Vec<_>>())
        } else {
            query.bind(cells.into_iter().map(Cell::int).collect::<Vec<_>>())
        };
    }
    query.execute(&mut **to).await?;
    Ok(())
}

impl Cell {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => text,
            Self::Int(_) => None,
        }
    }

    fn int(self) -> Option<i64> {
        match self {
            Self::Int(number) => number,
            Self::Text(_) => None,
        }
    }
}

async fn sum(to: &mut Transaction<'_, Postgres>, table: &Table) -> Result<Sum, CopyError> {
    let select = format!("SELECT {} FROM \"{}\"", names(table), table.name);
    let mut sum = Sum::default();
    let mut rows = sqlx::query(AssertSqlSafe(select)).fetch(&mut **to);
    while let Some(row) = rows.try_next().await? {
        sum.add(&from_postgres(&row, &table.columns)?);
    }
    Ok(sum)
}

fn names(table: &Table) -> String {
    let quoted: Vec<String> = table
        .columns
        .iter()
        .map(|column| format!("\"{}\"", column.name))
        .collect();
    quoted.join(", ")
}

fn from_sqlite(row: &SqliteRow, columns: &[Column]) -> Result<Vec<Cell>, sqlx::Error> {
    let cell = |column: &Column| match column.is_text {
        true => row.try_get(column.name.as_str()).map(Cell::Text),
        false => row.try_get(column.name.as_str()).map(Cell::Int),
    };
    columns.iter().map(cell).collect()
}

fn from_postgres(row: &PgRow, columns: &[Column]) -> Result<Vec<Cell>, sqlx::Error> {
    let cell = |column: &Column| match column.is_text {
        true => row.try_get(column.name.as_str()).map(Cell::Text),
        false => row.try_get(column.name.as_str()).map(Cell::Int),
    };
    columns.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::{Cell, Sum};

    fn row(text: Option<&str>, number: Option<i64>) -> [Cell; 2] {
        [Cell::Text(text.map(str::to_owned)), Cell::Int(number)]
    }

    #[test]
    fn a_sum_knows_rows_and_not_their_order() {
        let sum = |rows: &[[Cell; 2]]| {
            let mut sum = Sum::default();
            rows.iter().for_each(|row| sum.add(row));
            sum
        };
        let one = || row(Some("a"), Some(1));
        let two = || row(Some("b"), None);
        assert!(sum(&[one(), two()]) == sum(&[two(), one()]));
        assert!(sum(&[one(), two()]) != sum(&[one(), one()]));
        assert!(sum(&[one()]) != sum(&[row(Some("a"), Some(2))]));
        assert!(sum(&[row(Some(""), Some(1))]) != sum(&[row(None, Some(1))]));
    }
}
