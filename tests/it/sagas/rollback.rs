//! `rollback` under the four proofs, and what a deploy may not lose.

use systemprompt::api::operation::OperationStatus;
use systemprompt::api::release::{MigrationMark, Release, ReleaseStatus};
use systemprompt::server::provision::{DeployParams, RollbackParams, Work};

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{Proof, block_on, look, prepared};
use crate::sagas::rig::{DIGEST, OTHER_DIGEST, Rig, Seen, deploy};

fn back_to(release: u32) -> Work {
    Work::Rollback(RollbackParams {
        release,
        message: None,
    })
}

/// v1 with 256 MB, v2 the same with 512 MB, v3 another image.
fn moved_on() -> Rig {
    prepared(&[
        Work::CreateTenant,
        deploy(DIGEST),
        Work::ChangeMemory { memory_mb: 512 },
        deploy(OTHER_DIGEST),
    ])
}

fn find(seen: &Seen, number: u32) -> &Release {
    let mut rows = seen.releases.iter().map(|row| &row.release);
    rows.find(|release| release.number == number)
        .expect("the release")
}

fn proof() -> Proof {
    Proof {
        prepared: moved_on(),
        work: back_to(1),
        complete: |rig, seen| {
            serves(seen, 4, DIGEST);
            assert_eq!(seen.releases.len(), 4, "one release, however often a step ran");
            let (old, new) = (find(seen, 1), find(seen, 4));
            assert_eq!(new.restores, Some(1));
            assert_eq!(new.memory_mb, 256);
            assert_eq!(seen.tenant.memory_mb, 256);
            assert_eq!(new.image_config, old.image_config);
            assert_eq!(new.secret_versions, old.secret_versions);
            assert_eq!(new.migrations, None, "no release command runs");
            let runs = |state: &mut systemprompt::server::world::State| {
                state.machines.values().map(|it| it.memory_mb).collect::<Vec<_>>()
            };
            assert_eq!(rig.world.change(runs).expect("world"), [256]);
        },
        clean: |_, seen| {
            serves(seen, 3, OTHER_DIGEST);
            assert_eq!(seen.tenant.memory_mb, 512);
            assert_eq!(seen.event_names().last(), Some(&"deploy_failed"));
            for row in seen.releases.iter().filter(|row| row.release.number > 3) {
                assert_eq!(row.release.status, ReleaseStatus::Failed);
                assert_eq!(row.machine_id, None);
            }
        },
    }
}

#[test]
fn it_survives_passing_faults() {
    proof().survives_every_passing_fault();
}

#[test]
fn it_fails_cleanly_at_any_call_before_the_switch() {
    proof().fails_cleanly_at_every_call(&["drain-old"], OperationStatus::Failed);
}

#[test]
fn death_between_any_two_steps_is_survived() {
    proof().survives_every_death("provider.probe", OperationStatus::Failed);
}

#[test]
fn death_around_the_switch_is_survived() {
    proof().survives_every_death("provider.attach_traffic", OperationStatus::Failed);
}

fn ran(rig: &Rig, work: Work) -> OperationStatus {
    let id = block_on(rig.enqueue(work)).expect("queued");
    rig.run(&id, None);
    block_on(rig.operation(&id)).0.status
}

#[test]
fn secrets_come_back_as_they_were_and_newer_values_wait() {
    let rig = prepared(&[Work::CreateTenant]);
    block_on(rig.set_secret("A_KEY", "first"));
    assert_eq!(ran(&rig, deploy(DIGEST)), OperationStatus::Succeeded);
    block_on(rig.set_secret("A_KEY", "second"));
    block_on(rig.set_secret("NEW_KEY", "x"));
    assert_eq!(ran(&rig, deploy(OTHER_DIGEST)), OperationStatus::Succeeded);
    let machine = |number: u32| {
        let state = rig.world.change(|state| state.clone()).expect("world");
        state.machines[&format!("sp-fake-acme-v{number}")]
            .environment
            .clone()
    };
    let second = machine(2);
    assert_eq!(ran(&rig, back_to(1)), OperationStatus::Succeeded);
    let third = machine(3);
    assert!(second.contains_key("NEW_KEY") && !third.contains_key("NEW_KEY"));
    assert_ne!(second["A_KEY"], third["A_KEY"]);
    // A restart keeps to what was restored; a deploy takes what is newest.
    assert_eq!(ran(&rig, Work::Restart), OperationStatus::Succeeded);
    assert_eq!(machine(4)["A_KEY"], third["A_KEY"]);
    assert_eq!(ran(&rig, deploy(OTHER_DIGEST)), OperationStatus::Succeeded);
    assert_eq!(machine(5)["A_KEY"], second["A_KEY"]);
    assert!(machine(5).contains_key("NEW_KEY"));
}

#[test]
fn what_a_release_command_did_is_written_down_even_when_its_release_fails() {
    let rig = prepared(&[Work::CreateTenant]);
    block_on(rig.set_secret("FAKE_MIGRATIONS", "0001_a.sql 0002_b.sql!"));
    assert_eq!(ran(&rig, deploy(DIGEST)), OperationStatus::Succeeded);
    block_on(rig.set_secret("FAKE_BEHAVIOUR", "exit-1"));
    assert_eq!(ran(&rig, deploy(DIGEST)), OperationStatus::Failed);
    block_on(rig.set_secret("FAKE_BEHAVIOUR", "release-command-fails"));
    assert_eq!(ran(&rig, deploy(DIGEST)), OperationStatus::Failed);
    let seen = look(&rig);
    let applied = MigrationMark {
        finished: true,
        reported: true,
        applied: vec!["0001_a.sql".to_owned(), "0002_b.sql".to_owned()],
        irreversible: vec!["0002_b.sql".to_owned()],
        total: Some(2),
    };
    assert_eq!(find(&seen, 1).migrations, Some(applied.clone()));
    assert_eq!(
        find(&seen, 2).migrations,
        Some(applied),
        "the release failed after it"
    );
    assert_eq!(find(&seen, 3).migrations, Some(MigrationMark::default()));
}

#[test]
fn a_deploy_that_would_lose_a_secret_makes_no_release() {
    let rig = prepared(&[Work::CreateTenant]);
    block_on(rig.set_secret("A_KEY", "first"));
    block_on(rig.set_secret("B_KEY", "first"));
    assert_eq!(ran(&rig, deploy(DIGEST)), OperationStatus::Succeeded);
    // As a damaged disk does.
    block_on(rig.execute("UPDATE secret_versions SET sealed_value = 'x' WHERE key = 'B_KEY'"));
    let id = block_on(rig.enqueue(deploy(OTHER_DIGEST))).expect("queued");
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    let error = row.error.expect("an error");
    assert_eq!(error.step, "create-release");
    assert!(
        error.message.contains("the value of `B_KEY` cannot be opened"),
        "{error:?}"
    );
    assert!(error.hint.expect("a hint").contains("--allow-missing B_KEY"));
    let seen = look(&rig);
    serves(&seen, 1, DIGEST);
    assert_eq!(seen.releases.len(), 1);
    let without = Work::Deploy(DeployParams {
        image: "current".to_owned(),
        allow_missing: vec!["B_KEY".parse().expect("a key")],
        ..DeployParams::default()
    });
    assert_eq!(ran(&rig, without), OperationStatus::Succeeded);
    let seen = look(&rig);
    let keys: Vec<&String> = find(&seen, 2).secret_versions.keys().collect();
    assert_eq!(keys, ["A_KEY"]);
}
