//! Two servers over one PostgreSQL: operations, decisions and handlers at once, without a deadlock or a lost line.

use std::sync::Arc;
use std::time::Duration;

use systemprompt::api::id::{OperationId, TenantId};
use systemprompt::api::operation::OperationStatus;
use systemprompt::server::clock::Clock;
use systemprompt::server::provision::{Decision, NewOperation, Provision, Work};
use systemprompt::server::store::{Store, events, operations, tenants};

use crate::sagas::rig::{DIGEST, Rig, deploy};
use crate::store::cases::tenant;
use crate::store::postgres::{Cluster, or_skip};

const TENANTS: usize = 8;

async fn enqueue(store: &Store, clock: &Clock, tenant: &TenantId, work: Work) -> OperationId {
    let mut tx = store.begin().await.expect("begun");
    let new = NewOperation {
        tenant_id: tenant.clone(),
        work,
        requested_by: "ada".to_owned(),
    };
    let id = systemprompt::server::provision::enqueue(&mut tx, clock, new)
        .await
        .expect("queued");
    tx.commit().await.expect("committed");
    id
}

async fn rested(store: &Store, operation: &OperationId) -> OperationStatus {
    for _ in 0..2000 {
        let mut tx = store.begin_read().await.expect("begun");
        let row = operations::get(&mut tx, operation).await.expect("operation");
        if row.finished_at.is_some() {
            return row.status;
        }
        drop(tx);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("`{operation}` does not come to rest within 20 seconds");
}

/// Creates, deploys, and abandons a second deploy while it runs.
async fn live(store: &Store, clock: &Clock, engines: &[Provision], tenant: &TenantId) {
    let made = enqueue(store, clock, tenant, Work::CreateTenant).await;
    engines[0].wake();
    assert_eq!(rested(store, &made).await, OperationStatus::Succeeded);
    let first = enqueue(store, clock, tenant, deploy(DIGEST)).await;
    engines[1].wake();
    assert_eq!(rested(store, &first).await, OperationStatus::Succeeded);
    let second = enqueue(store, clock, tenant, deploy("sha256:dddd")).await;
    engines[0].wake();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // It may have ended already; otherwise it ends here, whoever works on it.
    let decided = engines[1].decide_now(Decision::Abandon, &second).await;
    let ended = rested(store, &second).await;
    match decided {
        Ok(_) => assert_eq!(ended, OperationStatus::Abandoned),
        Err(_) => assert_eq!(ended, OperationStatus::Succeeded),
    }
    let removed = enqueue(store, clock, tenant, Work::DeleteTenant).await;
    engines[1].wake();
    assert_eq!(rested(store, &removed).await, OperationStatus::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_database() {
    let Some(cluster) = or_skip(Cluster::find_or_start()) else {
        return;
    };
    let url = cluster.new_database().await;
    let store = Store::open_postgres(&url).await.expect("opened");
    store.migrate_up().await.expect("migrated");
    let rig = Arc::new(Rig::fresh().await);
    let mut engines = Vec::new();
    for _ in 0..2 {
        let mut parts = rig.parts().await;
        parts.store = Store::open_postgres(&url).await.expect("opened");
        let engine = Provision::new(parts);
        engine.start().await.expect("started");
        engines.push(engine);
    }
    let mut ids = Vec::new();
    for number in 0..TENANTS {
        ids.push(tenant(&store, &rig.clock, &format!("tenant-{number}")).await.id);
    }
    futures::future::join_all(ids.iter().map(|id| live(&store, &rig.clock, &engines, id))).await;
    for engine in &engines {
        engine.stop().await;
    }
    let mut tx = store.begin_read().await.expect("begun");
    for id in &ids {
        let row = tenants::get(&mut tx, id).await.expect("tenant");
        let all = events::list_after(&mut tx, id, 0, 1000).await.expect("events");
        let numbers: Vec<u64> = all.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=row.last_event_seq).collect::<Vec<u64>>());
    }
    assert!(
        rig.world.resources().expect("world").is_empty(),
        "nothing is left of all of them"
    );
}
