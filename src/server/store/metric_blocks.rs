//! Table `metric_blocks`: what tenants use, many points in a row.

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// A resolution in which points are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Seconds between two points.
    pub step_seconds: i64,
    /// Seconds that a block covers.
    pub block_seconds: i64,
    /// For how long blocks are kept.
    pub kept_seconds: i64,
}

/// Points of 15 s for an hour.
pub const FINE: Resolution = Resolution {
    step_seconds: 15,
    block_seconds: 300,
    kept_seconds: 3600,
};

/// Points of five minutes for 30 days.
pub const COARSE: Resolution = Resolution {
    step_seconds: 300,
    block_seconds: 86_400,
    kept_seconds: 30 * 86_400,
};

impl Resolution {
    /// The beginning of the block in which a time is, and its place there.
    #[must_use]
    pub const fn place(&self, at: Time) -> (Time, u32) {
        let block = self.block_seconds * 1000;
        let start = at.as_millis().div_euclid(block) * block;
        let slot = (at.as_millis() - start) / (self.step_seconds * 1000);
        (Time::from_millis(start), slot as u32)
    }
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whose.
    pub tenant: TenantId,
    /// When it begins.
    pub starts_at: Time,
    /// What it holds.
    pub points: String,
}

/// Adds to a block; answers whether its sum was taken before.
///
/// # Errors
/// The database fails.
pub async fn append(
    tx: &mut Tx,
    tenant: &TenantId,
    (resolution, starts_at): (&Resolution, Time),
    points: &str,
) -> Result<bool, StoreError> {
    let row = tx
        .fetch_optional(
            "INSERT INTO metric_blocks (tenant_id, step_seconds, starts_at, rolled, points)
             VALUES ($1, $2, $3, 0, $4)
             ON CONFLICT (tenant_id, step_seconds, starts_at)
             DO UPDATE SET points = metric_blocks.points || excluded.points
             RETURNING rolled",
            vec![
                tenant.as_str().into(),
                resolution.step_seconds.into(),
                starts_at.into(),
                points.into(),
            ],
        )
        .await?;
    row.map_or(Ok(false), |row| row.flag("rolled"))
}

/// The blocks of a tenant that end after `from`, in order.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(
    tx: &mut Tx,
    tenant: &TenantId,
    (resolution, from): (&Resolution, Time),
) -> Result<Vec<Block>, StoreError> {
    let first = from.plus_seconds(-resolution.block_seconds);
    tx.fetch_all(
        "SELECT tenant_id, starts_at, points FROM metric_blocks
         WHERE tenant_id = $1 AND step_seconds = $2 AND starts_at > $3 ORDER BY starts_at",
        vec![
            tenant.as_str().into(),
            resolution.step_seconds.into(),
            first.into(),
        ],
    )
    .await?
    .iter()
    .map(block)
    .collect()
}

/// Some fine blocks of any tenant that began before `before` and were not summed up yet.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_unrolled(tx: &mut Tx, before: Time, limit: u32) -> Result<Vec<Block>, StoreError> {
    tx.fetch_all(
        "SELECT tenant_id, starts_at, points FROM metric_blocks
         WHERE step_seconds = $1 AND rolled = 0 AND starts_at < $2 ORDER BY starts_at LIMIT $3",
        vec![FINE.step_seconds.into(), before.into(), limit.into()],
    )
    .await?
    .iter()
    .map(block)
    .collect()
}

/// The fine blocks of a tenant that were not summed up yet.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_unrolled_of(tx: &mut Tx, tenant: &TenantId) -> Result<Vec<Block>, StoreError> {
    tx.fetch_all(
        "SELECT tenant_id, starts_at, points FROM metric_blocks
         WHERE tenant_id = $1 AND step_seconds = $2 AND rolled = 0 ORDER BY starts_at",
        vec![tenant.as_str().into(), FINE.step_seconds.into()],
    )
    .await?
    .iter()
    .map(block)
    .collect()
}

/// Writes that the sum of a fine block was taken.
///
/// # Errors
/// The database fails.
pub async fn set_rolled(tx: &mut Tx, tenant: &TenantId, starts_at: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE metric_blocks SET rolled = 1 WHERE tenant_id = $1 AND step_seconds = $2 AND starts_at = $3",
        vec![tenant.as_str().into(), FINE.step_seconds.into(), starts_at.into()],
    )
    .await
    .map(drop)
}

/// Forgets blocks that ended too long ago.
///
/// # Errors
/// The database fails.
pub async fn delete_old(tx: &mut Tx, now: Time) -> Result<u64, StoreError> {
    let mut gone = 0;
    for resolution in [FINE, COARSE] {
        let cutoff = now.plus_seconds(-resolution.kept_seconds - resolution.block_seconds);
        gone += tx
            .execute(
                "DELETE FROM metric_blocks WHERE step_seconds = $1 AND rolled >= 0 AND starts_at < $2",
                vec![resolution.step_seconds.into(), cutoff.into()],
            )
            .await?;
    }
    Ok(gone)
}

/// Forgets everything of a tenant.
///
/// # Errors
/// The database fails.
pub async fn remove_all(tx: &mut Tx, tenant: &TenantId) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM metric_blocks WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await
    .map(drop)
}

fn block(row: &crate::server::store::row::Row) -> Result<Block, StoreError> {
    Ok(Block {
        tenant: row.parse("tenant_id")?,
        starts_at: row.time("starts_at")?,
        points: row.text("points")?,
    })
}
