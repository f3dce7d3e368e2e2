//! The smaller sagas under the same proofs, and what is particular to each operation.

use systemprompt::api::edge_session::{EdgeSessions, Visitors};
use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::{Checkpoint, DeployParams, Work};
use systemprompt::server::store::tenants::LoginSlot;

use crate::sagas::deploy::serves;
use crate::sagas::proofs::{Proof, block_on, look, prepared};
use crate::sagas::rig::{DIGEST, OTHER_DIGEST, Rig, Seen, deploy};

fn running() -> Rig {
    prepared(&[Work::CreateTenant, deploy(DIGEST)])
}

fn rotation() -> Proof {
    Proof {
        prepared: running(),
        work: Work::RotateCredentials,
        complete: |rig, seen| {
            serves(seen, 2, DIGEST);
            assert_eq!(seen.tenant.login_slot, LoginSlot::B);
            assert_eq!(logins(rig), ["b"]);
            assert_eq!(ledger_logins(seen), ["b"]);
            assert_eq!(seen.event_names().last(), Some(&"credentials_rotated"));
        },
        clean: |rig, seen| {
            serves(seen, 1, DIGEST);
            assert_eq!(seen.tenant.login_slot, LoginSlot::A);
            assert_eq!(logins(rig), ["a"]);
            assert_eq!(ledger_logins(seen), ["a"]);
        },
    }
}

/// The login roles that may log in.
fn logins(rig: &Rig) -> Vec<String> {
    let all = rig.world.change(|state| state.databases.clone()).expect("world");
    let database = all.get(rig.tenant.as_str()).expect("database");
    assert!(database.logins.values().all(|(_, allowed)| *allowed));
    database.logins.keys().cloned().collect()
}

/// The login roles that the ledger says are there.
fn ledger_logins(seen: &Seen) -> Vec<&str> {
    seen.resources
        .iter()
        .filter(|line| line.kind == "database-role" && line.state == "present")
        .filter_map(|line| line.external_id.rsplit_once("_app_").map(|(_, slot)| slot))
        .collect()
}

#[test]
fn a_rotation_survives_passing_faults() {
    rotation().survives_every_passing_fault();
}

#[test]
fn a_rotation_fails_cleanly_at_any_call_before_the_switch() {
    rotation().fails_cleanly_at_every_call(
        &["drain-old", "lock-old-login", "drop-old-login"],
        OperationStatus::Failed,
    );
}

#[test]
fn a_rotation_survives_death() {
    rotation().survives_every_death("provider.attach_traffic", OperationStatus::Failed);
}

fn suspension() -> Proof {
    Proof {
        prepared: running(),
        work: Work::Suspend,
        complete: |rig, seen| {
            assert_eq!(seen.tenant.status, TenantStatus::Suspended);
            assert!(!seen.world.iter().any(|line| line.starts_with("machine")));
            assert_eq!(seen.traffic.as_deref(), Some("suspended"));
            assert!(!connections(rig));
        },
        clean: |_, seen| assert_eq!(seen.event_names().last(), Some(&"operation_stuck")),
    }
}

fn activation() -> Proof {
    Proof {
        prepared: prepared(&[Work::CreateTenant, deploy(DIGEST), Work::Suspend]),
        work: Work::Activate,
        complete: |rig, seen| {
            serves(seen, 1, DIGEST);
            assert!(connections(rig));
        },
        clean: |rig, seen| {
            assert_eq!(seen.tenant.status, TenantStatus::Suspended);
            assert!(!seen.world.iter().any(|line| line.starts_with("machine")));
            assert_eq!(seen.traffic.as_deref(), Some("suspended"));
            assert!(!connections(rig));
        },
    }
}

fn sessions() -> Proof {
    let members = EdgeSessions {
        who: Visitors::Members,
        issuer: None,
    };
    Proof {
        prepared: running(),
        work: Work::SetSessions(Some(members)),
        complete: |rig, seen| {
            serves(seen, 1, DIGEST);
            let sessions = seen.tenant.edge_sessions.as_ref();
            assert_eq!(sessions.map(|sessions| sessions.who), Some(Visitors::Members));
            let asked = rig.world.change(|state| state.asked_first.clone());
            assert!(asked.expect("world").contains("acme"));
            assert_eq!(seen.event_names().last(), Some(&"sessions_changed"));
        },
        // Whether the edge asks or not: the row names nobody, so nobody is let in who shall not be.
        clean: |_, seen| {
            assert_eq!(seen.tenant.edge_sessions, None);
            assert_eq!(seen.event_names().last(), Some(&"operation_stuck"));
        },
    }
}

#[test]
fn sessions_survive_passing_faults_and_wait_for_a_decision() {
    sessions().survives_every_passing_fault();
    sessions().fails_cleanly_at_every_call(&[], OperationStatus::Stuck);
    let twice = [Checkpoint::Acted, Checkpoint::Recorded];
    sessions().survives_dying(&twice, None, OperationStatus::Succeeded);
}

/// The edge may have been told before and have forgotten it: it is told again before anybody serves.
#[test]
fn releases_of_tenants_with_sessions_tell_the_edge_first() {
    let rig = prepared(&[Work::CreateTenant, deploy(DIGEST), sessions().work]);
    let forgotten = rig.world.change(|state| state.asked_first.clear());
    forgotten.expect("world");
    let id = block_on(rig.enqueue(deploy(OTHER_DIGEST))).expect("queued");
    rig.run(&id, None);
    let asked = rig.world.change(|state| state.asked_first.clone());
    assert!(asked.expect("world").contains("acme"));
}

fn connections(rig: &Rig) -> bool {
    let all = rig.world.change(|state| state.databases.clone()).expect("world");
    all.get(rig.tenant.as_str()).expect("database").connections
}

#[test]
fn suspending_and_activating_survive_passing_faults() {
    suspension().survives_every_passing_fault();
    activation().survives_every_passing_fault();
}

#[test]
fn suspending_and_activating_fail_as_they_should() {
    suspension().fails_cleanly_at_every_call(&[], OperationStatus::Stuck);
    activation().fails_cleanly_at_every_call(&[], OperationStatus::Failed);
}

#[test]
fn suspending_and_activating_survive_death() {
    suspension().survives_every_death("databases.set_connections", OperationStatus::Stuck);
    activation().survives_every_death("provider.probe", OperationStatus::Failed);
}

fn restart() -> Proof {
    Proof {
        prepared: running(),
        work: Work::ChangeMemory { memory_mb: 512 },
        complete: |rig, seen| {
            serves(seen, 2, DIGEST);
            assert_eq!(seen.tenant.memory_mb, 512);
            let machines = rig.world.change(|state| state.machines.clone()).expect("world");
            assert!(machines.values().all(|machine| machine.memory_mb == 512));
        },
        clean: |_, seen| {
            serves(seen, 1, DIGEST);
            assert_eq!(seen.tenant.memory_mb, 256);
        },
    }
}

#[test]
fn a_restart_survives_passing_faults_and_death() {
    restart().survives_every_passing_fault();
    restart().survives_every_death("provider.probe", OperationStatus::Failed);
}

/// Runs a deploy of an image whose machine behaves like this, and answers what is seen and the error's text.
fn deploy_behaving(rig: &Rig, behaviour: &str) -> (Seen, systemprompt::api::operation::OperationError) {
    block_on(rig.set_secret("FAKE_BEHAVIOUR", behaviour));
    let id = block_on(rig.enqueue(deploy("sha256:cccc"))).expect("queued");
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Failed);
    (look(rig), row.error.expect("an error"))
}

#[test]
fn a_release_that_is_never_ready_leaves_the_old_one_serving() {
    for (behaviour, says) in [
        ("never-ready", "did not answer 2xx within"),
        ("exit-1", "its process ended with exit code 1"),
    ] {
        let rig = running();
        let (seen, error) = deploy_behaving(&rig, behaviour);
        serves(&seen, 1, DIGEST);
        assert_eq!(error.code, "deploy-failed-old-release-serves");
        assert_eq!(error.step, "wait-ready");
        assert!(error.message.contains(says), "{}", error.message);
        assert!(error.hint.is_some());
        assert_eq!(
            error.log_tail.first().map(String::as_str),
            Some("release v2 starts")
        );
        let names = seen.event_names();
        assert_eq!(
            names[names.len() - 3..],
            ["health_failed", "release_rolled_back", "deploy_failed"]
        );
    }
}

#[test]
fn a_first_release_that_fails_leaves_nothing_and_says_so() {
    let rig = prepared(&[Work::CreateTenant]);
    let (seen, error) = deploy_behaving(&rig, "release-command-fails");
    assert_eq!(seen.tenant.status, TenantStatus::AwaitingDeploy);
    assert_eq!(error.code, "deploy-failed");
    assert_eq!(error.step, "release-command");
    assert_eq!(error.log_tail, ["ran `systemprompt services db migrate`"]);
    assert!(!seen.world.iter().any(|line| line.starts_with("command")));
    assert!(seen.event_names().contains(&"release_command_failed"));
}

#[test]
fn an_image_that_is_not_there_is_found_before_anything_is_done() {
    let rig = running();
    let id = block_on(rig.enqueue(deploy("sha256:missing"))).expect("queued");
    rig.run(&id, None);
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.error.expect("an error").step, "verify-image");
    let seen = look(&rig);
    serves(&seen, 1, DIGEST);
    assert_eq!(seen.releases.len(), 1);
}

#[test]
fn current_is_the_same_image_with_the_secrets_of_now() {
    let rig = running();
    block_on(rig.set_secret("OPENAI_API_KEY", "sk-1"));
    let current = Work::Deploy(DeployParams {
        image: "current".to_owned(),
        ..DeployParams::default()
    });
    let id = block_on(rig.enqueue(current)).expect("queued");
    rig.run(&id, None);
    let seen = look(&rig);
    serves(&seen, 2, DIGEST);
    let release = &seen.releases[0].release;
    assert_eq!(release.secret_versions.get("OPENAI_API_KEY"), Some(&1));
    let machines = rig.world.change(|state| state.machines.clone()).expect("world");
    let environment = &machines["sp-fake-acme-v2"].environment;
    assert!(environment.contains_key("OPENAI_API_KEY"));
    assert!(environment.contains_key("DATABASE_URL"));
}
