//! The store on both of its engines: every case runs on SQLite and, where there is one, on PostgreSQL.

mod audit;
pub(crate) mod cases;
mod connections;
mod installation;
mod lists;
mod logs;
mod members;
mod operations;
pub(crate) mod postgres;
mod recorded;
mod signing_in;

use systemprompt::server::store::Store;

use crate::store::postgres::{Cluster, or_skip};

/// A case: a name, and what it does with a fresh, migrated store.
type Case = (&'static str, fn(Store) -> futures::future::BoxFuture<'static, ()>);

fn all() -> Vec<Case> {
    let mut all = cases::ALL.to_vec();
    all.extend_from_slice(lists::ALL);
    all.extend_from_slice(logs::ALL);
    all.extend_from_slice(members::ALL);
    all.extend_from_slice(operations::ALL);
    all.extend_from_slice(signing_in::ALL);
    all.extend_from_slice(audit::ALL);
    all.extend_from_slice(recorded::ALL);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    for (name, case) in all() {
        eprintln!("case: {name}");
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open_sqlite(&folder.path().join("store.db"))
            .await
            .expect("opened");
        store.migrate_up().await.expect("migrated");
        case(store.clone()).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    let Some(cluster) = or_skip(Cluster::find_or_start()) else {
        return;
    };
    for (name, case) in all() {
        eprintln!("case: {name}");
        let store = Store::open_postgres(&cluster.new_database().await)
            .await
            .expect("opened");
        store.migrate_up().await.expect("migrated");
        case(store.clone()).await;
        store.close().await;
    }
}

/// Where the database is in a language, texts would be in that language's order, and compared by its rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_in_english() {
    let Some(cluster) = or_skip(Cluster::find_or_start()) else {
        return;
    };
    for (name, case) in all() {
        eprintln!("case: {name}");
        let Some(url) = or_skip(cluster.new_database_in_english().await) else {
            return;
        };
        let store = Store::open_postgres(&url).await.expect("opened");
        store.migrate_up().await.expect("migrated");
        case(store.clone()).await;
        let mut tx = store.begin_read().await.expect("begun");
        let sql = "SELECT c.relname || '.' || a.attname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             JOIN pg_collation o ON o.oid = a.attcollation
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND o.collname <> 'C'";
        let rows = tx.fetch_all(sql, vec![]).await.expect("read");
        let by_language: Vec<_> = rows.iter().map(|row| row.text("name").expect("a name")).collect();
        assert!(by_language.is_empty(), "{by_language:?}");
        drop(tx);
        store.close().await;
    }
}
