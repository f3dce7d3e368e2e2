//! `create-tenant` under the four proofs.

use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::Work;

use crate::sagas::proofs::{Proof, prepared};
use crate::sagas::rig::{Rig, Seen};

fn proof() -> Proof {
    Proof {
        prepared: prepared(&[]),
        work: Work::CreateTenant,
        complete,
        clean,
    }
}

fn complete(rig: &Rig, seen: &Seen) {
    assert_eq!(seen.tenant.status, TenantStatus::AwaitingDeploy);
    let database = format!("database {}", rig.tenant);
    let wanted = [
        database.as_str(),
        "network sp-fake-acme",
        "network sp-fake-acme-edge",
        "route acme",
        "volume sp-fake-acme",
    ];
    assert_eq!(seen.world, wanted);
    let kinds = |state: &str| -> Vec<&str> {
        let lines = seen.resources.iter().filter(|line| line.state == state);
        let mut kinds: Vec<&str> = lines.map(|line| line.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    };
    assert_eq!(
        kinds("present"),
        [
            "certificate",
            "database",
            "database-role",
            "network",
            "route",
            "volume"
        ]
    );
    let mut told = seen.event_names();
    told.retain(|name| *name != "step_retrying");
    assert_eq!(
        told,
        [
            "provisioning_started",
            "app_created",
            "volume_created",
            "ips_allocated",
            "database_created",
            "secrets_stored",
            "certificate_added",
            "infrastructure_ready"
        ]
    );
    assert_eq!(
        seen.events.last().map(|event| event.status.as_str()),
        Some("awaiting_deploy")
    );
}

fn clean(_rig: &Rig, seen: &Seen) {
    assert_eq!(seen.tenant.status, TenantStatus::Failed);
    assert!(seen.world.is_empty(), "nothing is left: {:?}", seen.world);
    let there = seen.resources.iter().filter(|line| line.state != "removed");
    assert_eq!(there.count(), 0, "{:?}", seen.resources);
    assert_eq!(seen.event_names().last(), Some(&"provisioning_failed"));
}

#[test]
fn passing_faults_are_survived() {
    proof().survives_every_passing_fault();
}

#[test]
fn a_failure_at_any_call_leaves_nothing() {
    proof().fails_cleanly_at_every_call(&[], OperationStatus::Failed);
}

#[test]
fn death_between_any_two_steps_is_survived() {
    proof().survives_every_death("edge.certificate", OperationStatus::Failed);
}
