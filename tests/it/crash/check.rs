//! What must be true after every act, whatever happened in it: the store, the world and what people were told agree.

use sha2::{Digest as _, Sha256};
use systemprompt::api::event::Event;
use systemprompt::api::id::TenantId;
use systemprompt::api::operation::OperationStatus;
use systemprompt::api::tenant::{Resource, TenantStatus};
use systemprompt::server::store::operations::{self, OperationRow};
use systemprompt::server::store::tenants::{self, TenantRow};
use systemprompt::server::store::{Store, events, releases, resources};
use systemprompt::server::world::State;

use crate::cli::rig::{Said, Server};

/// Looks at everything.
pub(crate) async fn check(server: &Server, said: Option<&Said>, (count, what): (usize, &str)) {
    let path = std::path::Path::new(&server.data_dir()).join("systemprompt.db");
    let store = Store::open_sqlite(&path).await.expect("the store");
    if said.is_none() {
        rested(&store).await;
    }
    let mut tx = store.begin_read().await.expect("begun");
    let newest = "SELECT id FROM tenants ORDER BY created_at DESC, id DESC LIMIT 1";
    let row = tx
        .fetch_optional(newest, vec![])
        .await
        .expect("read")
        .expect("a tenant");
    let id: TenantId = row.parse("id").expect("an id");
    let tenant = tenants::get(&mut tx, &id).await.expect("the tenant");
    let history = events::list_after(&mut tx, &id, 0, 10_000).await.expect("events");
    let ledger = resources::list(&mut tx, &id).await.expect("the ledger");
    let work = operations::list_by_tenant(&mut tx, &id, None, 1000)
        .await
        .expect("operations");
    let serving = match tenant.current_release {
        Some(number) => releases::find(&mut tx, &id, number).await.expect("releases"),
        None => None,
    };
    drop(tx);
    store.close().await;
    let world = server.world().change(|state| state.clone()).expect("the world");

    assert_eq!(work.len(), count, "{what}: nothing was begun twice");
    let last = &work[0];
    let rests = last.finished_at.is_some() || last.status == OperationStatus::Stuck;
    assert!(rests, "{what}: {last:?}");
    assert_eq!(last.worker(), None, "{what}: nobody holds it any more");
    numbers(&tenant, &history, what);
    if let Some(said) = said {
        told(&last_run(last, &history), said, what);
    }
    listing(&tenant, &ledger, (&world, last), what);
    let machine = serving.and_then(|release| release.machine_id);
    machines(&tenant, machine.as_deref(), (&world, last), what);
    credentials(server, &tenant, &world, what);
}

/// Waits for what nobody has waited for.
async fn rested(store: &Store) {
    let began = std::time::Instant::now();
    let open = "SELECT id FROM operations WHERE finished_at IS NULL";
    loop {
        let mut tx = store.begin_read().await.expect("begun");
        if tx.fetch_optional(open, vec![]).await.expect("read").is_none() {
            return;
        }
        drop(tx);
        assert!(began.elapsed().as_secs() < 60, "it comes to no end");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn numbers(tenant: &TenantRow, history: &[Event], what: &str) {
    let numbers: Vec<u64> = history.iter().map(|event| event.seq).collect();
    let wanted: Vec<u64> = (1..=tenant.last_event_seq).collect();
    assert_eq!(numbers, wanted, "{what}: events have no gap");
}

/// What the last operation told since it was begun, or taken up by hand.
fn last_run(last: &OperationRow, history: &[Event]) -> Vec<String> {
    history
        .iter()
        .filter(|event| event.operation_id.as_ref() == Some(&last.id) && event.seq > last.events_after)
        .map(|event| event.message.clone())
        .collect()
}

/// Who followed the work has heard every event of it once and in order.
fn told(wanted: &[String], said: &Said, what: &str) {
    let marks = ["  - ", "  x ", "  ! "];
    let told: Vec<&str> = said
        .stderr
        .lines()
        .filter_map(|line| marks.iter().find_map(|mark| line.strip_prefix(mark)))
        .collect();
    assert_eq!(told, wanted, "{what}: {}", said.whole());
}

/// The provider's listing is the ledger.
fn listing(tenant: &TenantRow, ledger: &[Resource], (world, last): (&State, &OperationRow), what: &str) {
    let mut known: Vec<String> = Vec::new();
    for line in ledger.iter().filter(|line| line.state != "removed") {
        // A stuck operation is in the middle of its step.
        let settled = line.state == "present" || last.status == OperationStatus::Stuck;
        assert!(settled, "{what}: {line:?}");
        known.push(match line.kind.as_str() {
            "network" | "volume" | "machine" => format!("{} {}", line.kind, line.external_id),
            "database" => format!("database {}", tenant.id),
            "route" => format!("route {}", tenant.label),
            "certificate" | "database-role" => continue,
            other => panic!("{what}: the ledger has a {other}"),
        });
    }
    known.sort();
    assert_eq!(world.resources(), known, "{what}: the listing is the ledger");
}

fn machines(tenant: &TenantRow, serving: Option<&str>, (world, last): (&State, &OperationRow), what: &str) {
    if last.status == OperationStatus::Stuck {
        return;
    }
    let running: Vec<(&str, bool)> = world
        .machines
        .iter()
        .map(|(id, machine)| (id.as_str(), machine.traffic))
        .collect();
    let traffic = world.traffic.get(&tenant.label).map(String::as_str);
    if tenant.status == TenantStatus::Running {
        let serving = serving.expect("a machine");
        assert_eq!(running, [(serving, true)], "{what}: one machine, which serves");
        let wanted = tenant.current_release.map(|number| format!("v{number}"));
        assert_eq!(traffic, wanted.as_deref(), "{what}: requests go to it");
        return;
    }
    assert!(
        running.is_empty(),
        "{what}: {running:?} while {:?}",
        tenant.status
    );
    if tenant.status == TenantStatus::Suspended {
        assert_eq!(traffic, Some("suspended"), "{what}: whoever comes is told");
    }
}

/// The credentials in the project open the one login that there is.
fn credentials(server: &Server, tenant: &TenantRow, world: &State, what: &str) {
    let path = format!(".systemprompt/profiles/{}/secrets.json", tenant.id);
    let Some(database) = world.databases.get(tenant.id.as_str()) else {
        return;
    };
    if !server.house.path(&path).exists() {
        // They are fetched by the command that comes to the end of a creation.
        assert_eq!(
            tenant.status,
            TenantStatus::Failed,
            "{what}: credentials can be had"
        );
        return;
    }
    let secrets: serde_json::Value = serde_json::from_str(&server.house.read(&path)).expect("JSON");
    let url = secrets["database_url"].as_str().expect("a URL");
    let password = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .and_then(|(login, _)| login.split_once(':'))
        .map(|(_, password)| password)
        .expect("a password");
    let digest = hex::encode(Sha256::digest(password.as_bytes()));
    let logins: Vec<&String> = database.logins.values().map(|(digest, _)| digest).collect();
    assert_eq!(
        logins,
        [&digest],
        "{what}: one login, and it is the one in the project"
    );
}
