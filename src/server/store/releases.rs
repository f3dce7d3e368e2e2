//! Table `releases`: what ran, numbered v1, v2 … per tenant.

use crate::api::id::{OperationId, TenantId};
use crate::api::release::{MigrationMark, Release, ReleaseStatus, ReleaseSummary};
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

/// One row: the release and the machine that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRow {
    /// The release as it is shown.
    pub release: Release,
    /// The provider's name of its machine, once it was started.
    pub machine_id: Option<String>,
}

impl ReleaseRow {
    /// The release in one line.
    #[must_use]
    pub fn summary(&self) -> ReleaseSummary {
        ReleaseSummary {
            number: self.release.number,
            digest: self.release.digest.clone(),
            fingerprint: self.release.fingerprint.clone(),
            created_at: self.release.created_at,
        }
    }
}

/// Inserts a release.
///
/// # Errors
/// [`StoreError::Duplicate`]: the number is taken, or the operation has made a release already.
pub async fn insert(tx: &mut Tx, tenant: &TenantId, release: &Release) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO releases (tenant_id, number, status, digest, image, fingerprint, memory_mb,
             secret_versions, health_path, release_command, message, created_by, operation_id, machine_id,
             created_at, environment, image_config, migrations, restores, pinned, strategy)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, NULL, $14, $15, $16, $17, $18, $19,
             $20)",
        vec![
            tenant.as_str().into(),
            release.number.into(),
            word_of(&release.status).into(),
            release.digest.as_str().into(),
            release.image.as_str().into(),
            release.fingerprint.as_deref().into(),
            release.memory_mb.into(),
            serde_json::json!(release.secret_versions).to_string().into(),
            release.health_path.as_str().into(),
            serde_json::json!(release.release_command).to_string().into(),
            release.message.as_deref().into(),
            release.created_by.as_str().into(),
            release.operation_id.as_str().into(),
            release.created_at.into(),
            serde_json::json!(release.environment).to_string().into(),
            document(release.image_config.as_ref()).into(),
            document(release.migrations.as_ref()).into(),
            release.restores.map(i64::from).into(),
            release.pinned.into(),
            word_of(&release.strategy).into(),
        ],
    )
    .await?;
    Ok(())
}

fn document<T: serde::Serialize>(value: Option<&T>) -> Option<String> {
    value.map(|value| serde_json::json!(value).to_string())
}

/// The highest number so far; 0 before the first release.
///
/// # Errors
/// The database fails.
pub async fn last_number(tx: &mut Tx, tenant: &TenantId) -> Result<u32, StoreError> {
    tx.fetch_optional(
        "SELECT COALESCE(MAX(number), 0) AS last FROM releases WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await?
    .map_or(Ok(0), |row| row.u32("last"))
}

/// When the tenant's `nth` release from the newest on was made; `None` where it has fewer.
///
/// # Errors
/// The database fails.
pub async fn nth_newest_at(tx: &mut Tx, tenant: &TenantId, nth: u32) -> Result<Option<Time>, StoreError> {
    tx.fetch_optional(
        "SELECT created_at FROM releases WHERE tenant_id = $1 ORDER BY number DESC LIMIT 1 OFFSET $2",
        vec![tenant.as_str().into(), nth.saturating_sub(1).into()],
    )
    .await?
    .map(|row| row.time("created_at"))
    .transpose()
}

/// The release of that number.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find(tx: &mut Tx, tenant: &TenantId, number: u32) -> Result<Option<ReleaseRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM releases WHERE tenant_id = $1 AND number = $2",
        vec![tenant.as_str().into(), number.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The release that an operation made.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_by_operation(
    tx: &mut Tx,
    operation: &OperationId,
) -> Result<Option<ReleaseRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM releases WHERE operation_id = $1",
        vec![operation.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The tenant's releases before `before`, newest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(
    tx: &mut Tx,
    tenant: &TenantId,
    before: Option<u32>,
    limit: u32,
) -> Result<Vec<ReleaseRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM releases WHERE tenant_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        vec![
            tenant.as_str().into(),
            before.map_or(i64::MAX, i64::from).into(),
            limit.into(),
        ],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// The releases whose machine was started and not removed yet.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_with_machine(tx: &mut Tx, tenant: &TenantId) -> Result<Vec<ReleaseRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM releases WHERE tenant_id = $1 AND machine_id IS NOT NULL ORDER BY number",
        vec![tenant.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Says how a release stands.
///
/// # Errors
/// [`StoreError::Missing`]: there is no such release.
pub async fn set_status(
    tx: &mut Tx,
    tenant: &TenantId,
    number: u32,
    status: ReleaseStatus,
) -> Result<(), StoreError> {
    let rows = tx
        .execute(
            "UPDATE releases SET status = $3 WHERE tenant_id = $1 AND number = $2",
            vec![tenant.as_str().into(), number.into(), word_of(&status).into()],
        )
        .await?;
    changed_one(tenant, number, rows)
}

/// Says which machine runs a release.
///
/// # Errors
/// [`StoreError::Missing`]: there is no such release.
pub async fn set_machine(
    tx: &mut Tx,
    tenant: &TenantId,
    number: u32,
    machine_id: Option<&str>,
) -> Result<(), StoreError> {
    let rows = tx
        .execute(
            "UPDATE releases SET machine_id = $3 WHERE tenant_id = $1 AND number = $2",
            vec![tenant.as_str().into(), number.into(), machine_id.into()],
        )
        .await?;
    changed_one(tenant, number, rows)
}

/// Writes down what a release's command did.
///
/// # Errors
/// [`StoreError::Missing`]: there is no such release.
pub async fn set_migrations(
    tx: &mut Tx,
    tenant: &TenantId,
    number: u32,
    mark: &MigrationMark,
) -> Result<(), StoreError> {
    let rows = tx
        .execute(
            "UPDATE releases SET migrations = $3 WHERE tenant_id = $1 AND number = $2",
            vec![tenant.as_str().into(), number.into(), document(Some(mark)).into()],
        )
        .await?;
    changed_one(tenant, number, rows)
}

/// Says whether the image of a release is kept whatever its age.
///
/// # Errors
/// [`StoreError::Missing`]: there is no such release.
pub async fn set_pinned(tx: &mut Tx, tenant: &TenantId, number: u32, pinned: bool) -> Result<(), StoreError> {
    let rows = tx
        .execute(
            "UPDATE releases SET pinned = $3 WHERE tenant_id = $1 AND number = $2",
            vec![tenant.as_str().into(), number.into(), pinned.into()],
        )
        .await?;
    changed_one(tenant, number, rows)
}

/// Writes down that the image of a digest is not kept any more; no release of it can run again.
///
/// # Errors
/// The database fails.
pub async fn set_collected(
    tx: &mut Tx,
    tenant: &TenantId,
    digest: &str,
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE releases SET collected_at = $3
         WHERE tenant_id = $1 AND digest = $2 AND collected_at IS NULL",
        vec![tenant.as_str().into(), digest.into(), now.into()],
    )
    .await?;
    Ok(())
}

/// Takes back [`set_collected`]: the image of that digest is there again.
///
/// # Errors
/// The database fails.
pub async fn set_kept(tx: &mut Tx, tenant: &TenantId, digest: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE releases SET collected_at = NULL WHERE tenant_id = $1 AND digest = $2",
        vec![tenant.as_str().into(), digest.into()],
    )
    .await?;
    Ok(())
}

/// Every release of the tenant whose image is still kept, newest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_kept(tx: &mut Tx, tenant: &TenantId) -> Result<Vec<ReleaseRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM releases WHERE tenant_id = $1 AND collected_at IS NULL ORDER BY number DESC",
        vec![tenant.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// The releases after `number`, oldest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_after(tx: &mut Tx, tenant: &TenantId, number: u32) -> Result<Vec<ReleaseRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM releases WHERE tenant_id = $1 AND number > $2 ORDER BY number",
        vec![tenant.as_str().into(), number.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Makes `number` the one that serves: it becomes active, whatever was active is superseded.
///
/// # Errors
/// [`StoreError::Missing`]: there is no such release.
pub async fn activate(tx: &mut Tx, tenant: &TenantId, number: u32, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE releases SET status = 'superseded'
         WHERE tenant_id = $1 AND status = 'active' AND number <> $2",
        vec![tenant.as_str().into(), number.into()],
    )
    .await?;
    set_status(tx, tenant, number, ReleaseStatus::Active).await?;
    crate::server::store::tenants::set_current_release(tx, tenant, Some(number), now).await
}

fn changed_one(tenant: &TenantId, number: u32, rows: u64) -> Result<(), StoreError> {
    if rows == 1 {
        return Ok(());
    }
    Err(StoreError::Missing {
        what: "release",
        id: format!("{tenant}/v{number}"),
    })
}

fn read(row: &Row) -> Result<ReleaseRow, StoreError> {
    Ok(ReleaseRow {
        release: Release {
            number: row.u32("number")?,
            status: row.word("status")?,
            digest: row.text("digest")?,
            image: row.text("image")?,
            fingerprint: row.opt_text("fingerprint")?,
            memory_mb: row.u32("memory_mb")?,
            strategy: row.word("strategy")?,
            secret_versions: row.json("secret_versions")?,
            environment: row.opt_json("environment")?.unwrap_or_default(),
            image_config: row.opt_json("image_config")?,
            migrations: row.opt_json("migrations")?,
            restores: row.opt_u32("restores")?,
            pinned: row.flag("pinned")?,
            collected_at: row.opt_time("collected_at")?,
            health_path: row.text("health_path")?,
            release_command: row.json("release_command")?,
            message: row.opt_text("message")?,
            created_by: row.text("created_by")?,
            operation_id: row.parse("operation_id")?,
            created_at: row.time("created_at")?,
        },
        machine_id: row.opt_text("machine_id")?,
    })
}
