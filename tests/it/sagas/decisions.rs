//! `retry`, `cancel` and `abandon` in every state that has them, one-time credentials, busy tenants, and a stop in order.

use std::time::{Duration, Instant};

use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::{DecideError, Decision, EnqueueError, Provision, Work};
use systemprompt::server::store::{operations, tenants};
use systemprompt::server::world::Fault;

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{block_on, look, prepared};
use crate::sagas::rig::{DIGEST, Rig, deploy};

fn queued(rig: &Rig, work: Work) -> systemprompt::api::id::OperationId {
    block_on(rig.enqueue(work)).expect("queued")
}

#[test]
fn a_failed_creation_is_retried_with_the_same_secrets() {
    let rig = prepared(&[]);
    let id = queued(&rig, Work::CreateTenant);
    rig.world
        .plan("edge.certificate", 1, Fault::Fatal)
        .expect("planned");
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Failed);
    assert!(
        row.error
            .expect("an error")
            .hint
            .expect("a hint")
            .contains("tenant retry")
    );

    let status = block_on(rig.decide(Decision::Retry, &id));
    assert_eq!(status.expect("retried"), OperationStatus::Queued);
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Succeeded);
    assert_eq!(row.error, None);
    let seen = look(&rig);
    assert_eq!(seen.tenant.status, TenantStatus::AwaitingDeploy);
    assert_eq!(block_on(rig.secret_versions("JWT_SECRET")), 1);
}

#[test]
fn a_stuck_deletion_goes_on_after_a_retry() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let id = queued(&rig, Work::DeleteTenant);
    rig.world
        .plan("databases.drop", 1, Fault::Fatal)
        .expect("planned");
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Stuck);
    block_on(rig.decide(Decision::Retry, &id)).expect("retried");
    rig.run(&id, None);
    super::delete_tenant::gone(&rig, &look(&rig));
}

#[test]
fn a_stuck_way_back_goes_on_after_a_retry() {
    let rig = prepared(&[]);
    let id = queued(&rig, Work::CreateTenant);
    rig.world
        .plan("edge.certificate", 1, Fault::Fatal)
        .expect("planned");
    rig.world
        .plan("provider.remove_volume", 1, Fault::Fatal)
        .expect("planned");
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Stuck);
    let message = row.error.expect("an error").message;
    assert!(
        message.contains("taking back `create-volume` failed"),
        "{message}"
    );
    let status = block_on(rig.decide(Decision::Retry, &id));
    assert_eq!(status.expect("retried"), OperationStatus::Undoing);
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Failed);
    assert!(look(&rig).world.is_empty());
}

#[test]
fn abandoning_frees_the_tenant_in_every_open_state() {
    // Queued: nobody has begun.
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let id = queued(&rig, deploy("sha256:dddd"));
    block_on(rig.decide(Decision::Abandon, &id)).expect("abandoned");
    let seen = look(&rig);
    serves(&seen, 1, DIGEST);
    assert_eq!(seen.event_names().last(), Some(&"operation_abandoned"));

    // Stuck after the switch: the new release serves.
    let id = queued(&rig, deploy("sha256:dddd"));
    rig.world
        .plan("provider.list_machines", 1, Fault::Fatal)
        .expect("planned");
    rig.run(&id, None);
    block_on(rig.decide(Decision::Abandon, &id)).expect("abandoned");
    let seen = look(&rig);
    assert_eq!(seen.tenant.status, TenantStatus::Running);
    assert_eq!(seen.tenant.current_release, Some(2));

    // The next deploy clears what was left.
    let id = queued(&rig, deploy("sha256:eeee"));
    rig.run(&id, None);
    serves(&look(&rig), 3, "sha256:eeee");

    // What has ended has nothing to decide.
    for decision in [Decision::Retry, Decision::Cancel, Decision::Abandon] {
        let answer = block_on(rig.decide(decision, &id));
        assert!(matches!(answer, Err(DecideError::NotNow { .. })), "{answer:?}");
    }
}

#[test]
fn an_abandoned_worker_can_write_nothing_more() {
    let rig = prepared(&[]);
    let id = queued(&rig, Work::CreateTenant);
    rig.world
        .plan("provider.create_volume", 1, Fault::Delay { millis: 300 })
        .expect("planned");
    block_on(async {
        let parts = rig.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        provision.start().await.expect("started");
        while rig.world.calls("provider.create_volume").expect("world") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let abandoned = provision.decide_now(Decision::Abandon, &id).await;
        abandoned.expect("abandoned");
        tokio::time::sleep(Duration::from_millis(500)).await;
        provision.stop().await;
        store.close().await;
    });
    let (row, steps) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Abandoned);
    let volume = steps
        .iter()
        .find(|step| step.name == "create-volume")
        .expect("step");
    assert_eq!(
        volume.output,
        serde_json::Value::Null,
        "the late worker wrote nothing"
    );
    assert!(!block_on(rig.events()).contains(&"volume_created".to_owned()));
}

#[test]
fn a_busy_tenant_says_who_holds_it() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST)]);
    let first = queued(&rig, deploy("sha256:dddd"));
    match block_on(rig.enqueue(deploy("sha256:eeee"))) {
        Err(EnqueueError::Busy(holder)) => {
            assert_eq!(holder.id, first);
            assert_eq!(holder.kind, "deploy");
            assert_eq!(holder.requested_by, "ada@example.test");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn work_that_makes_no_sense_is_refused_with_a_way_out() {
    let pending = prepared(&[]);
    let suspended = prepared(&[Work::CreateTenant, deploy(DIGEST), Work::Suspend]);
    let waiting = prepared(&[Work::CreateTenant]);
    for (rig, work) in [
        (&pending, deploy(DIGEST)),
        (&suspended, deploy(DIGEST)),
        (&waiting, Work::Restart),
        (&waiting, Work::Activate),
        (&waiting, Work::CreateTenant),
    ] {
        match block_on(rig.enqueue(work)) {
            Err(EnqueueError::NotNow { why, hint, .. }) => assert!(!why.is_empty() && !hint.is_empty()),
            other => panic!("{other:?}"),
        }
    }
    block_on(suspended.enqueue(Work::Suspend)).expect("what is so may be asked for");
}

#[test]
fn credentials_are_there_until_they_are_confirmed() {
    let rig = prepared(&[Work::CreateTenant]);
    block_on(async {
        let parts = rig.parts().await;
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        let mut tx = store.begin().await.expect("begun");
        let tenant = tenants::get(&mut tx, &rig.tenant).await.expect("tenant");
        let token = provision
            .credentials_token(&mut tx, &rig.tenant)
            .await
            .expect("read");
        let token = token.expect("a token");
        let wrong = provision
            .credentials(&mut tx, &tenant, "spc_guess")
            .await
            .expect("read");
        assert!(wrong.is_none());
        for _ in 0..2 {
            let found = provision
                .credentials(&mut tx, &tenant, &token)
                .await
                .expect("read");
            let found = found.expect("credentials");
            assert!(found.database_url.expose().contains("postgres.internal"));
            assert_eq!(found.jwt_secret.expose().len(), 64);
        }
        assert!(
            provision
                .confirm_credentials(&mut tx, &rig.tenant, &token)
                .await
                .expect("written")
        );
        assert!(
            !provision
                .confirm_credentials(&mut tx, &rig.tenant, &token)
                .await
                .expect("written")
        );
        assert!(
            provision
                .credentials(&mut tx, &tenant, &token)
                .await
                .expect("read")
                .is_none()
        );
        assert_eq!(
            provision
                .credentials_token(&mut tx, &rig.tenant)
                .await
                .expect("read"),
            None
        );
        drop(tx);
        store.close().await;
    });
}

#[test]
fn a_stop_gives_waiting_work_back_at_once() {
    let rig = prepared(&[Work::CreateTenant]);
    block_on(rig.set_secret("FAKE_BEHAVIOUR", "never-ready"));
    let id = queued(&rig, deploy(DIGEST));
    let took = block_on(async {
        let mut parts = rig.parts().await;
        parts.settings.ready_within = Duration::from_secs(60);
        let store = parts.store.clone();
        let provision = Provision::new(parts);
        provision.start().await.expect("started");
        while rig.world.calls("provider.probe").expect("world") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        provision.stop().await;
        let took = begun.elapsed();
        store.close().await;
        took
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    let (row, steps) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Running);
    assert_eq!(row.lease_until, None, "the lease is given back");
    let waiting = steps.iter().find(|step| step.name == "wait-ready").expect("step");
    assert_eq!(waiting.attempts, 0, "a try that was cut off does not count");
}

#[test]
fn two_engines_over_one_store_do_every_step_once() {
    let rig = prepared(&[]);
    let id = queued(&rig, Work::CreateTenant);
    block_on(async {
        let (one, two) = (rig.parts().await, rig.parts().await);
        let store = one.store.clone();
        let engines = [Provision::new(one), Provision::new(two)];
        for engine in &engines {
            engine.start().await.expect("started");
        }
        loop {
            let mut tx = store.begin_read().await.expect("begun");
            let row = operations::get(&mut tx, &id).await.expect("operation");
            if row.finished_at.is_some() {
                assert_eq!(row.status, OperationStatus::Succeeded);
                break;
            }
            drop(tx);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for engine in &engines {
            engine.stop().await;
        }
    });
    assert_eq!(look(&rig).event_names().len(), 8);
}

#[test]
fn what_cannot_be_written_down_waits_for_a_decision() {
    let rig = prepared(&[]);
    let id = queued(&rig, Work::CreateTenant);
    block_on(rig.execute("UPDATE tenants SET status = 'deleted'"));
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Stuck);
    let error = row.error.expect("an error");
    assert_eq!(error.code, "unrecordable");
    assert!(error.hint.expect("a hint").contains(id.as_str()));
    block_on(rig.decide(Decision::Abandon, &id)).expect("abandoned");
    assert_eq!(look(&rig).tenant.status, TenantStatus::Deleted);
}

#[test]
fn what_a_newer_server_has_queued_is_left_to_it() {
    for newer in [
        "UPDATE operations SET kind = 'build-castle'",
        "UPDATE operation_steps SET name = 'create-castle' WHERE position = 2",
    ] {
        let rig = prepared(&[]);
        let id = queued(&rig, Work::CreateTenant);
        block_on(rig.execute(newer));
        block_on(async {
            let engine = Provision::new(rig.parts().await);
            engine.start().await.expect("started");
            tokio::time::sleep(Duration::from_millis(300)).await;
            engine.stop().await;
        });
        let (row, _) = block_on(rig.operation(&id));
        assert_eq!((row.status, row.fence), (OperationStatus::Queued, 0), "{newer}");
        assert!(rig.world.resources().expect("world").is_empty());
        block_on(rig.decide(Decision::Abandon, &id)).expect("given up");
    }
}

#[test]
fn what_an_older_server_has_queued_is_done_as_it_was_planned() {
    let rig = prepared(&[]);
    let id = queued(&rig, Work::CreateTenant);
    // There was no such step then.
    block_on(rig.execute("DELETE FROM operation_steps WHERE name = 'add-certificate'"));
    rig.run(&id, None);
    let (row, steps) = block_on(rig.operation(&id));
    assert_eq!(
        (row.status, steps.len()),
        (OperationStatus::Succeeded, 9),
        "{:?}",
        row.error
    );
    let kinds: Vec<String> = look(&rig).resources.into_iter().map(|line| line.kind).collect();
    assert!(!kinds.contains(&"certificate".to_owned()), "{kinds:?}");
}
