//! Lines of histories, each durable by itself, with few and with many tenants: through our store, and by sqlx alone.

use std::time::{Duration, Instant};

use sqlx::Row as _;
use systemprompt::api::id::TenantId;
use systemprompt::api::time::Time;
use systemprompt::server::store::Store;
use systemprompt::server::store::events::{NewEvent, append};

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::load::Kept;
use crate::harness::seed::{Database, tenant_id};
use crate::harness::served::block_on;
use crate::waits::api::{AGAINST_BARE, AGAINST_FEW, P99_AGAINST_BARE, spelled};

const BARE: &str = "bare sqlx, the same statements";
/// As many as the server's own pool has connections, on both sides.
const AT_ONCE: usize = 16;
const SEQ: &str =
    "UPDATE tenants SET last_event_seq = last_event_seq + 1 WHERE id = $1 RETURNING last_event_seq";
const LINE: &str = "INSERT INTO events (tenant_id, seq, event, status, message, detail, at)
    VALUES ($1, $2, 'step', 'pending', 'a step was done', '{}', 2)";

/// The database of each size, the smallest first.
pub(crate) fn bench(engine: &str, scale: Scale, databases: &[(usize, &Database)]) -> Outcome<Vec<Measured>> {
    let count = if scale.quick { 400 } else { 4000 };
    let (few, many) = (databases[0], databases[databases.len() - 1]);
    let [ours, beside, bare] = [Kept::default(), Kept::default(), Kept::default()];
    let name = |size| format!("systemprompt, {} tenants", spelled(size));
    let (most, least) = (name(many.0), name(few.0));
    let title = format!(
        "{engine}: lines of histories appended with {} tenants",
        spelled(many.0)
    );
    let rounds = scale.rounds(5);
    let throughput = Contest::new(title.clone(), Unit::PerSecond)
        .with(Role::Ours, most.clone(), || sample(&ours, count, through_store(many, count)))
        .with(Role::Beside, least.clone(), || sample(&beside, count, through_store(few, count)))
        .with(Role::Floor, BARE, || sample(&bare, count, by_sqlx(many, count)))
        .goal(BARE, AGAINST_BARE)
        .goal(least.clone(), AGAINST_FEW)
        .note(format!("{AT_ONCE} at once, each of a tenant of its own and in a transaction of its own, flushed before it ends."))
        .run(rounds)?;
    let slowest = Contest::new(format!("{title}, the slowest of a hundred"), Unit::Seconds)
        .with(Role::Ours, most, || ours.take())
        .with(Role::Beside, least, || beside.take())
        .with(Role::Floor, BARE, || bare.take())
        .goal(BARE, P99_AGAINST_BARE)
        .run(rounds)?;
    Ok(vec![throughput, slowest])
}

/// How long all took, and each of them.
type Took = (Duration, Vec<Duration>);

fn sample(p99: &Kept, count: usize, work: impl Future<Output = Outcome<Took>>) -> Outcome<f64> {
    let (whole, mut each) = block_on(work)?;
    each.sort_unstable();
    p99.put(each[count * 99 / 100].as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let count = count as f64;
    Ok(count / whole.as_secs_f64())
}

/// The tenants to whom one of the workers appends, in turn.
fn tenants_of(worker: usize, (size, count): (usize, usize)) -> impl Iterator<Item = String> {
    let mine = (0..count).filter(move |number| number % AT_ONCE == worker);
    mine.map(move |number| tenant_id(1 + number * 97 % size))
}

async fn through_store((size, database): (usize, &Database), count: usize) -> Outcome<Took> {
    let store = match database {
        Database::Sqlite(path) => Store::open_sqlite(path).await?,
        Database::Postgres(url) => Store::open_postgres(url).await?,
    };
    let (store, new) = (&store, &NewEvent::new("step", "a step was done"));
    let began = Instant::now();
    let workers = (0..AT_ONCE).map(|worker| async move {
        let mut each = Vec::new();
        for tenant in tenants_of(worker, (size, count)) {
            let one = Instant::now();
            let mut tx = store.begin().await?;
            append(
                &mut tx,
                &tenant.parse::<TenantId>()?,
                None,
                new,
                Time::from_millis(2),
            )
            .await?;
            tx.commit().await?;
            each.push(one.elapsed());
        }
        Ok::<_, Box<dyn std::error::Error>>(each)
    });
    let each = futures::future::try_join_all(workers).await?.concat();
    Ok((began.elapsed(), each))
}

async fn by_sqlx((size, database): (usize, &Database), count: usize) -> Outcome<Took> {
    macro_rules! worked {
        ($pool:expr, $begin:expr) => {{
            let pool = &$pool;
            let began = Instant::now();
            let workers = (0..AT_ONCE).map(|worker| async move {
                let mut each = Vec::new();
                for tenant in tenants_of(worker, (size, count)) {
                    let one = Instant::now();
                    let mut tx = pool.begin_with($begin).await?;
                    let row = sqlx::query(SEQ).bind(&tenant).fetch_one(&mut *tx).await?;
                    let seq: i64 = row.try_get(0)?;
                    sqlx::query(LINE)
                        .bind(&tenant)
                        .bind(seq)
                        .execute(&mut *tx)
                        .await?;
                    tx.commit().await?;
                    each.push(one.elapsed());
                }
                Ok::<_, sqlx::Error>(each)
            });
            let each = futures::future::try_join_all(workers).await?.concat();
            (began.elapsed(), each)
        }};
    }
    Ok(match database {
        Database::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(path)
                .foreign_keys(true)
                .synchronous(sqlx::sqlite::SqliteSynchronous::Full);
            let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
            worked!(pool.connect_with(options).await?, "BEGIN IMMEDIATE")
        }
        Database::Postgres(url) => {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(AT_ONCE as u32);
            worked!(pool.connect(url).await?, "BEGIN")
        }
    })
}
