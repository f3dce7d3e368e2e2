//! `cancel`: taken back while that is possible, refused with the step that makes it impossible.

use std::time::{Duration, Instant};

use systemprompt::api::id::OperationId;
use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::{DecideError, Decision, Provision, Work};
use systemprompt::server::store::operations;
use systemprompt::server::world::Fault;

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{block_on, look, prepared};
use crate::sagas::rig::{DIGEST, Rig, deploy};

/// Begins `work`, and cancels it while `method` is being called, which takes long.
fn cancelled_during(
    rig: &Rig,
    work: Work,
    (method, millis): (&str, u64),
) -> (OperationId, Result<OperationStatus, DecideError>) {
    let id = block_on(rig.enqueue(work)).expect("queued");
    let long = Fault::Delay { millis };
    rig.world.plan(method, 1, long).expect("planned");
    let before = rig.world.calls(method).expect("world");
    let answer = block_on(async {
        let parts = rig.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        provision.start().await.expect("started");
        while rig.world.calls(method).expect("world") == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let answer = provision.decide_now(Decision::Cancel, &id).await;
        loop {
            let mut tx = store.begin_read().await.expect("begun");
            let row = operations::get(&mut tx, &id).await.expect("operation");
            if row.finished_at.is_some() {
                break;
            }
            drop(tx);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        provision.stop().await;
        store.close().await;
        answer
    });
    (id, answer)
}

#[test]
fn a_deploy_is_cancelled_at_once_while_it_waits() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let began = Instant::now();
    let (id, answer) = cancelled_during(&rig, deploy("sha256:cccc"), ("provider.probe", 60_000));
    assert_eq!(answer.expect("cancelled"), OperationStatus::Undoing);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Undone, "{row:?}");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "the call that takes long is not waited for"
    );
    let seen = look(&rig);
    serves(&seen, 1, DIGEST);
    assert!(seen.event_names().contains(&"operation_cancelling"));
}

#[test]
fn once_traffic_is_being_switched_it_is_too_late() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let (id, answer) = cancelled_during(&rig, deploy("sha256:cccc"), ("provider.attach_traffic", 1500));
    match answer {
        Err(DecideError::TooLate { step, hint }) => {
            assert_eq!(step, "switch-traffic");
            assert!(hint.contains(id.as_str()), "{hint}");
        }
        other => panic!("{other:?}"),
    }
    serves(&look(&rig), 2, "sha256:cccc");
}

#[test]
fn a_creation_that_is_cancelled_can_be_retried() {
    let rig = prepared(&[]);
    let (id, answer) = cancelled_during(&rig, Work::CreateTenant, ("databases.create", 60_000));
    assert_eq!(answer.expect("cancelled"), OperationStatus::Undoing);
    let seen = look(&rig);
    assert_eq!(seen.tenant.status, TenantStatus::Failed);
    assert_eq!(seen.world, [] as [&str; 0]);
    block_on(rig.decide(Decision::Retry, &id)).expect("retried");
    rig.run(&id, None);
    assert_eq!(look(&rig).tenant.status, TenantStatus::AwaitingDeploy);
}

#[test]
fn what_was_not_begun_is_taken_back_without_a_trace() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let id = block_on(rig.enqueue(Work::DeleteTenant)).expect("queued");
    block_on(rig.decide(Decision::Cancel, &id)).expect("cancelled");
    rig.run(&id, None);
    let seen = look(&rig);
    serves(&seen, 1, DIGEST);
    assert_eq!(seen.event_names().last(), Some(&"operation_cancelled"));
}

#[test]
fn a_deletion_that_was_begun_is_not_taken_back() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let (_, answer) = cancelled_during(&rig, Work::DeleteTenant, ("provider.list_machines", 1500));
    assert!(matches!(answer, Err(DecideError::TooLate { .. })), "{answer:?}");
    assert_eq!(look(&rig).tenant.status, TenantStatus::Deleted);
}
