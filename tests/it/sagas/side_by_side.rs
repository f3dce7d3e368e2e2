//! Steps of a creation that run side by side: they do not wait for one another, they are told in one order, and when one
//! of them fails nothing of the others is left.

use systemprompt::api::id::OperationId;
use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::TenantStatus;
use systemprompt::server::provision::{Checkpoint, Work};
use systemprompt::server::world::{Fault, World};

use crate::sagas::proofs::{block_on, ended, look, passes_never, prepared};
use crate::sagas::rig::Rig;

/// What a creation tells when nothing goes wrong, in the order of the contract.
const TOLD: [&str; 8] = [
    "provisioning_started",
    "app_created",
    "volume_created",
    "ips_allocated",
    "database_created",
    "secrets_stored",
    "certificate_added",
    "infrastructure_ready",
];

/// A creation, with what `plan` does to the world before.
fn created(plan: impl FnOnce(&World)) -> (Rig, OperationId) {
    let rig = prepared(&[]);
    let id = block_on(rig.enqueue(Work::CreateTenant)).expect("queued");
    plan(&rig.world);
    rig.run(&id, None);
    (rig, id)
}

fn calls(rig: &Rig, method: &str) -> u64 {
    rig.world.calls(method).expect("the world")
}

/// Everything that can be taken back is, and the tenant says that it failed.
fn nothing_is_left(rig: &Rig) {
    let seen = look(rig);
    assert_eq!(seen.tenant.status, TenantStatus::Failed);
    assert_eq!(seen.world, [] as [&str; 0]);
    let there = seen.resources.iter().filter(|line| line.state != "removed");
    assert_eq!(there.count(), 0, "{:?}", seen.resources);
    let (known, attached) = rig
        .world
        .change(|state| (state.known.len(), state.networks.len()))
        .expect("the world");
    assert_eq!((known, attached), (0, 0));
    let failures = seen.event_names().into_iter();
    assert_eq!(failures.filter(|name| *name == "provisioning_failed").count(), 1);
}

#[test]
fn what_does_not_need_each_other_is_begun_together() {
    let first = [
        "provider.create_network",
        "provider.create_edge_network",
        "provider.create_volume",
        "databases.create",
        "edge.know",
    ];
    let second = ["edge.join", "databases.attach"];
    // Each waits until all of its kind were begun: one after the other they would wait for ever.
    let (rig, id) = created(|world| {
        for method in first {
            world.hold(method, &first).expect("planned");
        }
        for method in second {
            world.hold(method, &second).expect("planned");
        }
        // The networks are not waited for by what does not need them.
        let beside = ["databases.create", "edge.certificate"];
        world.hold("provider.create_network", &beside).expect("planned");
    });
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Succeeded, "{:?}", row.error);
    assert_eq!(look(&rig).event_names(), TOLD);
}

#[test]
fn what_each_is_about_to_make_stands_in_the_ledger_before() {
    let rig = prepared(&[]);
    let id = block_on(rig.enqueue(Work::CreateTenant)).expect("queued");
    assert!(rig.run(&id, Some(passes_never(Checkpoint::Begun))), "it dies");
    let mut intended = block_on(rig.intended());
    intended.sort_unstable();
    let line = |kind: &str, name: &str, step: &str| (kind.to_owned(), name.to_owned(), step.to_owned());
    assert_eq!(
        intended,
        [
            line("network", "acme", "create-network"),
            line("network", "acme-edge", "open-edge"),
            line("route", "acme-edge", "open-edge"),
            line("volume", "acme", "create-volume"),
        ]
    );
}

#[test]
fn they_are_told_in_one_order_whoever_is_done_first() {
    for late in [
        "provider.create_network",
        "provider.create_edge_network",
        "provider.create_volume",
        "edge.join",
        "databases.create",
        "databases.attach",
    ] {
        let (rig, _) = created(|world| {
            let millis = 150;
            world.plan(late, 1, Fault::Delay { millis }).expect("planned");
        });
        assert_eq!(look(&rig).event_names(), TOLD, "{late} is late");
    }
}

#[test]
fn one_that_fails_waits_for_what_is_under_way_and_begins_nothing_more() {
    let (rig, id) = created(|world| {
        world
            .hold("provider.create_volume", &["provider.create_network"])
            .expect("planned");
        world
            .plan("provider.create_volume", 1, Fault::Fatal)
            .expect("planned");
        let millis = 300;
        world
            .plan("provider.create_network", 1, Fault::Delay { millis })
            .expect("planned");
    });
    let (row, steps) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Failed);
    assert_eq!(row.error.expect("an error").step, "create-volume");
    let app = steps
        .iter()
        .find(|step| step.name == "create-network")
        .expect("a step");
    assert_eq!(
        (app.attempts, calls(&rig, "provider.remove_app")),
        (1, 1),
        "{steps:#?}"
    );
    assert_eq!(
        calls(&rig, "databases.attach"),
        0,
        "nothing is begun after the failure"
    );
    nothing_is_left(&rig);
}

#[test]
fn of_two_that_fail_the_first_is_the_reason() {
    let (rig, id) = created(|world| {
        world
            .plan("provider.create_volume", 1, Fault::Fatal)
            .expect("planned");
        world
            .hold("provider.create_network", &["provider.create_volume"])
            .expect("planned");
        world
            .plan("provider.create_network", 1, Fault::Fatal)
            .expect("planned");
    });
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Failed);
    let step = row.error.expect("an error").step;
    assert!(
        ["create-volume", "create-network"].contains(&step.as_str()),
        "{step}"
    );
    nothing_is_left(&rig);
}

#[test]
fn one_that_is_tried_again_holds_up_nobody_and_repeats_nobody() {
    let (rig, id) = created(|world| {
        world
            .plan("provider.create_volume", 1, Fault::Retry)
            .expect("planned");
        let millis = 200;
        world
            .plan("databases.create", 1, Fault::Delay { millis })
            .expect("planned");
    });
    let (row, _) = block_on(rig.operation(&id));
    assert_eq!(row.status, OperationStatus::Succeeded, "{:?}", row.error);
    assert_eq!(calls(&rig, "provider.create_volume"), 2);
    for once in ["provider.create_network", "databases.create", "edge.join"] {
        assert_eq!(calls(&rig, once), 1, "{once}");
    }
    let mut told = look(&rig)
        .event_names()
        .iter()
        .map(|name| (*name).to_owned())
        .collect::<Vec<_>>();
    assert!(told.iter().any(|name| name == "step_retrying"));
    told.retain(|name| name != "step_retrying");
    assert_eq!(told, TOLD);
}

/// A creation whose steps are those that `insert` writes.
fn of_another_version(insert: &'static str, plan: impl FnOnce(&World)) -> (Rig, OperationId) {
    let rig = prepared(&[]);
    let id = block_on(rig.enqueue(Work::CreateTenant)).expect("queued");
    block_on(rig.execute("DELETE FROM operation_steps"));
    block_on(rig.execute(insert));
    plan(&rig.world);
    rig.run(&id, None);
    (rig, id)
}

macro_rules! insert_steps {
    ($names:literal) => {
        concat!(
            "INSERT INTO operation_steps (operation_id, position, name, status, attempts, output, error, updated_at)
             SELECT operations.id, names.key, names.value, 'waiting', 0, NULL, NULL, 1
             FROM operations, json_each('",
            $names,
            "') AS names"
        )
    };
}

/// Those that servers queued from before steps ran side by side, and from when both networks were one step.
#[test]
fn a_creation_that_an_older_server_queued_comes_to_its_end() {
    let inserts = [
        insert_steps!(
            r#"["start", "generate-secrets", "create-app", "create-volume", "allocate-addresses", "create-database",
                "store-secrets", "add-certificate"]"#
        ),
        insert_steps!(
            r#"["start", "generate-secrets", "create-app", "create-volume", "tell-edge", "join-edge",
                "make-database", "join-database", "store-secrets", "add-certificate"]"#
        ),
    ];
    for insert in inserts {
        let (rig, id) = of_another_version(insert, |_| ());
        ended(&rig, &id, OperationStatus::Succeeded, insert);
        assert_eq!(look(&rig).event_names(), TOLD);
        let (rig, id) = of_another_version(insert, |world| {
            world.plan("edge.certificate", 1, Fault::Fatal).expect("planned");
        });
        ended(&rig, &id, OperationStatus::Failed, insert);
        nothing_is_left(&rig);
    }
}
