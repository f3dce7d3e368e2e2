//! `delete-tenant` under the proofs: there is no way back, so a failure waits for a decision.

use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::Work;

use crate::sagas::proofs::{Proof, prepared};
use crate::sagas::rig::{DIGEST, Rig, Seen, deploy};

fn proof() -> Proof {
    Proof {
        prepared: prepared(&[Work::CreateTenant, deploy(DIGEST)]),
        work: Work::DeleteTenant,
        complete: gone,
        clean: |rig, seen| {
            let ended = rig.world.calls("provider.end_machine").expect("world");
            if ended > 0 {
                assert_ne!(seen.traffic.as_deref(), Some("v1"), "visitors are told first");
            }
            assert_eq!(seen.tenant.status, TenantStatus::Deleting);
            assert_eq!(seen.event_names().last(), Some(&"operation_stuck"));
        },
    }
}

pub(crate) fn gone(rig: &Rig, seen: &Seen) {
    assert_eq!(seen.tenant.status, TenantStatus::Deleted);
    assert_eq!(seen.tenant.network_slot, None);
    assert!(seen.world.is_empty(), "nothing is left: {:?}", seen.world);
    let there = seen.resources.iter().filter(|line| line.state != "removed");
    assert_eq!(there.count(), 0, "{:?}", seen.resources);
    assert_eq!(seen.event_names().last(), Some(&"tenant_deleted"));
    let calls = rig.world.calls("images.remove_tenant").expect("world");
    assert!(calls > 0, "its images are removed");
}

#[test]
fn passing_faults_are_survived() {
    proof().survives_every_passing_fault();
}

#[test]
fn a_failure_at_any_call_waits_for_a_decision() {
    proof().fails_cleanly_at_every_call(&[], OperationStatus::Stuck);
}

#[test]
fn death_between_any_two_steps_is_survived() {
    proof().survives_every_death("provider.remove_volume", OperationStatus::Stuck);
}
