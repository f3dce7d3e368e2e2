//! Table `resources`: the ledger of every external resource that a tenant owns.

use crate::api::id::{OperationId, ResourceId, TenantId};
use crate::api::tenant::Resource;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// A line that is written.
#[derive(Clone, Debug)]
pub struct NewResource<'a> {
    /// Its own name, unless the ledger has the resource already.
    pub id: ResourceId,
    /// What it is.
    pub kind: &'a str,
    /// Its name where it is; of what is only intended, the name that it is going to be made under.
    pub external_id: &'a str,
    /// The step that makes it.
    pub step: &'a str,
}

/// Lines that stand in a JSON array, so that all of them are one round trip.
macro_rules! insert_lines {
    ($tx:expr, $state:literal, $conflict:literal) => {
        match $tx {
            Tx::Sqlite(_) => insert_lines!(
                from "(SELECT value ->> 'id' AS id, value ->> 'kind' AS kind, value ->> 'external_id' AS external_id,
                     value ->> 'step' AS step FROM json_each($3)) AS new",
                $state,
                $conflict
            ),
            Tx::Postgres(_) | Tx::Look(_) => insert_lines!(
                from "json_to_recordset($3::json) AS new (id text, kind text, external_id text, step text)",
                $state,
                $conflict
            ),
        }
    };
    (from $lines:literal, $state:literal, $conflict:literal) => {
        concat!(
            "INSERT INTO resources (id, tenant_id, kind, external_id, state, operation_id, step, created_at,
                 updated_at)
             SELECT new.id, $1, new.kind, new.external_id, '",
            $state,
            "', $2, new.step, $4, $4 FROM ",
            $lines,
            " WHERE true ON CONFLICT (tenant_id, kind, external_id) ",
            $conflict
        )
    };
}

/// Writes that resources are there. Called again it changes the state only.
///
/// # Errors
/// The database fails.
pub async fn put(
    tx: &mut Tx,
    whose: (&TenantId, &OperationId),
    new: &[NewResource<'_>],
    now: Time,
) -> Result<(), StoreError> {
    let sql = insert_lines!(
        tx,
        "present",
        "DO UPDATE SET state = excluded.state,
             operation_id = excluded.operation_id, step = excluded.step, updated_at = excluded.updated_at"
    );
    insert(tx, sql, whose, new, now).await
}

/// Writes that steps are about to make something. What is known of it stays as it is.
///
/// # Errors
/// The database fails.
pub async fn put_intended(
    tx: &mut Tx,
    whose: (&TenantId, &OperationId),
    new: &[NewResource<'_>],
    now: Time,
) -> Result<(), StoreError> {
    let sql = insert_lines!(tx, "intended", "DO NOTHING");
    insert(tx, sql, whose, new, now).await
}

async fn insert(
    tx: &mut Tx,
    sql: &'static str,
    (tenant, operation): (&TenantId, &OperationId),
    new: &[NewResource<'_>],
    now: Time,
) -> Result<(), StoreError> {
    // PostgreSQL does not change a line twice in one statement: of two that mean the same the first is written.
    let mut lines: Vec<&NewResource<'_>> = Vec::new();
    for line in new {
        let same =
            |other: &&NewResource<'_>| (other.kind, other.external_id) == (line.kind, line.external_id);
        if !lines.iter().any(same) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let json = lines.iter().map(|line| {
        serde_json::json!({
            "id": line.id, "kind": line.kind, "external_id": line.external_id, "step": line.step,
        })
    });
    let args = vec![
        tenant.as_str().into(),
        operation.as_str().into(),
        serde_json::Value::from_iter(json).to_string().into(),
        now.into(),
    ];
    tx.execute(sql, args).await.map(drop)
}

/// Writes that a resource is gone. One that the ledger does not know is left out.
///
/// # Errors
/// The database fails.
pub async fn set_removed(
    tx: &mut Tx,
    tenant: &TenantId,
    (kind, external_id): (&str, &str),
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE resources SET state = 'removed', updated_at = $4
         WHERE tenant_id = $1 AND kind = $2 AND external_id = $3 AND state <> 'removed'",
        vec![
            tenant.as_str().into(),
            kind.into(),
            external_id.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Writes that nothing of a kind is left.
///
/// # Errors
/// The database fails.
pub async fn set_kind_removed(
    tx: &mut Tx,
    tenant: &TenantId,
    kind: &str,
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE resources SET state = 'removed', updated_at = $3
         WHERE tenant_id = $1 AND kind = $2 AND state <> 'removed'",
        vec![tenant.as_str().into(), kind.into(), now.into()],
    )
    .await?;
    Ok(())
}

/// Forgets what steps intended, once it is known what became of it.
///
/// # Errors
/// The database fails.
pub async fn forget_intended(
    tx: &mut Tx,
    (tenant, operation): (&TenantId, &OperationId),
    steps: &[&str],
) -> Result<(), StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => {
            "DELETE FROM resources WHERE tenant_id = $1 AND operation_id = $2 AND state = 'intended'
                 AND step IN (SELECT value FROM json_each($3))"
        }
        Tx::Postgres(_) | Tx::Look(_) => {
            "DELETE FROM resources WHERE tenant_id = $1 AND operation_id = $2 AND state = 'intended'
                 AND step IN (SELECT json_array_elements_text($3::json))"
        }
    };
    let args = vec![
        tenant.as_str().into(),
        operation.as_str().into(),
        serde_json::json!(steps).to_string().into(),
    ];
    tx.execute(sql, args).await.map(drop)
}

/// The ledger of a tenant, in the order in which the plans have it: what is made side by side is there in any order.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(tx: &mut Tx, tenant: &TenantId) -> Result<Vec<Resource>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM resources WHERE tenant_id = $1 ORDER BY operation_id, (
             SELECT position FROM operation_steps WHERE operation_steps.operation_id = resources.operation_id
                 AND operation_steps.name = resources.step), id",
        vec![tenant.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

fn read(row: &Row) -> Result<Resource, StoreError> {
    Ok(Resource {
        id: row.parse("id")?,
        kind: row.text("kind")?,
        external_id: row.text("external_id")?,
        state: row.text("state")?,
        operation_id: row.parse("operation_id")?,
        step: row.text("step")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
