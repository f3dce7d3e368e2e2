//! Durable operations: how many a second, and how long a server needs that finds a thousand of them in the middle.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::seed::{Database, STEPS, accounts, creations, tenants};
use crate::harness::served::{Folder, Postgres, block_on};

const AGAINST_TRANSACTIONS: f64 = 0.5;
/// Issue 3's figure, in seconds.
const RECOVERY: f64 = 5.0;
const ALLOWED: &str = "what is allowed";
const BARE: &str = "sqlx: one transaction for each step";
/// As many as the engine works on at once.
const AT_ONCE: usize = 8;

/// Both databases, then a recovery.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let mut all = vec![sqlite(scale)?];
    if let Some(server) = Postgres::start()? {
        all.push(postgres(&server, scale)?);
    }
    all.push(recovery(scale)?);
    Ok(all)
}

fn sqlite(scale: Scale) -> Outcome<Measured> {
    operations("SQLite", scale, |folder, _| {
        Ok(Database::in_folder(folder.path()))
    })
}

fn postgres(server: &Postgres, scale: Scale) -> Outcome<Measured> {
    operations("PostgreSQL", scale, |_, name| {
        Ok(Database::Postgres(server.database(name)?))
    })
}

fn operations(
    engine: &str,
    scale: Scale,
    database: impl Fn(&Folder, &str) -> Outcome<Database>,
) -> Outcome<Measured> {
    let count = if scale.quick { 200 } else { 1000 };
    let number = std::cell::Cell::new(0);
    let fresh = || {
        number.set(number.get() + 1);
        let folder = Folder::new()?;
        let database = database(&folder, &format!("operations_{}", number.get()))?;
        database.prepare(folder.path())?;
        database.run(
            &[
                accounts(1, 1, "read"),
                tenants(count, 1, "pending"),
                creations(count),
            ]
            .concat(),
        )?;
        Ok::<_, Box<dyn std::error::Error>>((folder, database))
    };
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let whole = count as f64;
    Contest::new(format!("{engine}: creations of tenants a second, {} steps each, nothing real made", STEPS.len()), Unit::PerSecond)
        .with(Role::Ours, "systemprompt", || {
            let (folder, database) = fresh()?;
            Ok(whole / ended(&folder, &database)?.as_secs_f64())
        })
        .with(Role::Floor, BARE, || {
            let (_folder, database) = fresh()?;
            Ok(whole / block_on(bare(&database, count))?.as_secs_f64())
        })
        .goal(BARE, AGAINST_TRANSACTIONS)
        .note(format!(
            "Ours writes a step's end and the beginning of those that follow it in one transaction, with the ledger, the \
             history and the state; the floor writes the step and a line of the history, {AT_ONCE} at once. From the start of the server on."
        ))
        .run(scale.rounds(3))
}

/// From the start of the server until nothing is left to do.
fn ended(folder: &Folder, database: &Database) -> Outcome<Duration> {
    let began = Instant::now();
    let served = database.serve(folder.path(), &["--world-file", ":memory:"])?;
    let mut looking = Looking::at(database)?;
    while looking.count("SELECT count(*) FROM operations WHERE finished_at IS NULL")? > 0 {
        if began.elapsed() > Duration::from_secs(120) {
            return Err("the operations do not end".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = began.elapsed();
    drop(served);
    match looking.count("SELECT count(*) FROM operations WHERE status <> 'succeeded'")? {
        0 => Ok(took),
        failed => Err(format!("{failed} operations have failed").into()),
    }
}

fn recovery(scale: Scale) -> Outcome<Measured> {
    let sample = || {
        let folder = Folder::new()?;
        let database = Database::in_folder(folder.path());
        database.prepare(folder.path())?;
        let left: Vec<String> = [
            "UPDATE operation_steps SET status = 'done', attempts = 1 WHERE name <> 'tell-edge'",
            "UPDATE operation_steps SET status = 'running', attempts = 1 WHERE name = 'tell-edge'",
            "UPDATE operations SET status = 'running', fence = 1, lease_owner = 'gone', leased_at = 1,
                 lease_until = 9999999999999",
            "UPDATE tenants SET status = 'provisioning'",
        ]
        .map(str::to_owned)
        .into();
        let rows = [
            accounts(1, 1, "read"),
            tenants(1000, 1, "pending"),
            creations(1000),
            left,
        ];
        database.run(&rows.concat())?;
        Ok(ended(&folder, &database)?.as_secs_f64())
    };
    Contest::new(
        "a server that finds 1000 operations in the middle: until all have ended",
        Unit::Seconds,
    )
    .with(Role::Ours, "systemprompt, SQLite", sample)
    .with(Role::Beside, ALLOWED, || Ok(RECOVERY))
    .goal(ALLOWED, 1.0)
    .run(scale.rounds(3))
}

/// The floor: so many workers, each step of each operation in a transaction of its own.
async fn bare(database: &Database, count: usize) -> Outcome<Duration> {
    let step = "UPDATE operation_steps SET status = 'done', attempts = 1, updated_at = 2
        WHERE operation_id = $1 AND position = $2";
    let seq = "UPDATE tenants SET last_event_seq = last_event_seq + 1 WHERE id = $1 RETURNING last_event_seq";
    let line = "INSERT INTO events (tenant_id, seq, operation_id, event, status, message, detail, at)
        VALUES ($1, $2, $3, 'step', 'provisioning', 'a step was done', '{}', 2)";
    macro_rules! worked {
        ($pool:expr, $begin:expr) => {{
            let pool = $pool;
            let began = Instant::now();
            let workers = (0..AT_ONCE).map(|worker| {
                let pool = pool.clone();
                async move {
                    for number in (1..=count).filter(|number| number % AT_ONCE == worker) {
                        let (operation, tenant) = (format!("op_{number:026}"), format!("ten_{number:026}"));
                        for position in 0..STEPS.len() as i64 {
                            let mut tx = pool.begin_with($begin).await?;
                            sqlx::query(step)
                                .bind(&operation)
                                .bind(position)
                                .execute(&mut *tx)
                                .await?;
                            let row = sqlx::query(seq).bind(&tenant).fetch_one(&mut *tx).await?;
                            let seq: i64 = row.try_get(0)?;
                            sqlx::query(line)
                                .bind(&tenant)
                                .bind(seq)
                                .bind(&operation)
                                .execute(&mut *tx)
                                .await?;
                            tx.commit().await?;
                        }
                    }
                    Ok::<(), sqlx::Error>(())
                }
            });
            futures::future::try_join_all(workers).await?;
            began.elapsed()
        }};
    }
    Ok(match database {
        Database::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(path)
                .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
            let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
            worked!(pool.connect_with(options).await?, "BEGIN IMMEDIATE")
        }
        Database::Postgres(url) => {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(16);
            worked!(pool.connect(url).await?, "BEGIN")
        }
    })
}

/// A connection that looks on: a new one for every look would take its share of the processors.
enum Looking {
    Sqlite(sqlx::sqlite::SqliteConnection),
    Postgres(sqlx::postgres::PgConnection),
}

impl Looking {
    fn at(database: &Database) -> Outcome<Self> {
        Ok(block_on(async {
            Ok::<_, sqlx::Error>(match database {
                Database::Sqlite(path) => {
                    let options = sqlx::sqlite::SqliteConnectOptions::new()
                        .filename(path)
                        .read_only(true);
                    Self::Sqlite(sqlx::sqlite::SqliteConnection::connect_with(&options).await?)
                }
                Database::Postgres(url) => Self::Postgres(sqlx::postgres::PgConnection::connect(url).await?),
            })
        })?)
    }

    /// The number that a query answers.
    fn count(&mut self, sql: &str) -> Outcome<i64> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(block_on(async {
            match self {
                Self::Sqlite(connection) => connection.fetch_one(sql).await?.try_get(0),
                Self::Postgres(connection) => connection.fetch_one(sql).await?.try_get(0),
            }
        })?)
    }
}
