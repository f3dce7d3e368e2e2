//! Connections to PostgreSQL whose users give up: nobody after them may meet what they left.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use systemprompt::api::secret::SecretText;
use systemprompt::server::store::postgres::PostgresSettings;
use systemprompt::server::store::{Store, StoreError, settings};
use tokio::time::timeout;

use crate::store::postgres::{Cluster, or_skip};

/// As few as a server may hold, so that whoever comes next gets the same ones.
const CONNECTIONS: u32 = 2;
const GIVEN_UP: u64 = 300;

/// A migrated store, its URL, and the server that both need.
async fn store() -> Option<(Store, String, Cluster)> {
    let cluster = or_skip(Cluster::find_or_start())?;
    let url = cluster.new_database().await;
    let connecting = PostgresSettings {
        url: SecretText::new(&url),
        connections: CONNECTIONS,
    };
    let store = Store::connect(&connecting).await.expect("opened");
    store.migrate_up().await.expect("migrated");
    Some((store, url, cluster))
}

/// How long the nth waits: it gives up somewhere between its first word and the answer.
const fn patience(number: u64) -> Duration {
    Duration::from_micros(number % 60 * 5)
}

async fn put(store: &Store, value: &str) {
    let mut tx = store.begin().await.expect("begun");
    settings::put(&mut tx, "known", value).await.expect("written");
    tx.commit().await.expect("committed");
}

async fn find(store: &Store) -> Option<String> {
    settings::find(&mut store.look(), "known").await.expect("read")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_is_given_up_is_no_transaction_of_others() {
    let Some((store, _, _cluster)) = store().await else {
        return;
    };
    for number in 0..GIVEN_UP {
        let begun = timeout(patience(number), async { store.begin_read().await.map(drop) }).await;
        drop(begun);
        put(&store, &number.to_string()).await;
        for _ in 0..CONNECTIONS {
            assert_eq!(find(&store).await, Some(number.to_string()));
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_given_up_holds_nothing() {
    let Some((store, _, _cluster)) = store().await else {
        return;
    };
    put(&store, "first").await;
    for number in 0..GIVEN_UP {
        let mut tx = store.begin().await.expect("begun");
        let written = timeout(patience(number), settings::put(&mut tx, "known", "given up")).await;
        drop(written);
        drop(tx);
        assert_ne!(find(&store).await.as_deref(), Some("given up"));
        // Waits for the row's lock if it is held still.
        put(&store, &number.to_string()).await;
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_waited_for_is_given_to_nobody() {
    let Some((store, _, _cluster)) = store().await else {
        return;
    };
    put(&store, "right").await;
    for _ in 0..20 {
        let mut look = store.look();
        let slow = look.fetch_all("SELECT 'wrong' AS value FROM pg_sleep(0.05)", vec![]);
        assert!(timeout(Duration::from_millis(10), slow).await.is_err());
        for _ in 0..CONNECTIONS {
            assert_eq!(find(&store).await.as_deref(), Some("right"));
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_share_few() {
    let Some((store, _, _cluster)) = store().await else {
        return;
    };
    put(&store, "right").await;
    let asked = (0..200).map(|number| {
        let store = store.clone();
        async move {
            if number % 3 == 0 {
                put(&store, "right").await;
            }
            find(&store).await
        }
    });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.as_deref(), Some("right"));
    }
    store.close().await;
}

const ALL: &str = "SELECT * FROM settings";
const ONE: &str = "SELECT 1::bigint AS one";

/// Runs the statements in a transaction on every connection at once, and says how the last one went on each.
async fn on_all(store: &Store, statements: &[&'static str]) -> Vec<Result<usize, StoreError>> {
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(store.begin_read().await.expect("begun"));
    }
    let mut last = Vec::new();
    for mut tx in open {
        let mut rows = Ok(0);
        for statement in statements {
            rows = tx.fetch_all(statement, vec![]).await.map(|rows| rows.len());
        }
        if rows.is_ok() {
            tx.commit().await.expect("committed");
        }
        last.push(rows);
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_works_while_a_newer_server_migrates_works_on() {
    let Some((store, url, _cluster)) = store().await else {
        return;
    };
    let mut newer = PgConnection::connect(&url).await.expect("connected");
    let mut changes = 0;
    let mut change = async || {
        changes += 1;
        let change = format!("ALTER TABLE settings ADD COLUMN added_{changes} TEXT NOT NULL DEFAULT ''");
        newer.execute(AssertSqlSafe(change)).await.expect("changed");
    };
    for _ in 0..3 {
        let planned = on_all(&store, &[ONE, ALL]).await;
        assert!(planned.iter().all(Result::is_ok), "{planned:?}");
        change().await;
        for _ in 0..CONNECTIONS {
            store.look().fetch_all(ALL, vec![]).await.expect("read by itself");
        }
        change().await;
        let first = on_all(&store, &[ALL]).await;
        assert!(first.iter().all(Result::is_ok), "{first:?}");
        change().await;
        // What was begun cannot begin again unseen: it is told to come back. Those after it are not.
        let mut begun = store.begin_read().await.expect("begun");
        begun.fetch_all(ONE, vec![]).await.expect("read");
        let refused = begun.fetch_all(ALL, vec![]).await.map(drop).expect_err("refused");
        assert!(refused.is_away(), "{refused:?}");
        drop(begun);
        let after = on_all(&store, &[ONE, ALL]).await;
        assert!(after.iter().all(Result::is_ok), "{after:?}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_has_no_connection_left() {
    let Some((store, url, _cluster)) = store().await else {
        return;
    };
    put(&store, "some").await;
    let mut held = store.begin_read().await.expect("begun");
    settings::find(&mut held, "known").await.expect("read");
    let mut closing = std::pin::pin!(store.close());
    let closed = timeout(Duration::from_millis(50), &mut closing).await;
    assert!(closed.is_err(), "one is in use");
    assert!(store.begin().await.is_err(), "nobody new is let in");
    drop(held);
    closing.await;
    let mut admin = PgConnection::connect(&url).await.expect("connected");
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let began = Instant::now();
    // A session ends a moment after its connection.
    while sqlx::query_scalar::<_, i64>(others)
        .fetch_one(&mut admin)
        .await
        .expect("counted")
        > 0
    {
        assert!(began.elapsed() < Duration::from_secs(10), "somebody is left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
