//! Lists of tenants: in order, whole, and as cheap at their end as at their beginning.

use futures::FutureExt as _;
use systemprompt::api::id::{AccountId, TenantId};
use systemprompt::server::store::tenants::TenantRow;
use systemprompt::server::store::{Store, Tx, tenant_lists};

use crate::store::Case;
use crate::store::cases::NOW;

pub(crate) const ALL: &[Case] = &[
    ("pages of tenants end", |store| pages_end(store).boxed()),
    ("the last page looks at no more tenants than the first", |store| {
        far_pages(store).boxed()
    }),
];

const OWNERS: usize = 5;
const EACH: usize = 600;
const OWNER: usize = 2;

fn account() -> AccountId {
    format!("acc_{OWNER:026}").parse().expect("an id")
}

/// The owner's tenant of that place, from 0.
fn owned(place: usize) -> TenantId {
    let number = place * OWNERS + OWNER - 1;
    format!("ten_{number:026}").parse().expect("an id")
}

/// Accounts that own every fifth tenant each, the way they would be after years.
async fn filled(store: &Store) {
    let mut tx = store.begin().await.expect("begun");
    let (id, rows) = if tx.is_sqlite() {
        (
            "printf('%026d', n)",
            "(WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < COUNT) SELECT n FROM rows)",
        )
    } else {
        ("lpad(n::text, 26, '0')", "generate_series(1, COUNT) AS rows(n)")
    };
    let statements = [
        (
            OWNERS,
            "INSERT INTO accounts (id, email, operator, created_at)
             SELECT 'acc_' || ID, 'user-' || n || '@example.test', 0, 1 FROM ROWS",
        ),
        (
            OWNERS * EACH,
            "INSERT INTO tenants (id, name, live_name, live_label, label, owner_id, status, plan, region, provider,
                 memory_mb, database_kind, network_slot, login_slot, last_event_seq, created_at, updated_at)
             SELECT 'ten_' || ID, 'tenant-' || n, 'tenant-' || n, 'tenant-' || n, 'tenant-' || n,
                 (SELECT id FROM accounts WHERE email = 'user-' || (1 + n % 5) || '@example.test'),
                 'pending', 'starter', 'local', 'fake', 512, 'postgres', n, 'a', 0, 1, 1 FROM ROWS",
        ),
    ];
    for (count, sql) in statements {
        let rows = rows.replace("COUNT", &count.to_string());
        let sql = sql.replace("ID", id).replace("ROWS", &rows);
        tx.execute(sql.leak(), vec![]).await.expect("filled");
    }
    for table in ["ANALYZE tenants", "ANALYZE members"] {
        tx.execute(table, vec![]).await.expect("analyzed");
    }
    tx.commit().await.expect("committed");
}

fn ids(rows: &[TenantRow]) -> Vec<TenantId> {
    rows.iter().map(|row| row.id.clone()).collect()
}

async fn page(tx: &mut Tx, operator: bool, after: Option<&TenantId>, limit: u32) -> Vec<TenantId> {
    let rows = if operator {
        tenant_lists::list_by_operator(tx, &account(), NOW, (after, limit)).await
    } else {
        tenant_lists::list_by_member(tx, &account(), after, limit).await
    };
    ids(&rows.expect("listed"))
}

async fn pages_end(store: Store) {
    filled(&store).await;
    let mut tx = store.begin().await.expect("begun");
    let gone = [owned(1), owned(40), owned(EACH - 1)];
    for id in &gone {
        let sql = "UPDATE tenants SET status = 'deleted', live_name = NULL, live_label = NULL WHERE id = $1";
        assert_eq!(
            tx.execute(sql, vec![id.as_str().into()]).await.expect("deleted"),
            1
        );
    }
    let all: Vec<TenantId> = (0..EACH).map(owned).filter(|id| !gone.contains(id)).collect();
    for operator in [false, true] {
        for limit in [1, 50, 51, 101, 1000] {
            let mut seen = Vec::new();
            loop {
                let next = page(&mut tx, operator, seen.last(), limit).await;
                let short = next.len() < limit as usize;
                seen.extend(next);
                if short {
                    break;
                }
            }
            assert_eq!(seen, all, "operator {operator}, {limit} at a time");
        }
    }
}

/// PostgreSQL says how many rows a transaction has looked at. SQLite has no choice to make here: it joins by looking up.
async fn far_pages(store: Store) {
    if matches!(store, Store::Sqlite { .. }) {
        return;
    }
    filled(&store).await;
    let mut tx = store.begin().await.expect("begun");
    let looked = async |tx: &mut Tx| {
        let sql = "SELECT COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0) AS looked FROM pg_stat_xact_user_tables
             WHERE relname = 'tenants'";
        let row = tx.fetch_optional(sql, vec![]).await.expect("read");
        row.expect("a row").u64("looked").expect("a number")
    };
    for operator in [false, true] {
        for limit in [51, 21] {
            for after in [None, Some(owned(EACH / 2)), Some(owned(EACH - 60))] {
                // More often than it takes until the statement is planned once for all of them.
                for _ in 0..8 {
                    let before = looked(&mut tx).await;
                    let rows = page(&mut tx, operator, after.as_ref(), limit).await;
                    assert_eq!(rows.len(), limit as usize);
                    let looked = looked(&mut tx).await - before;
                    assert!(
                        looked <= 2 * u64::from(limit),
                        "{looked} tenants were looked at for {limit} after {after:?} (operator: {operator})"
                    );
                }
            }
        }
    }
}
