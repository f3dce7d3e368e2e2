//! The reconciler: what is ours is mended, what is lost is told, what is not ours is not touched.

use systemprompt::api::drift::Drift;
use systemprompt::api::operation::OperationStatus;
use systemprompt::server::provision::{Provision, Reconciled, Work};
use systemprompt::server::world::{State, Volume};

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{Proof, block_on, look, prepared};
use crate::sagas::rig::{DIGEST, Rig, deploy};

fn running() -> Rig {
    prepared(&[Work::CreateTenant, deploy(DIGEST)])
}

/// Looks for drift; what is queued is then run to its end.
fn reconcile(rig: &Rig, dry_run: bool) -> Reconciled {
    let found = block_on(async {
        let parts = rig.parts().await;
        let store = parts.store.clone();
        let found = Provision::new(parts).reconcile(dry_run, Some("ada")).await;
        store.close().await;
        found.expect("looked")
    });
    for operation in &found.operations {
        rig.run(operation, None);
        let (row, _) = block_on(rig.operation(operation));
        assert_eq!(row.status, OperationStatus::Succeeded, "{:?}", row.error);
    }
    found
}

fn change(rig: &Rig, act: impl FnOnce(&mut State)) {
    rig.world.change(act).expect("the world");
}

fn told(found: &[Drift]) -> Vec<String> {
    let line = |one: &Drift| format!("{} {} {}: {}", one.kind, one.external_id, one.found, one.action);
    found.iter().map(line).collect()
}

#[test]
fn a_tenant_that_is_as_its_ledger_says_is_left_alone() {
    let rig = running();
    let found = reconcile(&rig, false);
    assert_eq!((found.report.tenants, found.report.drift.len()), (1, 0));
}

#[test]
fn a_machine_and_a_route_that_are_gone_come_back() {
    let rig = running();
    change(&rig, |state| {
        state.machines.clear();
        state.routes.clear();
    });
    let wanted = [
        "route acme.localhost missing: mend",
        "machine sp-fake-acme-v1 missing: mend",
    ];
    let dry = reconcile(&rig, true);
    assert_eq!(told(&dry.report.drift), wanted);
    assert!(dry.operations.is_empty() && look(&rig).event_names().last() == Some(&"tenant_ready"));
    let found = reconcile(&rig, false);
    assert_eq!(told(&found.report.drift), wanted);
    let seen = look(&rig);
    serves(&seen, 1, DIGEST);
    assert!(seen.event_names().contains(&"drift_found"));
    assert_eq!(seen.event_names().last(), Some(&"drift_mended"));
    assert_eq!(reconcile(&rig, false).report.drift, []);
}

#[test]
fn networks_that_are_gone_come_back_with_who_was_in_them() {
    let rig = running();
    change(&rig, |state| state.networks.clear());
    let found = reconcile(&rig, false);
    assert_eq!(found.report.drift.len(), 3, "{:?}", found.report.drift);
    serves(&look(&rig), 1, DIGEST);
    let networks = rig.world.change(|state| state.networks.clone()).expect("world");
    let attached: Vec<_> = networks.values().map(|it| it.attached.clone()).collect();
    assert!(attached.iter().any(|names| names.contains("postgres")));
    assert!(attached.iter().any(|names| names.contains("edge")));
}

#[test]
fn what_nobody_knows_and_carries_our_labels_is_removed() {
    let rig = running();
    change(&rig, |state| {
        let mut copy = state.machines["sp-fake-acme-v1"].clone();
        copy.release = 9;
        state.machines.insert("sp-fake-acme-v9".to_owned(), copy.clone());
        // Not ours: no tenant of ours is named on it.
        copy.tenant = "somebody".to_owned();
        state.machines.insert("sp-fake-acme-v8".to_owned(), copy);
    });
    let found = reconcile(&rig, false);
    assert_eq!(
        told(&found.report.drift),
        ["machine sp-fake-acme-v9 surplus: mend"]
    );
    let machines = rig.world.change(|state| state.machines.clone()).expect("world");
    let left: Vec<&String> = machines.keys().collect();
    assert_eq!(left, ["sp-fake-acme-v1", "sp-fake-acme-v8"]);
}

#[test]
fn lost_data_is_told_and_not_hidden_by_an_empty_volume() {
    let rig = running();
    change(&rig, |state| {
        state.volumes.clear();
        state.machines.clear();
    });
    let found = reconcile(&rig, false);
    assert!(found.operations.is_empty());
    assert!(found.report.drift.iter().all(|one| one.action == "report"));
    assert!(rig.world.change(|state| state.volumes.is_empty()).expect("world"));
}

#[test]
fn what_a_deleted_tenant_has_left_is_removed() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST), Work::DeleteTenant]);
    let tenant = rig.tenant.to_string();
    change(&rig, |state| {
        state.volumes.insert("sp-fake-acme".to_owned(), Volume { tenant });
    });
    let found = reconcile(&rig, false);
    assert_eq!(told(&found.report.drift), ["volume sp-fake-acme surplus: mend"]);
    assert_eq!(look(&rig).world, [] as [&str; 0]);
}

fn repair() -> Proof {
    let rig = running();
    change(&rig, |state| {
        state.machines.clear();
        state.networks.clear();
        state.routes.clear();
    });
    Proof {
        prepared: rig,
        work: Work::Repair,
        complete: |_, seen| serves(seen, 1, DIGEST),
        clean: |_, seen| assert_eq!(seen.event_names().last(), Some(&"repair_failed")),
    }
}

#[test]
fn a_repair_survives_passing_faults() {
    repair().survives_every_passing_fault();
}

#[test]
fn a_repair_fails_without_blocking_the_tenant() {
    repair().fails_cleanly_at_every_call(&[], OperationStatus::Failed);
}

#[test]
fn a_repair_survives_death() {
    repair().survives_every_death("provider.attach_traffic", OperationStatus::Failed);
}
