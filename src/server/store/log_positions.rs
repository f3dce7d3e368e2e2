//! Table `log_positions`: up to where the output of each machine is kept.

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// Where somebody left off, and what whoever goes on must know to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionRow<P> {
    /// Where.
    pub position: P,
    /// Raised at every write.
    pub revision: i64,
}

/// Where a machine's output was left off.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find<P: serde::de::DeserializeOwned>(
    tx: &mut Tx,
    machine: &str,
) -> Result<Option<PositionRow<P>>, StoreError> {
    let row = tx
        .fetch_optional(
            "SELECT position, revision FROM log_positions WHERE machine_id = $1",
            vec![machine.into()],
        )
        .await?;
    row.map(|row| {
        Ok(PositionRow {
            position: row.json("position")?,
            revision: row.int("revision")?,
        })
    })
    .transpose()
}

/// Moves the position on, unless somebody else has done so since `revision` was read: then `false`.
/// A machine of a tenant that is being deleted gets no first position.
///
/// # Errors
/// The database fails.
pub async fn advance(
    tx: &mut Tx,
    (machine, tenant): (&str, Option<&TenantId>),
    row: &PositionRow<String>,
    now: Time,
) -> Result<bool, StoreError> {
    if row.revision == 0 {
        let tenant = tenant.map_or("", TenantId::as_str);
        let made = tx
            .execute(
                "INSERT INTO log_positions (machine_id, tenant_id, position, revision, updated_at)
                 SELECT $1, $2, $3, 1, $4
                 WHERE $2 = '' OR EXISTS (SELECT 1 FROM tenants WHERE id = $2 AND status <> 'deleted')
                 ON CONFLICT (machine_id) DO NOTHING",
                vec![
                    machine.into(),
                    tenant.into(),
                    row.position.as_str().into(),
                    now.into(),
                ],
            )
            .await?;
        return Ok(made == 1);
    }
    let moved = tx
        .execute(
            "UPDATE log_positions SET position = $2, revision = revision + 1, updated_at = $4
             WHERE machine_id = $1 AND revision = $3",
            vec![
                machine.into(),
                row.position.as_str().into(),
                row.revision.into(),
                now.into(),
            ],
        )
        .await?;
    Ok(moved == 1)
}

/// Machines whose position has not moved since `before`.
///
/// # Errors
/// The database fails.
pub async fn list_still(tx: &mut Tx, before: Time) -> Result<Vec<String>, StoreError> {
    tx.fetch_all(
        "SELECT machine_id FROM log_positions WHERE updated_at < $1",
        vec![before.into()],
    )
    .await?
    .iter()
    .map(|row| row.text("machine_id"))
    .collect()
}

/// Forgets a machine that is gone.
///
/// # Errors
/// The database fails.
pub async fn remove(tx: &mut Tx, machine: &str) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM log_positions WHERE machine_id = $1",
        vec![machine.into()],
    )
    .await
    .map(drop)
}

/// Forgets every machine of a tenant.
///
/// # Errors
/// The database fails.
pub async fn remove_all(tx: &mut Tx, tenant: &TenantId) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM log_positions WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await
    .map(drop)
}
