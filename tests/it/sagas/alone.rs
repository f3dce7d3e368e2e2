//! `deploy` of a release that may not run beside the old one. The pretended provider refuses to start a machine while
//! another one of the tenant runs.

use systemprompt::api::operation::OperationStatus;
use systemprompt::api::release::Strategy;
use systemprompt::server::provision::{DeployParams, Work};

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{Proof, look, prepared};
use crate::sagas::rig::{DIGEST, OTHER_DIGEST, Rig, Seen, deploy};

fn alone(digest: &str) -> Work {
    let Work::Deploy(params) = deploy(digest) else {
        unreachable!("a deploy")
    };
    Work::Deploy(DeployParams {
        strategy: Some(Strategy::Recreate),
        ..params
    })
}

fn taking_over() -> Proof {
    Proof {
        prepared: prepared(&[Work::CreateTenant, deploy(DIGEST)]),
        work: alone(OTHER_DIGEST),
        complete: |rig, seen| runs(rig, seen, 2, OTHER_DIGEST),
        clean: |rig, seen| {
            runs(rig, seen, 1, DIGEST);
            assert_eq!(seen.event_names().last(), Some(&"deploy_failed"));
        },
    }
}

/// The release serves, and its machine's process runs.
fn runs(rig: &Rig, seen: &Seen, number: u32, digest: &str) {
    serves(seen, number, digest);
    let ended = rig
        .world
        .change(|state| state.machines.values().any(|it| it.is_ended));
    assert!(!ended.expect("world"), "v{number} does not run");
}

#[test]
fn it_survives_passing_faults() {
    taking_over().survives_every_passing_fault();
}

#[test]
fn it_gives_the_place_back_at_any_fault_before_the_switch() {
    taking_over().fails_cleanly_at_every_call(&["drain-old"], OperationStatus::Failed);
}

#[test]
fn death_is_survived() {
    taking_over().survives_every_death("provider.run_command", OperationStatus::Failed);
}

#[test]
fn death_after_requests_were_let_go_is_survived() {
    taking_over().survives_every_death("provider.attach_traffic", OperationStatus::Failed);
}

#[test]
fn the_strategy_stays_with_a_restart() {
    let rig = prepared(&[Work::CreateTenant, alone(DIGEST), Work::Restart]);
    let seen = look(&rig);
    runs(&rig, &seen, 2, DIGEST);
    let called = |method: &str| {
        let calls = rig.world.change(|state| state.calls.get(method).copied());
        calls.expect("world").unwrap_or(0)
    };
    assert_eq!(
        called("provider.start_machine"),
        1,
        "the first one waits for nobody"
    );
    assert_eq!(called("provider.create_machine"), 1);
    // Ended to make place, and once more when it is drained.
    assert_eq!((called("provider.end_machine"), called("edge.let_go")), (2, 1));
    assert_eq!(called("provider.run_command"), 1, "a restart runs no command");
}

#[test]
fn the_command_runs_when_the_old_one_has_ended() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST), alone(OTHER_DIGEST)]);
    let seen = look(&rig);
    let told = seen.event_names();
    let told: Vec<&str> = told
        .iter()
        .copied()
        .skip_while(|name| *name != "tenant_ready")
        .collect();
    assert_eq!(
        told,
        [
            "tenant_ready",
            "deploy_started",
            "image_verified",
            "release_created",
            "machine_updated",
            "release_command_finished",
            "health_passed",
            "traffic_switched",
            "tenant_ready",
        ]
    );
}
