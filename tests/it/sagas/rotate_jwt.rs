//! The signing secret: rotated with an overlap, in which whatever serves knows the former one too.

use std::collections::BTreeMap;
use std::time::Duration;

use systemprompt::api::operation::OperationStatus;
use systemprompt::server::provision::{EnqueueError, Provision, Work};
use systemprompt::server::store::operations;
use systemprompt::server::world::Fault;

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{Proof, block_on, ended, look, prepared};
use crate::sagas::rig::{DIGEST, Rig, deploy};

const SECRET: &str = "JWT_SECRET";
const FORMER: &str = "JWT_SECRET_PREVIOUS";

fn running() -> Rig {
    prepared(&[Work::CreateTenant, deploy(DIGEST)])
}

const fn rotate(overlap_seconds: u32) -> Work {
    Work::RotateJwtSecret { overlap_seconds }
}

/// What the machine knows that visitors come to: names, and digests of values.
fn environment(rig: &Rig) -> BTreeMap<String, String> {
    let machines = rig.world.change(|state| state.machines.clone()).expect("world");
    let mut serving = machines.into_values().filter(|machine| machine.traffic);
    let environment = serving.next().expect("something serves").environment;
    assert!(serving.next().is_none(), "and nothing else");
    environment
}

fn done(rig: &Rig, work: Work) {
    let id = block_on(rig.enqueue(work)).expect("queued");
    rig.run(&id, None);
    ended(rig, &id, OperationStatus::Succeeded, "nothing goes wrong");
}

fn rotation() -> Proof {
    Proof {
        prepared: running(),
        work: rotate(3600),
        complete: |rig, seen| {
            serves(seen, 2, DIGEST);
            let known = environment(rig);
            assert_ne!(known[SECRET], known[FORMER]);
            let former = seen.tenant.jwt.former.expect("a former one");
            assert_eq!(former.version, 1);
            assert!(seen.tenant.jwt.version > 1);
            assert_eq!(seen.event_names().last(), Some(&"jwt_secret_rotated"));
        },
        clean: |rig, seen| {
            serves(seen, 1, DIGEST);
            assert_eq!((seen.tenant.jwt.version, seen.tenant.jwt.former), (1, None));
            assert!(!environment(rig).contains_key(FORMER));
        },
    }
}

#[test]
fn a_rotation_survives_passing_faults_and_death() {
    rotation().survives_every_passing_fault();
    rotation().survives_every_death("provider.attach_traffic", OperationStatus::Failed);
}

#[test]
fn a_rotation_fails_cleanly_at_any_call_before_the_switch() {
    rotation().fails_cleanly_at_every_call(&["drain-old"], OperationStatus::Failed);
}

#[test]
fn tokens_that_were_signed_before_are_good_until_the_overlap_has_ended() {
    let rig = running();
    let first = environment(&rig)[SECRET].clone();
    done(&rig, rotate(2));
    let second = environment(&rig)[SECRET].clone();
    assert_eq!(environment(&rig)[FORMER], first);
    // Whatever comes in the overlap knows both.
    for work in [Work::Restart, deploy(DIGEST), Work::RotateCredentials] {
        done(&rig, work);
        let known = environment(&rig);
        assert_eq!((&known[SECRET], &known[FORMER]), (&second, &first));
    }
    let again = block_on(rig.enqueue(rotate(60)));
    assert!(matches!(again, Err(EnqueueError::NotNow { .. })), "{again:?}");

    std::thread::sleep(Duration::from_millis(2100));
    let ending = block_on(async {
        let parts = rig.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        provision.end_jwt_overlaps().await.expect("begun");
        // It is begun once.
        provision.end_jwt_overlaps().await.expect("busy");
        let mut tx = store.begin_read().await.expect("begun");
        let found = operations::find_unfinished(&mut tx, &rig.tenant).await;
        let id = found.expect("read").expect("it is queued").id;
        drop(tx);
        store.close().await;
        id
    });
    rig.run(&ending, None);
    let known = environment(&rig);
    assert_eq!((&known[SECRET], known.get(FORMER)), (&second, None));
    let seen = look(&rig);
    assert_eq!(seen.tenant.jwt.former, None);
    assert_eq!(seen.event_names().last(), Some(&"jwt_overlap_ended"));
}

#[test]
fn a_rotation_that_failed_has_changed_nothing_for_what_comes_next() {
    let rig = running();
    let first = environment(&rig)[SECRET].clone();
    for nth in 1..=4 {
        rig.world
            .plan("provider.start_machine", nth, Fault::Fatal)
            .expect("planned");
    }
    let id = block_on(rig.enqueue(rotate(60))).expect("queued");
    rig.run(&id, None);
    assert_eq!(block_on(rig.operation(&id)).0.status, OperationStatus::Failed);
    rig.world.change(|state| state.faults.clear()).expect("world");
    done(&rig, Work::Restart);
    let known = environment(&rig);
    assert_eq!((&known[SECRET], known.get(FORMER)), (&first, None));
    // And one that is to end everything at once does.
    done(&rig, rotate(0));
    let known = environment(&rig);
    assert_ne!(known[SECRET], first);
    assert_eq!(known.get(FORMER), None);
}

#[test]
fn an_end_that_failed_is_not_begun_again_in_the_next_round() {
    let rig = running();
    done(&rig, rotate(1));
    std::thread::sleep(Duration::from_millis(1100));
    for nth in 1..=8 {
        rig.world
            .plan("provider.start_machine", nth, Fault::Fatal)
            .expect("planned");
    }
    let unfinished = || {
        block_on(async {
            let parts = rig.parts().await;
            let store = parts.store.clone();
            Provision::new(parts).end_jwt_overlaps().await.expect("looked");
            let mut tx = store.begin_read().await.expect("begun");
            let found = operations::find_unfinished(&mut tx, &rig.tenant).await;
            let id = found.expect("read").map(|row| row.id);
            drop(tx);
            store.close().await;
            id
        })
    };
    let first = unfinished().expect("begun");
    rig.run(&first, None);
    assert_eq!(block_on(rig.operation(&first)).0.status, OperationStatus::Failed);
    assert!(look(&rig).tenant.jwt.former.is_some());
    for _ in 0..2 {
        assert_eq!(unfinished(), None, "it waits for its turn");
    }
}
