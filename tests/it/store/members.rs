//! Members and doors for support: every tenant has its owner, also one that was there before members were, and a door
//! closes by itself.

use futures::FutureExt as _;
use systemprompt::api::id::{SupportGrantId, TenantId};
use systemprompt::api::member::{Role, SupportAccess, SupportGrant};
use systemprompt::api::time::Time;
use systemprompt::server::clock::Clock;
use systemprompt::server::store::{Store, Tx, members, support_grants};

use crate::store::Case;
use crate::store::cases::{NOW, tenant};

pub(crate) const ALL: &[Case] = &[
    ("a tenant is owned by whoever it is made for", |store| {
        first_owner(store).boxed()
    }),
    ("a tenant of before gets its owner", |store| {
        of_before(store).boxed()
    }),
    ("a door closes by itself", |store| doors(store).boxed()),
];

async fn role(store: &Store, row: &systemprompt::server::store::tenants::TenantRow) -> Option<Role> {
    let mut tx = store.begin_read().await.expect("begun");
    members::role_of(&mut tx, &row.id, &row.owner_id)
        .await
        .expect("read")
}

async fn first_owner(store: Store) {
    let row = tenant(&store, &Clock::system(), "one").await;
    assert_eq!(role(&store, &row).await, Some(Role::Owner));
    let mut tx = store.begin().await.expect("begun");
    let other = members::other_owner(&mut tx, &row.id, &row.owner_id).await;
    assert_eq!(other.expect("read"), None);
    let who = (&row.owner_id, Role::Viewer);
    members::put(&mut tx, &row.id, who, "bob@example.test", NOW)
        .await
        .expect("put");
    let all = members::list(&mut tx, &row.id).await.expect("listed");
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].role, all[0].email.as_str()),
        (Role::Viewer, "ada@example.test")
    );
    assert!(
        members::remove(&mut tx, &row.id, &row.owner_id)
            .await
            .expect("removed")
    );
    assert!(
        !members::remove(&mut tx, &row.id, &row.owner_id)
            .await
            .expect("removed")
    );
}

/// Takes the migration back, makes a tenant as a server of before has made it, and migrates again.
async fn of_before(store: Store) {
    let mut tx = store.begin().await.expect("begun");
    let trigger = match store {
        Store::Sqlite { .. } => "DROP TRIGGER tenants_have_an_owner",
        Store::Postgres(_) => "DROP FUNCTION tenant_gets_its_owner CASCADE",
    };
    for statement in [
        trigger,
        "DROP TABLE members",
        "DROP TABLE support_grants",
        "DELETE FROM _sqlx_migrations WHERE version = 8",
    ] {
        tx.execute(statement, vec![]).await.expect("taken back");
    }
    tx.commit().await.expect("committed");
    let row = tenant(&store, &Clock::system(), "old").await;
    store.migrate_up().await.expect("migrated");
    assert_eq!(role(&store, &row).await, Some(Role::Owner));
}

/// Opens a door of the tenant.
async fn opened(tx: &mut Tx, id: &TenantId, grant: (SupportGrantId, SupportAccess, i64)) -> SupportGrant {
    let (grant, access, seconds) = grant;
    let grant = SupportGrant {
        id: grant,
        access,
        open: true,
        opened_by: "ada@example.test".to_owned(),
        opened_at: NOW,
        expires_at: NOW.plus_seconds(seconds),
        closed_by: None,
        closed_at: None,
    };
    support_grants::open(tx, id, &grant).await.expect("opened");
    grant
}

async fn doors(store: Store) {
    let clock = Clock::system();
    let row = tenant(&store, &clock, "one").await;
    let other = tenant(&store, &clock, "other").await;
    let mut tx = store.begin().await.expect("begun");
    let mut made = Vec::new();
    for (access, seconds) in [
        (SupportAccess::Read, 600),
        (SupportAccess::Full, 120),
        (SupportAccess::Full, 60),
    ] {
        let id = SupportGrantId::new(clock.uuid());
        made.push(opened(&mut tx, &row.id, (id, access, seconds)).await);
    }
    let last = |seconds: i64| Time::from_millis(NOW.plus_seconds(seconds).as_millis() - 1);
    // The widest, then the longest; not a moment after its end.
    for (at, expected) in [
        (NOW, Some(1)),
        (last(120), Some(1)),
        (NOW.plus_seconds(120), Some(0)),
        (last(600), Some(0)),
        (NOW.plus_seconds(600), None),
    ] {
        let found = support_grants::find_open(&mut tx, &row.id, at)
            .await
            .expect("read");
        let expected: Option<usize> = expected;
        assert_eq!(
            found.map(|grant| grant.id),
            expected.map(|index| made[index].id.clone())
        );
    }
    let elsewhere = support_grants::find_open(&mut tx, &other.id, NOW)
        .await
        .expect("read");
    assert_eq!(elsewhere, None);
    // Closed by whoever has the tenant, once, and only while it is open.
    for (tenant, index, at, expected) in [
        (&other.id, 1, NOW, false),
        (&row.id, 1, NOW, true),
        (&row.id, 1, NOW, false),
        (&row.id, 0, NOW.plus_seconds(600), false),
    ] {
        let by = ("ada@example.test", at);
        let closed = support_grants::close(&mut tx, tenant, &made[index].id, by).await;
        assert_eq!(closed.expect("tried"), expected, "{tenant} {index}");
    }
    let listed = support_grants::list(&mut tx, &row.id, NOW).await.expect("listed");
    let open: Vec<bool> = listed.iter().map(|grant| grant.open).collect();
    assert_eq!(open.iter().filter(|open| **open).count(), 2);
}
