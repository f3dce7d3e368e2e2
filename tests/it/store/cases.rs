//! Tenants, events, secrets, grants, releases, the ledger, and the schema itself.

use futures::FutureExt as _;
use systemprompt::api::id::{AccountId, OperationId, ResourceId, TenantId};
use systemprompt::api::release::{Release, ReleaseStatus, Strategy};
use systemprompt::api::tenant::TenantStatus;
use systemprompt::api::time::Time;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::accounts::{self, AccountRow};
use systemprompt::server::store::credential_grants::{self, GrantRow};
use systemprompt::server::store::events::{self, NewEvent};
use systemprompt::server::store::resources::{self, NewResource};
use systemprompt::server::store::secret_versions::{self, SecretRow, SecretScope};
use systemprompt::server::store::tenants::{self, TenantRow};
use systemprompt::server::store::{Store, StoreError, Tx, operations, releases, settings, tenant_lists};

use crate::sagas::rig::new_tenant;
use crate::store::Case;

pub(crate) const ALL: &[Case] = &[
    ("the schema knows what it is", |store| schema(store).boxed()),
    ("names and slots are given back", |store| {
        names_and_slots(store).boxed()
    }),
    ("states follow each other", |store| states(store).boxed()),
    ("lists go on where they stopped", |store| lists(store).boxed()),
    ("events have no gap", |store| events_have_no_gap(store).boxed()),
    ("what is not committed is not there", |store| {
        rolled_back(store).boxed()
    }),
    ("secrets have versions", |store| secrets(store).boxed()),
    ("a grant is good once", |store| grants(store).boxed()),
    ("releases are numbered", |store| numbered_releases(store).boxed()),
    ("the ledger forgets nothing", |store| ledger(store).boxed()),
];

pub(crate) const NOW: Time = Time::from_millis(1_763_700_000_000);

/// An account and a tenant of that name.
pub(crate) async fn tenant(store: &Store, clock: &Clock, name: &str) -> TenantRow {
    let mut tx = store.begin().await.expect("begun");
    let email = "ada@example.test";
    let owner = match accounts::find_by_email(&mut tx, email).await.expect("read") {
        Some(account) => account.id,
        None => {
            let account = AccountRow {
                id: AccountId::new(clock.uuid()),
                email: email.to_owned(),
                password_hash: None,
                operator: false,
                created_at: NOW,
            };
            accounts::create(&mut tx, &account).await.expect("account");
            account.id
        }
    };
    let new = new_tenant(&TenantId::new(clock.uuid()), name, &owner);
    let row = tenants::insert(&mut tx, &new, NOW).await.expect("tenant");
    tx.commit().await.expect("committed");
    row
}

async fn schema(store: Store) {
    let status = store.migrate_status().await.expect("status");
    assert!(status.iter().all(|line| line.known && line.applied_at.is_some()));
    let history = store.migrate_history().await.expect("history");
    assert_eq!(history.len(), status.len());
    assert!(
        history[0].applied_at.parse::<Time>().is_ok(),
        "{}",
        history[0].applied_at
    );
    store.migrate_check().await.expect("up to date");
    store.migrate_up().await.expect("again");

    let mut tx = store.begin().await.expect("begun");
    let rows = tx
        .execute(
            "UPDATE _sqlx_migrations SET version = 999 WHERE version = 1",
            vec![],
        )
        .await;
    assert_eq!(rows.expect("updated"), 1);
    tx.commit().await.expect("committed");
    store
        .check_not_newer()
        .await
        .expect("it leaves room for this program");
    let mut tx = store.begin().await.expect("begun");
    settings::put(&mut tx, "oldest-program", "999")
        .await
        .expect("set");
    tx.commit().await.expect("committed");
    for refused in [store.migrate_up().await, store.migrate_check().await] {
        let error = refused.expect_err("refused");
        assert!(
            matches!(
                error,
                StoreError::NewerSchema { version: 999, .. } | StoreError::OlderSchema { version: 1, .. }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("hint: "), "{error}");
    }
    let unknown = store.migrate_status().await.expect("status");
    assert_eq!(
        unknown.last().map(|line| (line.version, line.known)),
        Some((999, false))
    );
}

async fn names_and_slots(store: Store) {
    let clock = Clock::manual(NOW);
    let (one, two) = (
        tenant(&store, &clock, "one").await,
        tenant(&store, &clock, "two").await,
    );
    assert_eq!((one.network_slot, two.network_slot), (Some(0), Some(1)));
    let mut tx = store.begin().await.expect("begun");
    let again = new_tenant(&TenantId::new(clock.uuid()), "one", &one.owner_id);
    let refused = tenants::insert(&mut tx, &again, NOW).await;
    assert!(matches!(refused, Err(StoreError::Duplicate(_))));
    drop(tx);

    let mut tx = store.begin().await.expect("begun");
    tenants::rename(&mut tx, &one.id, &"first".parse().expect("name"), NOW)
        .await
        .expect("renamed");
    let label = tenants::find_by_live_name(&mut tx, &one.name)
        .await
        .expect("read");
    assert_eq!(
        label.map(|row| row.id),
        Some(one.id.clone()),
        "its label is still its own"
    );
    tenants::give_back_names(&mut tx, &one.id, NOW)
        .await
        .expect("given back");
    let refused = tenants::rename(&mut tx, &one.id, &"uno".parse().expect("name"), NOW).await;
    assert!(
        matches!(refused, Err(StoreError::Missing { .. })),
        "a deleted tenant has no name"
    );
    tx.commit().await.expect("committed");
    let third = tenant(&store, &clock, "one").await;
    assert_eq!(third.network_slot, Some(0), "the lowest free slot is taken again");
    assert_eq!(tenant(&store, &clock, "three").await.network_slot, Some(2));
}

async fn states(store: Store) {
    let row = tenant(&store, &Clock::manual(NOW), "one").await;
    let mut tx = store.begin().await.expect("begun");
    let refused = tenants::set_status(&mut tx, &row.id, TenantStatus::Running, NOW).await;
    assert!(matches!(
        refused,
        Err(StoreError::IllegalTransition { what: "tenant", .. })
    ));
    for status in [
        TenantStatus::Provisioning,
        TenantStatus::AwaitingDeploy,
        TenantStatus::Deploying,
        TenantStatus::Running,
        TenantStatus::Deleting,
        TenantStatus::Deleted,
    ] {
        tenants::set_status(&mut tx, &row.id, status, NOW)
            .await
            .expect("moved");
        assert_eq!(tenants::get(&mut tx, &row.id).await.expect("read").status, status);
    }
}

async fn lists(store: Store) {
    let clock = Clock::manual(NOW);
    let mut made = Vec::new();
    for name in ["one", "two", "three"] {
        made.push(tenant(&store, &clock, name).await);
    }
    let owner = made[0].owner_id.clone();
    let mut tx = store.begin_read().await.expect("begun");
    let first = tenant_lists::list_by_member(&mut tx, &owner, None, 2)
        .await
        .expect("listed");
    assert_eq!(first, made[..2]);
    let rest = tenant_lists::list_by_member(&mut tx, &owner, Some(&first[1].id), 2)
        .await
        .expect("listed");
    assert_eq!(rest, made[2..]);
    assert_eq!(
        tenants::count_by_plan(&mut tx, &owner, "free")
            .await
            .expect("counted"),
        3
    );
}

async fn events_have_no_gap(store: Store) {
    let row = tenant(&store, &Clock::manual(NOW), "one").await;
    let append = async |message: String| {
        let mut tx = store.begin().await.expect("begun");
        let event = NewEvent::new("app_created", message).with(serde_json::json!({ "n": 1 }));
        events::append(&mut tx, &row.id, None, &event, NOW)
            .await
            .expect("appended");
        tx.commit().await.expect("committed");
    };
    futures::future::join_all((0..20).map(|n| append(n.to_string()))).await;
    let mut tx = store.begin_read().await.expect("begun");
    let all = events::list_after(&mut tx, &row.id, 0, 100)
        .await
        .expect("listed");
    let numbers: Vec<u64> = all.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<u64>>());
    assert_eq!(all[0].status, "pending");
    assert_eq!(all[0].detail["n"], 1);
    let rest = events::list_after(&mut tx, &row.id, 15, 3).await.expect("listed");
    assert_eq!(
        rest.iter().map(|event| event.seq).collect::<Vec<_>>(),
        [16, 17, 18]
    );
    drop(tx);
    let several = ["a", "b", "c"]
        .map(|message| NewEvent::new("app_created", message).with(serde_json::json!({ "of": message })));
    let mut tx = store.begin().await.expect("begun");
    events::append_all(&mut tx, &row.id, None, &several, NOW)
        .await
        .expect("appended");
    tx.commit().await.expect("committed");
    let mut tx = store.begin_read().await.expect("begun");
    let told = events::list_after(&mut tx, &row.id, 20, 100)
        .await
        .expect("listed");
    let told: Vec<_> = told
        .iter()
        .map(|event| (event.seq, event.message.as_str(), &event.detail["of"]))
        .collect();
    let [a, b, c] = ["a", "b", "c"].map(serde_json::Value::from);
    assert_eq!(told, [(21, "a", &a), (22, "b", &b), (23, "c", &c)]);
}

async fn rolled_back(store: Store) {
    let row = tenant(&store, &Clock::manual(NOW), "one").await;
    let mut tx = store.begin().await.expect("begun");
    tenants::set_memory(&mut tx, &row.id, 2048, NOW)
        .await
        .expect("set");
    drop(tx);
    let mut tx = store.begin_read().await.expect("begun");
    assert_eq!(tenants::get(&mut tx, &row.id).await.expect("read").memory_mb, 256);
}

fn secret(key: &str, version: u32, value: Option<&str>) -> SecretRow {
    SecretRow {
        key: key.to_owned(),
        version,
        sealed_value: value.map(str::to_owned),
        digest: "0123456789ab".to_owned(),
        set_by: "ada".to_owned(),
        set_at: NOW,
    }
}

async fn secrets(store: Store) {
    let row = tenant(&store, &Clock::manual(NOW), "one").await;
    let (id, user) = (&row.id, SecretScope::User);
    let mut tx = store.begin().await.expect("begun");
    for new in [
        secret("B", 1, Some("x")),
        secret("A", 1, Some("x")),
        secret("A", 2, Some("y")),
        secret("C", 1, Some("x")),
        secret("C", 2, None),
    ] {
        secret_versions::insert(&mut tx, id, user, &new)
            .await
            .expect("inserted");
    }
    let other = secret("A", 9, Some("z"));
    secret_versions::insert(&mut tx, id, SecretScope::Platform, &other)
        .await
        .expect("inserted");
    let latest = secret_versions::list_latest(&mut tx, id, user)
        .await
        .expect("listed");
    let shown: Vec<(&str, u32)> = latest.iter().map(|row| (row.key.as_str(), row.version)).collect();
    assert_eq!(shown, [("A", 2), ("B", 1)], "removed ones are not there");
    let versions = secret_versions::list_versions(&mut tx, id, user, "C")
        .await
        .expect("listed");
    assert_eq!(versions.iter().map(|row| row.version).collect::<Vec<_>>(), [2, 1]);
    let old = secret_versions::find_version(&mut tx, id, user, ("A", 1))
        .await
        .expect("read");
    assert_eq!(old.expect("there").sealed_value.as_deref(), Some("x"));
    tx.commit().await.expect("committed");
    let mut tx = store.begin().await.expect("begun");
    let twice = secret_versions::insert(&mut tx, id, user, &secret("A", 2, Some("z"))).await;
    assert!(matches!(twice, Err(StoreError::Duplicate(_))));
}

async fn grants(store: Store) {
    let row = tenant(&store, &Clock::manual(NOW), "one").await;
    let grant = |hash: &str| GrantRow {
        token_hash: hash.to_owned(),
        sealed_token: "sealed".to_owned(),
        created_at: NOW,
        expires_at: NOW.plus_seconds(60),
    };
    let mut tx = store.begin().await.expect("begun");
    credential_grants::insert(&mut tx, &row.id, &grant("one"))
        .await
        .expect("inserted");
    credential_grants::insert(&mut tx, &row.id, &grant("two"))
        .await
        .expect("inserted");
    let open = credential_grants::find_open(&mut tx, &row.id, NOW)
        .await
        .expect("read");
    assert_eq!(
        open.expect("open").token_hash,
        "two",
        "a new one ends the old one"
    );
    let late = NOW.plus_seconds(60);
    assert!(
        credential_grants::find_open(&mut tx, &row.id, late)
            .await
            .expect("read")
            .is_none()
    );
    assert!(
        !credential_grants::confirm(&mut tx, &row.id, "one", NOW)
            .await
            .expect("written")
    );
    assert!(
        credential_grants::confirm(&mut tx, &row.id, "two", NOW)
            .await
            .expect("written")
    );
    assert!(
        !credential_grants::confirm(&mut tx, &row.id, "two", NOW)
            .await
            .expect("written")
    );
    assert!(
        credential_grants::find_open(&mut tx, &row.id, NOW)
            .await
            .expect("read")
            .is_none()
    );
}

async fn release(
    tx: &mut Tx,
    tenant: &TenantId,
    number: u32,
    operation: OperationId,
) -> Result<(), StoreError> {
    let new = Release {
        number,
        status: ReleaseStatus::Pending,
        digest: "sha256:aaaa".to_owned(),
        image: "image".to_owned(),
        fingerprint: None,
        memory_mb: 256,
        strategy: Strategy::Recreate,
        secret_versions: [("A".to_owned(), 2)].into(),
        environment: [("RUST_LOG".to_owned(), "info".to_owned())].into(),
        image_config: None,
        migrations: None,
        restores: (number > 1).then_some(1),
        pinned: false,
        collected_at: None,
        health_path: "/livez".to_owned(),
        release_command: vec!["migrate".to_owned()],
        message: None,
        created_by: "ada".to_owned(),
        operation_id: operation,
        created_at: NOW,
    };
    releases::insert(tx, tenant, &new).await
}

async fn numbered_releases(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let mut tx = store.begin().await.expect("begun");
    assert_eq!(releases::last_number(&mut tx, &row.id).await.expect("read"), 0);
    let operations: Vec<OperationId> = (0..2).map(|_| OperationId::new(clock.uuid())).collect();
    for (number, operation) in (1..).zip(&operations) {
        release(&mut tx, &row.id, number, operation.clone())
            .await
            .expect("inserted");
        releases::activate(&mut tx, &row.id, number, NOW)
            .await
            .expect("activated");
    }
    releases::set_machine(&mut tx, &row.id, 2, Some("m2"))
        .await
        .expect("set");
    let all = releases::list(&mut tx, &row.id, None, 10).await.expect("listed");
    let shown: Vec<(u32, ReleaseStatus)> = all
        .iter()
        .map(|row| (row.release.number, row.release.status))
        .collect();
    assert_eq!(
        shown,
        [(2, ReleaseStatus::Active), (1, ReleaseStatus::Superseded)]
    );
    assert_eq!(all[0].release.secret_versions.get("A"), Some(&2));
    assert_eq!(
        tenants::get(&mut tx, &row.id)
            .await
            .expect("read")
            .current_release,
        Some(2)
    );
    let found = releases::find_by_operation(&mut tx, &operations[0])
        .await
        .expect("read");
    assert_eq!(found.expect("there").release.number, 1);
    assert_eq!(
        releases::list_with_machine(&mut tx, &row.id)
            .await
            .expect("listed")
            .len(),
        1
    );
    tx.commit().await.expect("committed");
    let mut tx = store.begin().await.expect("begun");
    let twice = release(&mut tx, &row.id, 3, operations[1].clone()).await;
    assert!(
        matches!(twice, Err(StoreError::Duplicate(_))),
        "one release an operation"
    );
}

async fn ledger(store: Store) {
    let clock = Clock::manual(NOW);
    let row = tenant(&store, &clock, "one").await;
    let operation = OperationId::new(clock.uuid());
    let whose = (&row.id, &operation);
    let mut tx = store.begin().await.expect("begun");
    let fake = serde_json::json!({});
    operations::insert(
        &mut tx,
        (&operation, &row.id),
        ("create-tenant", &fake),
        "ada",
        NOW,
    )
    .await
    .expect("operation");
    let line = |external_id| NewResource {
        id: ResourceId::new(clock.uuid()),
        kind: "volume",
        external_id,
        step: "create-volume",
    };
    resources::put_intended(&mut tx, whose, &[line("one"), line("two")], NOW)
        .await
        .expect("put");
    resources::put(&mut tx, whose, &[line("sp-one")], NOW)
        .await
        .expect("put");
    resources::put(&mut tx, whose, &[line("sp-one"), line("sp-one")], NOW)
        .await
        .expect("put again");
    resources::put_intended(&mut tx, whose, &[line("sp-one")], NOW)
        .await
        .expect("put");
    resources::forget_intended(&mut tx, whose, &["create-app", "create-volume"])
        .await
        .expect("forgotten");
    let lines = resources::list(&mut tx, &row.id).await.expect("listed");
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0].external_id.as_str(), lines[0].state.as_str()),
        ("sp-one", "present")
    );
    resources::set_kind_removed(&mut tx, &row.id, "volume", NOW)
        .await
        .expect("removed");
    let lines = resources::list(&mut tx, &row.id).await.expect("listed");
    assert_eq!(lines[0].state, "removed", "the line stays");
}
