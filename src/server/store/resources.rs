//! Table `resources`: the ledger of every external resource that a tenant owns.

use crate::api::id::{OperationId, ResourceId, TenantId};
use crate::api::tenant::Resource;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// Which step, of which operation.
#[derive(Clone, Copy, Debug)]
pub struct MadeBy<'a> {
    /// The operation.
    pub operation: &'a OperationId,
    /// Its step.
    pub step: &'a str,
}

/// Writes that a resource is there. Called again it changes the state only.
///
/// # Errors
/// The database fails.
pub async fn put(
    tx: &mut Tx,
    id: &ResourceId,
    (tenant, by): (&TenantId, MadeBy<'_>),
    (kind, external_id): (&str, &str),
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO resources (id, tenant_id, kind, external_id, state, operation_id, step, created_at,
             updated_at)
         VALUES ($1, $2, $3, $4, 'present', $5, $6, $7, $7)
         ON CONFLICT (tenant_id, kind, external_id) DO UPDATE SET state = excluded.state,
             operation_id = excluded.operation_id, step = excluded.step, updated_at = excluded.updated_at",
        vec![
            id.as_str().into(),
            tenant.as_str().into(),
            kind.into(),
            external_id.into(),
            by.operation.as_str().into(),
            by.step.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
}

/// Writes that a step is about to make something of a kind. What is known of it stays as it is.
///
/// # Errors
/// The database fails.
pub async fn put_intended(
    tx: &mut Tx,
    id: &ResourceId,
    (tenant, by): (&TenantId, MadeBy<'_>),
    (kind, name): (&str, &str),
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO resources (id, tenant_id, kind, external_id, state, operation_id, step, created_at,
             updated_at)
         VALUES ($1, $2, $3, $4, 'intended', $5, $6, $7, $7)
         ON CONFLICT (tenant_id, kind, external_id) DO NOTHING",
        vec![
            id.as_str().into(),
            tenant.as_str().into(),
            kind.into(),
            name.into(),
            by.operation.as_str().into(),
            by.step.into(),
            now.into(),
        ],
    )
    .await?;
    Ok(())
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

/// Forgets what a step intended, once it is known what became of it.
///
/// # Errors
/// The database fails.
pub async fn forget_intended(tx: &mut Tx, tenant: &TenantId, by: MadeBy<'_>) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM resources
         WHERE tenant_id = $1 AND operation_id = $2 AND step = $3 AND state = 'intended'",
        vec![
            tenant.as_str().into(),
            by.operation.as_str().into(),
            by.step.into(),
        ],
    )
    .await?;
    Ok(())
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
