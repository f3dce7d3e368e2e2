//! `deploy` under the four proofs: the first deploy, and one beside a release that serves.

use systemprompt::api::operation::OperationStatus;
use systemprompt::api::release::ReleaseStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::Work;
use systemprompt::server::world::Fault;

use crate::sagas::proofs::{Proof, prepared};
use crate::sagas::rig::{DIGEST, OTHER_DIGEST, Rig, Seen, deploy};

fn first() -> Proof {
    Proof {
        prepared: prepared(&[Work::CreateTenant]),
        work: deploy(DIGEST),
        complete: |_, seen| serves(seen, 1, DIGEST),
        clean: |_, seen| {
            assert_eq!(seen.tenant.status, TenantStatus::AwaitingDeploy);
            assert_eq!(seen.tenant.current_release, None);
            assert_eq!(processes(seen), [""; 0]);
            assert_ne!(seen.traffic.as_deref(), Some("v1"));
        },
    }
}

fn second() -> Proof {
    Proof {
        prepared: prepared(&[Work::CreateTenant, deploy(DIGEST)]),
        work: deploy(OTHER_DIGEST),
        complete: |_, seen| serves(seen, 2, OTHER_DIGEST),
        clean: |_, seen| {
            serves(seen, 1, DIGEST);
            assert_eq!(seen.event_names().last(), Some(&"deploy_failed"));
            let others = seen.releases.iter().filter(|row| row.release.number != 1);
            for row in others {
                assert_eq!(row.release.status, ReleaseStatus::Failed);
                assert_eq!(row.machine_id, None);
            }
        },
    }
}

/// Machines and commands, of which only the serving one may be there.
fn processes(seen: &Seen) -> Vec<&str> {
    seen.world
        .iter()
        .map(String::as_str)
        .filter(|line| line.starts_with("machine") || line.starts_with("command"))
        .collect()
}

pub(crate) fn serves(seen: &Seen, number: u32, digest: &str) {
    assert_eq!(seen.tenant.status, TenantStatus::Running);
    assert_eq!(seen.tenant.current_release, Some(number));
    let machine = format!("sp-fake-acme-v{number}");
    assert_eq!(processes(seen), [format!("machine {machine}")]);
    assert_eq!(seen.traffic, Some(format!("v{number}")));
    let row = seen
        .releases
        .iter()
        .find(|row| row.release.number == number)
        .expect("its release");
    assert_eq!(row.release.status, ReleaseStatus::Active);
    assert_eq!(row.release.digest, digest);
    assert_eq!(row.machine_id.as_ref(), Some(&machine));
    let present: Vec<&str> = seen
        .resources
        .iter()
        .filter(|line| line.kind == "machine" && line.state == "present")
        .map(|line| line.external_id.as_str())
        .collect();
    assert_eq!(present, [machine.as_str()]);
}

#[test]
fn the_first_one_survives_passing_faults() {
    first().survives_every_passing_fault();
}

#[test]
fn the_first_one_fails_cleanly_at_any_call_before_the_switch() {
    first().fails_cleanly_at_every_call(&["drain-old"], OperationStatus::Failed);
}

#[test]
fn one_beside_another_survives_passing_faults() {
    second().survives_every_passing_fault();
}

#[test]
fn one_beside_another_fails_cleanly_at_any_call_before_the_switch() {
    second().fails_cleanly_at_every_call(&["drain-old"], OperationStatus::Failed);
}

#[test]
fn death_between_any_two_steps_is_survived() {
    second().survives_every_death("provider.probe", OperationStatus::Failed);
}

#[test]
fn death_around_the_switch_is_survived() {
    second().survives_every_death("provider.attach_traffic", OperationStatus::Failed);
}

#[test]
fn a_switch_that_happened_and_failed_is_taken_back() {
    let faults = [
        ("edge.switch", 1, Fault::LostReply),
        ("edge.switch", 2, Fault::Fatal),
    ];
    first().ends_after(&faults, OperationStatus::Failed);
    second().ends_after(&faults, OperationStatus::Failed);
}

#[test]
fn everything_is_told_in_order() {
    let rig = told_rig();
    let seen = super::proofs::look(&rig);
    let told: Vec<&str> = seen.event_names().into_iter().skip(8).collect();
    assert_eq!(
        told,
        [
            "deploy_started",
            "image_verified",
            "release_created",
            "release_command_started",
            "release_command_finished",
            "machine_created",
            "health_passed",
            "traffic_switched",
            "tenant_ready",
        ]
    );
    let ready = seen.events.last().expect("an event");
    assert_eq!(ready.status, "running");
    assert_eq!(ready.detail["url"], "http://acme.localhost:8080");
}

fn told_rig() -> Rig {
    prepared(&[Work::CreateTenant, deploy(DIGEST)])
}
