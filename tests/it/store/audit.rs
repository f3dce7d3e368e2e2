//! The audit: carried by the transaction of its act, in one chain, never changed; and what verifying finds.

use std::time::Instant;

use futures::FutureExt as _;
use systemprompt::api::audit::{AuditResult, AuditVerdict};
use systemprompt::server::store::acts::{self, Act, perform};
use systemprompt::server::store::audit::{list, verify};
use systemprompt::server::store::{Store, StoreError, settings};

use crate::store::Case;
use crate::store::cases::NOW;

pub(crate) const ALL: &[Case] = &[
    ("an act is carried by its transaction", |store| {
        carried(store).boxed()
    }),
    ("an act of nobody is left out", |store| of_nobody(store).boxed()),
    ("many writers keep one chain", |store| many_writers(store).boxed()),
    ("nobody changes the audit", |store| append_only(store).boxed()),
    ("verifying finds what was changed", |store| {
        changes_are_found(store).boxed()
    }),
    ("what the audit costs", |store| cost(store).boxed()),
];

fn act(action: &str) -> Act {
    Act {
        actor: "console".to_owned(),
        ..Act::new(action, "req_1", NOW)
    }
}

async fn change(store: &Store, key: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    settings::put(&mut tx, key, "there").await?;
    tx.commit().await
}

async fn actions(store: &Store) -> Vec<String> {
    let mut tx = store.begin_read().await.expect("begun");
    let entries = list(&mut tx, None, (0, None), 10_000).await.expect("listed");
    entries.into_iter().map(|entry| entry.action).collect()
}

async fn verdict(store: &Store) -> AuditVerdict {
    let mut tx = store.begin_read().await.expect("begun");
    verify(&mut tx, 0).await.expect("verified")
}

async fn carried(store: Store) {
    let (done, left) = perform(act("first"), async {
        acts::about("it");
        change(&store, "a").await?;
        // The record is written once, whatever else the act commits.
        change(&store, "b").await
    })
    .await;
    done.expect("committed");
    assert!(left.is_none());
    // Nothing is on record of what was rolled back; the act is left to be recorded by itself.
    let ((), left) = perform(act("second"), async {
        let mut tx = store.begin().await.expect("begun");
        settings::put(&mut tx, "c", "there").await.expect("put");
        drop(tx);
    })
    .await;
    let mut left = left.expect("not recorded");
    left.result = AuditResult::Refused;
    assert_eq!(actions(&store).await, ["first"]);
    store.record(&left).await.expect("recorded");
    // Outside of an act nothing is recorded.
    change(&store, "d").await.expect("committed");
    let mut tx = store.begin_read().await.expect("begun");
    let entries = list(&mut tx, None, (0, None), 10).await.expect("listed");
    let told: Vec<_> = entries.iter().map(|entry| (entry.seq, entry.result)).collect();
    assert_eq!(told, [(1, AuditResult::Done), (2, AuditResult::Refused)]);
    assert_eq!(entries[0].target.as_deref(), Some("it"));
    assert_eq!(entries[1].previous_hash, entries[0].hash);
    let verdict = verdict(&store).await;
    assert!(verdict.finished && verdict.faults.is_empty(), "{verdict:?}");
    assert_eq!(verdict.hash, entries[1].hash);
}

async fn of_nobody(store: Store) {
    let nobody = || Act::new("poll", "req_1", NOW);
    let (done, left) = perform(nobody(), change(&store, "a")).await;
    done.expect("committed");
    assert!(left.is_none());
    let (done, left) = perform(nobody(), async {
        acts::keep();
        change(&store, "a").await
    })
    .await;
    done.expect("committed");
    assert!(left.is_none());
    assert_eq!(actions(&store).await, ["poll"]);
}

async fn many_writers(store: Store) {
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        async move {
            for number in 0..10 {
                let name = format!("act {writer} {number}");
                let (done, _) = perform(act(&name), change(&store, &name)).await;
                done.expect("committed");
            }
        }
    });
    futures::future::join_all(writers).await;
    let mut all = actions(&store).await;
    assert_eq!(all.len(), 80);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 80);
    let verdict = verdict(&store).await;
    assert_eq!((verdict.verified_to, verdict.faults), (80, Vec::new()));
}

async fn append_only(store: Store) {
    for number in 0..3 {
        store
            .record(&act(&format!("act {number}")))
            .await
            .expect("recorded");
    }
    for statement in [
        "UPDATE audit SET action = 'nothing' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = 1",
        "UPDATE audit_head SET hash = 'x'",
        "INSERT INTO audit (seq, at, actor, action, result, request_id, previous_hash, hash)
         VALUES (4, 1, 'x', 'x', 'done', 'x', 'x', 'x')",
        "INSERT INTO audit (seq, at, actor, action, result, request_id, previous_hash, hash)
         SELECT 9, 1, 'x', 'x', 'done', 'x', hash, 'x' FROM audit_head",
    ] {
        let mut tx = store.begin().await.expect("begun");
        let refused = tx.execute(statement, vec![]).await;
        assert!(refused.is_err(), "{statement}");
    }
    if matches!(store, Store::Postgres(_)) {
        let mut tx = store.begin().await.expect("begun");
        assert!(tx.execute("TRUNCATE audit", vec![]).await.is_err());
    }
    assert!(verdict(&store).await.faults.is_empty());
}

/// Somebody who owns the database takes the triggers away.
async fn unguard(store: &Store) {
    let names: &[&'static str] = match store {
        Store::Sqlite { .. } => &[
            "DROP TRIGGER audit_is_not_changed",
            "DROP TRIGGER audit_is_not_removed",
            "DROP TRIGGER audit_head_only_grows",
        ],
        Store::Postgres(_) => &[
            "ALTER TABLE audit DISABLE TRIGGER ALL",
            "ALTER TABLE audit_head DISABLE TRIGGER ALL",
        ],
    };
    for statement in names {
        run(store, statement).await;
    }
}

async fn run(store: &Store, statement: &'static str) {
    let mut tx = store.begin().await.expect("begun");
    tx.execute(statement, vec![]).await.expect("run");
    tx.commit().await.expect("committed");
}

async fn changes_are_found(store: Store) {
    for number in 1..=9 {
        store
            .record(&act(&format!("act {number}")))
            .await
            .expect("recorded");
    }
    unguard(&store).await;
    let cases: [(&str, &'static str, &'static str, &[u64]); 6] = [
        (
            "a changed row",
            "UPDATE audit SET address = '1.2.3.4' WHERE seq = 3",
            "UPDATE audit SET address = NULL WHERE seq = 3",
            &[3],
        ),
        (
            "a row that cannot be read",
            "UPDATE audit SET result = 'great' WHERE seq = 5",
            "UPDATE audit SET result = 'done' WHERE seq = 5",
            &[5],
        ),
        (
            "two rows that changed places",
            "UPDATE audit SET seq = CASE seq WHEN 4 THEN -5 ELSE -4 END WHERE seq IN (4, 5)",
            "UPDATE audit SET seq = CASE seq WHEN -5 THEN 4 ELSE 5 END WHERE seq < 0",
            &[4],
        ),
        (
            "a removed row",
            "UPDATE audit SET seq = -6 WHERE seq = 6",
            "UPDATE audit SET seq = 6 WHERE seq = -6",
            &[6],
        ),
        (
            "a removed end",
            "UPDATE audit SET seq = -9 WHERE seq = 9",
            "UPDATE audit SET seq = 9 WHERE seq = -9",
            &[9],
        ),
        (
            "an end that was put back",
            "UPDATE audit_head SET seq = 8, hash = (SELECT hash FROM audit WHERE seq = 8)",
            "UPDATE audit_head SET seq = 9, hash = (SELECT hash FROM audit WHERE seq = 9)",
            &[10],
        ),
    ];
    for (name, harm, mend, expected) in cases {
        run(&store, harm).await;
        if name.contains("places") {
            run(&store, "UPDATE audit SET seq = -seq WHERE seq < 0").await;
        }
        let found = verdict(&store).await.faults;
        assert!(
            expected
                .iter()
                .all(|seq| found.iter().any(|fault| fault.seq == *seq)),
            "{name}: {found:?}"
        );
        if name.contains("places") {
            run(
                &store,
                "UPDATE audit SET seq = CASE seq WHEN 4 THEN -4 ELSE -5 END WHERE seq IN (4, 5)",
            )
            .await;
        }
        run(&store, mend).await;
        let whole = verdict(&store).await.faults;
        assert!(whole.is_empty(), "{name}: {whole:?}");
    }
}

/// Prints what a write costs with and without its record.
async fn cost(store: Store) {
    const WRITES: u32 = 200;
    let mut took = [std::time::Duration::ZERO; 2];
    for round in 0..WRITES * 2 {
        let recorded = round % 2 == 1;
        let began = Instant::now();
        if recorded {
            perform(act("set"), change(&store, "a"))
                .await
                .0
                .expect("committed");
        } else {
            change(&store, "a").await.expect("committed");
        }
        took[usize::from(recorded)] += began.elapsed();
    }
    let began = Instant::now();
    let rows = verdict(&store).await.verified_to;
    eprintln!(
        "a write takes {:?} without and {:?} with its record; verifying {rows} rows takes {:?}",
        took[0] / WRITES,
        took[1] / WRITES,
        began.elapsed()
    );
}
