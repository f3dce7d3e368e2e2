//! The queue: one open operation a tenant, claims that do not collide, fences that hold.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use systemprompt::api::id::{OperationId, TenantId};
use systemprompt::api::operation::OperationStatus;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::operation_leases::Claimer;
use systemprompt::server::store::operation_steps::StepStatus;
use systemprompt::server::store::operations::{self, OperationRow, Transition};
use systemprompt::server::store::{Store, StoreError, Tx, operation_leases, operation_steps};

use crate::store::Case;
use crate::store::cases::{NOW, tenant};

pub(crate) const ALL: &[Case] = &[
    ("one open operation a tenant", |store| {
        one_at_a_time(store).boxed()
    }),
    ("claims do not collide", |store| claims(store).boxed()),
    ("a fence holds", |store| fences(store).boxed()),
    ("leases end and are renewed", |store| leases(store).boxed()),
    ("operations follow their states", |store| states(store).boxed()),
    ("a kind that is not known is left", |store| unknown(store).boxed()),
    ("several are claimed at once", |store| several(store).boxed()),
    ("a claim reads the head of the queue", |store| head(store).boxed()),
    ("steps are written together", |store| together(store).boxed()),
    ("the queue is told", |store| queue(store).boxed()),
];

const STEPS: &str = ",create-tenant/start,deploy/start,deploy/pull,";

async fn queued(store: &Store, clock: &Clock, tenant: &TenantId) -> Result<OperationId, StoreError> {
    let id = OperationId::new(clock.uuid());
    let mut tx = store.begin().await.expect("begun");
    let what = ("deploy", &serde_json::json!({ "a": 1 }));
    operations::insert(&mut tx, (&id, tenant), what, "ada", NOW).await?;
    operation_steps::insert_all(&mut tx, &id, &["start", "pull"], NOW).await?;
    tx.commit().await?;
    Ok(id)
}

async fn claim(store: &Store, seconds: i64) -> Option<OperationRow> {
    let mut tx = store.begin().await.expect("begun");
    let now = NOW.plus_seconds(seconds);
    let claimer = Claimer {
        owner: "worker",
        lease_seconds: 20,
        steps: STEPS,
        at_most: 1,
    };
    let mut claimed = operation_leases::claim(&mut tx, claimer, now)
        .await
        .expect("claimed");
    tx.commit().await.expect("committed");
    claimed.pop()
}

async fn move_to(store: &Store, id: &OperationId, to: OperationStatus) -> Result<(), StoreError> {
    let mut tx = store.begin().await.expect("begun");
    operations::transition(&mut tx, id, &Transition::to(to), NOW).await?;
    tx.commit().await
}

async fn unknown(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let id = queued(&store, &clock, &row.id).await.expect("queued");
    let mut tx = store.begin().await.expect("begun");
    tx.execute("UPDATE operations SET kind = 'ploy'", vec![])
        .await
        .expect("executed");
    tx.commit().await.expect("committed");
    assert!(claim(&store, 0).await.is_none());
    let mut tx = store.begin_read().await.expect("begun");
    let left = operation_leases::list_unknown(&mut tx, STEPS)
        .await
        .expect("read");
    assert_eq!(left.iter().map(|row| &row.id).collect::<Vec<_>>(), [&id]);
    assert_eq!(
        operation_leases::next_run_at(&mut tx, STEPS).await.expect("read"),
        None
    );
    let more = operation_leases::list_unknown(&mut tx, ",ploy/start,ploy/pull,").await;
    assert!(more.expect("read").is_empty());
    drop(tx);
    // The kind is known, but not one of its steps.
    let mut tx = store.begin().await.expect("begun");
    tx.execute("UPDATE operations SET kind = 'deploy'", vec![])
        .await
        .expect("executed");
    tx.execute(
        "UPDATE operation_steps SET name = 'warm-up' WHERE position = 1",
        vec![],
    )
    .await
    .expect("executed");
    tx.commit().await.expect("committed");
    assert!(claim(&store, 0).await.is_none());
    let mut tx = store.begin_read().await.expect("begun");
    let left = operation_leases::list_unknown(&mut tx, STEPS)
        .await
        .expect("read");
    assert_eq!(left.len(), 1);
    assert_eq!(
        operation_leases::next_run_at(&mut tx, STEPS).await.expect("read"),
        None
    );
    drop(tx);
    let mut tx = store.begin().await.expect("begun");
    tx.execute(
        "UPDATE operation_steps SET name = 'ull' WHERE position = 1",
        vec![],
    )
    .await
    .expect("executed");
    tx.commit().await.expect("committed");
    assert!(claim(&store, 0).await.is_none(), "a part of a name is none");
    let mut tx = store.begin().await.expect("begun");
    tx.execute("DELETE FROM operation_steps WHERE position = 1", vec![])
        .await
        .expect("executed");
    tx.commit().await.expect("committed");
    assert_eq!(claim(&store, 0).await.map(|row| row.id), Some(id));
}

async fn several(store: Store) {
    let clock = Clock::manual(NOW);
    let mut ids = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        let row = tenant(&store, &clock, name).await;
        ids.push(queued(&store, &clock, &row.id).await.expect("queued"));
    }
    let claim = |at_most: usize| {
        let store = store.clone();
        async move {
            let mut tx = store.begin().await.expect("begun");
            let claimer = Claimer {
                owner: "worker",
                lease_seconds: 20,
                steps: STEPS,
                at_most,
            };
            let claimed = operation_leases::claim(&mut tx, claimer, NOW)
                .await
                .expect("claimed");
            tx.commit().await.expect("committed");
            claimed.into_iter().map(|row| row.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(claim(2).await, ids[..2], "the oldest, in their order");
    let (one, other) = tokio::join!(claim(2), claim(2));
    let mut rest = [one, other].concat();
    rest.extend(claim(9).await);
    rest.sort();
    assert_eq!(rest, ids[2..], "each once");
    assert!(claim(9).await.is_empty());
}

/// PostgreSQL plans a statement once for all queues, after some calls: it must not expect so few that may be claimed that it
/// sorts them all.
async fn head(store: Store) {
    if matches!(store, Store::Sqlite { .. }) {
        return;
    }
    let clock = Clock::manual(NOW);
    for number in 0..100 {
        let row = tenant(&store, &clock, &format!("tenant-{number}")).await;
        queued(&store, &clock, &row.id).await.expect("queued");
    }
    let mut tx = store.begin().await.expect("begun");
    for table in ["ANALYZE operations", "ANALYZE operation_steps"] {
        tx.execute(table, vec![]).await.expect("analyzed");
    }
    let claimer = Claimer {
        owner: "worker",
        lease_seconds: 20,
        steps: STEPS,
        at_most: 1,
    };
    let looked = async |tx: &mut Tx| {
        let sql = "SELECT COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0) AS looked FROM pg_stat_xact_user_tables
             WHERE relname = 'operation_steps'";
        let row = tx
            .fetch_optional(sql, vec![])
            .await
            .expect("read")
            .expect("a row");
        row.u64("looked").expect("a number")
    };
    let before = looked(&mut tx).await;
    for _ in 0..20 {
        let claimed = operation_leases::claim(&mut tx, claimer, NOW).await;
        assert_eq!(claimed.expect("claimed").len(), 1);
    }
    let looked = looked(&mut tx).await - before;
    assert!(
        looked <= 20 * 8,
        "{looked} steps were looked at to claim 20 operations of two steps each"
    );
}

async fn together(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let id = queued(&store, &clock, &row.id).await.expect("queued");
    let mut tx = store.begin().await.expect("begun");
    let waiting = operation_steps::list(&mut tx, &id).await.expect("listed");
    assert_eq!(waiting.iter().map(|row| row.position).collect::<Vec<_>>(), [0, 1]);
    let mut steps = waiting.clone();
    steps[0].status = StepStatus::Done;
    steps[0].output = serde_json::json!({ "said": "a \"word\"\n" });
    steps[1].status = StepStatus::Running;
    steps[1].attempts = 2;
    steps[1].error = Some("why".to_owned());
    operation_steps::update(&mut tx, &id, &steps, NOW)
        .await
        .expect("written");
    assert_eq!(operation_steps::list(&mut tx, &id).await.expect("listed"), steps);
    operation_steps::update(&mut tx, &id, &waiting[..1], NOW)
        .await
        .expect("written");
    let now = operation_steps::list(&mut tx, &id).await.expect("listed");
    assert_eq!(now, [waiting[0].clone(), steps[1].clone()]);
    steps[1].position = 2;
    let missing = operation_steps::update(&mut tx, &id, &steps, NOW).await;
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
}

async fn one_at_a_time(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let first = queued(&store, &clock, &row.id).await.expect("queued");
    let second = queued(&store, &clock, &row.id).await;
    assert!(matches!(second, Err(StoreError::Duplicate(_))));
    move_to(&store, &first, OperationStatus::Abandoned)
        .await
        .expect("ended");
    let third = queued(&store, &clock, &row.id).await.expect("queued");
    let mut tx = store.begin_read().await.expect("begun");
    let open = operations::find_unfinished(&mut tx, &row.id).await.expect("read");
    assert_eq!(open.expect("open").id, third);
    let listed = operations::list_by_tenant(&mut tx, &row.id, None, 10)
        .await
        .expect("listed");
    assert_eq!(
        listed.iter().map(|row| &row.id).collect::<Vec<_>>(),
        [&third, &first]
    );
    let before = operations::list_by_tenant(&mut tx, &row.id, Some(&third), 10)
        .await
        .expect("listed");
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].params["a"], 1);
}

async fn claims(store: Store) {
    let clock = Clock::manual(NOW);
    let mut wanted = BTreeSet::new();
    for number in 0..10 {
        let row = tenant(&store, &clock, &format!("tenant-{number}")).await;
        wanted.insert(queued(&store, &clock, &row.id).await.expect("queued"));
    }
    let worker = async || {
        let mut mine = Vec::new();
        let mut misses = 0;
        // A claim that lost its row to another worker answers nothing, and is made again.
        while misses < 20 {
            match claim(&store, 0).await {
                Some(row) => mine.push(row.id),
                None => misses += 1,
            }
        }
        mine
    };
    let all = futures::future::join_all([worker(), worker(), worker(), worker()])
        .await
        .concat();
    assert_eq!(all.len(), 10, "nobody claims what another one holds");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), wanted);
}

async fn fences(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let id = queued(&store, &clock, &row.id).await.expect("queued");
    let old = claim(&store, 0).await.expect("claimed");
    assert_eq!(old.status, OperationStatus::Running);
    assert!(claim(&store, 19).await.is_none(), "it is held");
    let new = claim(&store, 21).await.expect("claimed after the lease");
    assert_eq!((old.fence, new.fence), (1, 2));
    let mut tx = store.begin().await.expect("begun");
    let late = operation_leases::check_fence(&mut tx, (&id, old.fence), NOW).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })));
    let late = operation_leases::renew_lease(&mut tx, (&id, old.fence), NOW).await;
    assert!(matches!(late, Err(StoreError::Fenced { .. })));
    operation_leases::check_fence(&mut tx, (&id, new.fence), NOW)
        .await
        .expect("held");
    tx.commit().await.expect("committed");
    move_to(&store, &id, OperationStatus::Abandoned)
        .await
        .expect("abandoned");
    let mut tx = store.begin().await.expect("begun");
    let late = operation_leases::check_fence(&mut tx, (&id, new.fence), NOW).await;
    assert!(
        matches!(late, Err(StoreError::Fenced { .. })),
        "abandoning fences the worker out"
    );
}

async fn leases(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let id = queued(&store, &clock, &row.id).await.expect("queued");
    let held = claim(&store, 0).await.expect("claimed");
    let mut tx = store.begin().await.expect("begun");
    let key = (&id, held.fence);
    operation_leases::renew_lease(&mut tx, key, NOW.plus_seconds(40))
        .await
        .expect("renewed");
    tx.commit().await.expect("committed");
    assert!(claim(&store, 30).await.is_none(), "the lease was renewed");
    let mut tx = store.begin().await.expect("begun");
    let later = NOW.plus_seconds(100);
    operation_leases::release(&mut tx, key, later, NOW)
        .await
        .expect("released");
    assert_eq!(
        operation_leases::next_run_at(&mut tx, STEPS).await.expect("read"),
        Some(later)
    );
    tx.commit().await.expect("committed");
    assert!(claim(&store, 99).await.is_none(), "not before its time");
    let mut tx = store.begin().await.expect("begun");
    operation_leases::hasten(&mut tx, &id, NOW)
        .await
        .expect("hastened");
    tx.commit().await.expect("committed");
    assert!(claim(&store, 0).await.is_some());
    let mut tx = store.begin().await.expect("begun");
    assert_eq!(operation_leases::release_all(&mut tx).await.expect("released"), 1);
    tx.commit().await.expect("committed");
    assert!(
        claim(&store, 0).await.is_some(),
        "the next start takes it at once"
    );
}

async fn states(store: Store) {
    use OperationStatus::{Abandoned, Failed, Queued, Stuck, Succeeded, Undoing, Undone};
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let id = queued(&store, &clock, &row.id).await.expect("queued");
    for to in [Succeeded, Failed, Undone, Stuck] {
        let refused = move_to(&store, &id, to).await;
        assert!(
            matches!(refused, Err(StoreError::IllegalTransition { .. })),
            "queued to {to:?}"
        );
    }
    claim(&store, 0).await.expect("claimed");
    for to in [Undoing, Stuck, Undoing, Failed, Queued] {
        move_to(&store, &id, to).await.expect("moved");
    }
    claim(&store, 0).await.expect("claimed again");
    move_to(&store, &id, Succeeded).await.expect("moved");
    for to in [Queued, Failed, Undoing, Stuck, Abandoned] {
        assert!(move_to(&store, &id, to).await.is_err(), "succeeded to {to:?}");
    }
    let mut tx = store.begin_read().await.expect("begun");
    assert_eq!(
        operations::get(&mut tx, &id).await.expect("read").finished_at,
        Some(NOW)
    );
}

async fn queue(store: Store) {
    let clock = Clock::manual(NOW);
    for name in ["one", "two", "three"] {
        let row = tenant(&store, &clock, name).await;
        queued(&store, &clock, &row.id).await.expect("queued");
    }
    claim(&store, 0).await.expect("claimed");
    let stuck = claim(&store, 0).await.expect("claimed");
    move_to(&store, &stuck.id, OperationStatus::Stuck)
        .await
        .expect("moved");
    let mut tx = store.begin_read().await.expect("begun");
    let health = operations::queue_health(&mut tx, NOW.plus_seconds(7))
        .await
        .expect("read");
    assert_eq!((health.queued, health.running, health.stuck), (1, 1, 1));
    assert_eq!(health.oldest_waiting_seconds, 7);
}
