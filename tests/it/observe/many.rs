//! What it costs to look after a thousand tenants; printed, not asserted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use systemprompt::api::id::{AccountId, TenantId};
use systemprompt::api::log::{LogQuery, LogSource};
use systemprompt::server::providers::fake::FakeProvider;
use systemprompt::server::provision::{Parts, Provision, Sampler};
use systemprompt::server::store::accounts::{self, AccountRow};
use systemprompt::server::store::{Store, log_chunks, tenants};
use systemprompt::server::world::{Machine, Printed, World};

use crate::sagas::rig::{Rig, new_tenant};

const TENANTS: usize = 1000;
const LINES: usize = 20;

async fn populated(rig: &Rig, store: &Store, world: &World) -> Vec<TenantId> {
    let owner = AccountId::new(rig.clock.uuid());
    let mut tx = store.begin().await.expect("begun");
    let account = AccountRow {
        id: owner.clone(),
        email: "many@example.test".to_owned(),
        password_hash: None,
        operator: false,
        created_at: rig.clock.now(),
    };
    accounts::create(&mut tx, &account).await.expect("account");
    let mut ids = Vec::new();
    for number in 0..TENANTS {
        let id = TenantId::new(rig.clock.uuid());
        let name = format!("many-{number}");
        let new = new_tenant(&id, &name, &owner);
        tenants::insert(&mut tx, &new, rig.clock.now())
            .await
            .expect("tenant");
        let machine = Machine {
            tenant: id.to_string(),
            release: 1,
            image: String::new(),
            memory_mb: 256,
            environment: [].into(),
            behaviour: None,
            traffic: true,
            probes: 0,
            restarts: 0,
            made: number as u64,
            printed: Vec::new(),
            is_ended: false,
            cpu_micros: 0,
            memory_bytes: 40_000_000,
        };
        world
            .change(|state| state.machines.insert(format!("sp-fake-{name}-v1"), machine))
            .expect("a world");
        ids.push(id);
    }
    tx.commit().await.expect("committed");
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tenants() {
    let rig = Rig::fresh().await;
    let world = World::in_memory();
    let parts = Parts {
        provider: Arc::new(FakeProvider::new(world.clone())),
        ..rig.parts().await
    };
    let store = parts.store.clone();
    let ids = populated(&rig, &store, &world).await;
    let provision = Provision::new(parts);
    let mut sampler = Sampler::default();
    for round in 1..=4 {
        let began = Instant::now();
        let sampled = provision.sample(&mut sampler).await.expect("sampled");
        eprintln!(
            "round {round}: {sampled} tenants sampled in {:?}",
            began.elapsed()
        );
        assert_eq!(sampled, TENANTS);
    }
    provision.observe();
    all_have(&store, &ids, 2, "first lines").await;
    world
        .change(|state| {
            for machine in state.machines.values_mut() {
                machine.printed.extend((0..LINES).map(|number| Printed {
                    at: format!("2026-11-20T12:00:{number:02}Z"),
                    is_error: false,
                    text: format!("a line of the usual length that says what happened, number {number}"),
                }));
            }
        })
        .expect("a world");
    all_have(&store, &ids, 2 + LINES as u64, "their lines").await;
    // Every line once, in order.
    let mut tx = store.begin_read().await.expect("begun");
    let tenant = tenants::get(&mut tx, &ids[TENANTS / 2]).await.expect("a tenant");
    drop(tx);
    let lines = provision
        .logs(&tenant, &LogQuery::default())
        .await
        .expect("lines");
    let lines: Vec<_> = futures::StreamExt::collect::<Vec<_>>(lines).await;
    assert_eq!(lines.len(), 2 + LINES);
    provision.stop().await;
    store.close().await;
}

async fn all_have(store: &Store, ids: &[TenantId], wanted: u64, what: &str) {
    let began = Instant::now();
    let mut left: Vec<&TenantId> = ids.iter().collect();
    while !left.is_empty() {
        let mut tx = store.begin_read().await.expect("begun");
        let mut still = Vec::new();
        for id in left {
            let last = log_chunks::last_seq(&mut tx, id, LogSource::App)
                .await
                .expect("read");
            assert!(last <= wanted, "{id} has {last} lines");
            if last < wanted {
                still.push(id);
            }
        }
        left = still;
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "{} of them are not kept",
            left.len()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("{} tenants have {what} after {:?}", ids.len(), began.elapsed());
}
