//! What many tenants at once take, printed: a thousand creations in a world that fails, a thousand operations taken up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use systemprompt::api::id::{OperationId, TenantId};
use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::databases::fake::FakeDatabases;
use systemprompt::server::edge::EdgeSettings;
use systemprompt::server::edge::fake::FakeEdge;
use systemprompt::server::providers::fake::FakeProvider;
use systemprompt::server::provision::{NewOperation, Parts, Provision, Work};
use systemprompt::server::store::{Store, operations, resources, tenants};
use systemprompt::server::world::{Chaos, State, World};

use crate::sagas::rig::Rig;
use crate::store::cases::tenant;

/// As many as a usual run takes; the figures of a thousand are for `--run-ignored all`: minutes without optimisation.
const FEW: usize = 100;
const MANY: usize = 1000;
/// Of a hundred calls, so many fail in each way.
const PERCENT: u64 = 3;

/// The parts of a server over a world in memory.
async fn parts(rig: &Rig, world: &World) -> Parts {
    let mut parts = rig.parts().await;
    parts.databases = Arc::new(FakeDatabases::new(world.clone()));
    parts.edge = Arc::new(FakeEdge::new(world.clone(), EdgeSettings::default()));
    parts.provider = Arc::new(FakeProvider::new(world.clone()));
    parts.settings.workers = 32;
    parts
}

/// So many tenants, each with its creation in the queue.
async fn queued(rig: &Rig, store: &Store, count: usize) -> Vec<(TenantId, OperationId)> {
    let mut made = Vec::new();
    for number in 0..count {
        let id = tenant(store, &rig.clock, &format!("tenant-{number}")).await.id;
        let new = NewOperation {
            tenant_id: id.clone(),
            work: Work::CreateTenant,
            requested_by: "ada".to_owned(),
        };
        let mut tx = store.begin().await.expect("begun");
        let operation = systemprompt::server::provision::enqueue(&mut tx, &rig.clock, new).await;
        tx.commit().await.expect("committed");
        made.push((id, operation.expect("queued")));
    }
    made
}

/// Waits until nothing more happens by itself; answers how long that took.
async fn rested(store: &Store, rig: &Rig) -> Duration {
    let began = Instant::now();
    loop {
        let mut tx = store.begin_read().await.expect("begun");
        let queue = operations::queue_health(&mut tx, rig.clock.now())
            .await
            .expect("read");
        drop(tx);
        if queue.queued + queue.running == 0 {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(1200), "{queue:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creations_in_a_failing_world_leave_nothing_and_double_nothing() {
    created_under_faults(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: takes minutes without optimisation"]
async fn a_thousand_creations_in_a_failing_world() {
    created_under_faults(MANY).await;
}

async fn created_under_faults(count: usize) {
    let rig = Rig::fresh().await;
    let world = World::in_memory();
    let chaos = Chaos {
        percent: PERCENT,
        seed: 20_261_121,
    };
    world
        .change(|state| state.chaos = Some(chaos))
        .expect("the world");
    let parts = parts(&rig, &world).await;
    let store = parts.store.clone();
    let made = queued(&rig, &store, count).await;
    let engine = Provision::new(parts);
    engine.start().await.expect("started");
    let took = rested(&store, &rig).await;
    engine.stop().await;

    let world = world.change(|state| state.clone()).expect("the world");
    let (mut ready, mut failed, mut stuck) = (0, 0, 0);
    let mut known = 0;
    let mut tx = store.begin_read().await.expect("begun");
    for (id, operation) in &made {
        let row = operations::get(&mut tx, operation).await.expect("operation");
        let tenant = tenants::get(&mut tx, id).await.expect("tenant");
        let ledger = resources::list(&mut tx, id).await.expect("ledger");
        let present = ledger.iter().filter(|line| line.state == "present").count();
        let there = belongings(&world, &tenant.label, id);
        known += there;
        match row.status {
            OperationStatus::Succeeded => {
                ready += 1;
                assert_eq!(tenant.status, TenantStatus::AwaitingDeploy);
                assert_eq!(there, 5, "{id}: two networks, a volume, a database, a route");
                // Besides them a certificate, and three roles.
                assert_eq!(present, 9, "{ledger:?}");
            }
            OperationStatus::Failed => {
                failed += 1;
                assert_eq!((there, present), (0, 0), "{id}: {ledger:?}");
                assert!(row.error.is_some_and(|error| !error.message.is_empty()));
            }
            OperationStatus::Stuck => {
                stuck += 1;
                let error = row.error.expect("a cause");
                let hint = error.hint.unwrap_or_default();
                assert!(
                    !error.step.is_empty() && hint.contains("operation retry"),
                    "{hint}"
                );
            }
            other => panic!("{operation} is {other:?}"),
        }
    }
    let all = world.resources().len();
    eprintln!(
        "{count} creations, {PERCENT} % faults of each of 4 kinds: {ready} ready, {failed} taken back, {stuck} \
         stuck with their cause; {} orphans, 0 doubles, 0 stuck without cause ({:.1} s)",
        all - known,
        took.as_secs_f64()
    );
    assert_eq!(all, known, "everything belongs to somebody");
    assert!(failed > 0, "the world did fail");
}

/// How many things of the world are one tenant's. Each has one name, so that none is there twice.
fn belongings(world: &State, label: &str, id: &TenantId) -> usize {
    let id = id.as_str();
    let networks = world.networks.values().filter(|it| it.tenant == id).count();
    let volumes = world.volumes.values().filter(|it| it.tenant == id).count();
    let database = usize::from(world.databases.contains_key(id));
    networks + volumes + database + usize::from(world.routes.contains_key(label))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_operations_are_taken_up_after_a_restart() {
    taken_up(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: takes minutes without optimisation"]
async fn a_thousand_running_operations_are_taken_up_after_a_restart() {
    taken_up(MANY).await;
}

async fn taken_up(count: usize) {
    let rig = Rig::fresh().await;
    let world = World::in_memory();
    let parts = parts(&rig, &world).await;
    let store = parts.store.clone();
    let made = queued(&rig, &store, count).await;
    // As a server leaves them that is killed while each is in its last step.
    let mut tx = store.begin().await.expect("begun");
    for sql in [
        "UPDATE operation_steps SET status = 'done', attempts = 1 WHERE position < 9",
        "UPDATE operation_steps SET status = 'running', attempts = 1 WHERE position = 9",
        "UPDATE operations SET status = 'running', fence = 1, lease_owner = 'gone', leased_at = 1,
             lease_until = 9999999999999",
        "UPDATE tenants SET status = 'provisioning'",
    ] {
        tx.execute(sql, vec![]).await.expect("executed");
    }
    for (id, _) in &made {
        let label = tenants::get(&mut tx, id).await.expect("tenant").label;
        let route = |state: &mut State| {
            state.known.insert(label.clone());
            state.routes.insert(label, String::new())
        };
        world.change(route).expect("the world");
    }
    tx.commit().await.expect("committed");

    let began = Instant::now();
    let engine = Provision::new(parts);
    engine.start().await.expect("started");
    let mut taken = None;
    while taken.is_none() {
        let mut tx = store.begin_read().await.expect("begun");
        // Given back it has 2, taken up again more.
        let left = "SELECT 1 AS one FROM operations WHERE fence < 3 LIMIT 1";
        if tx.fetch_optional(left, vec![]).await.expect("read").is_none() {
            taken = Some(began.elapsed());
        }
        drop(tx);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rested(&store, &rig).await;
    eprintln!(
        "{count} running operations after a restart: the last one taken up after {:.1} s, all ended after {:.1} s",
        taken.unwrap_or_default().as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    engine.stop().await;
    let mut tx = store.begin_read().await.expect("begun");
    for (_, operation) in &made {
        let row = operations::get(&mut tx, operation).await.expect("operation");
        assert_eq!(row.status, OperationStatus::Succeeded, "{row:?}");
    }
}
