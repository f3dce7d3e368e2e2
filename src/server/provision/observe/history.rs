//! What a tenant uses and how it answers, read from its blocks.

use std::collections::BTreeMap;

use crate::api::metrics::{History, Metrics, Point};
use crate::api::time::Time;
use crate::server::provision::Provision;
use crate::server::provision::observe::points::{self, Counts, Seen, as_float};
use crate::server::store::metric_blocks::{self, COARSE, FINE, Resolution};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx};

/// How far back "now" goes.
const WINDOW_SECONDS: u32 = 300;
/// A sample that is older says nothing of now.
const FRESH_SECONDS: i64 = 60;

impl Provision {
    /// What a tenant uses now, and how it has answered in the last minutes.
    ///
    /// # Errors
    /// The store fails.
    pub async fn metrics(&self, tenant: &TenantRow) -> Result<Metrics, StoreError> {
        let now = self.0.parts.clock.now();
        let from = now.plus_seconds(-i64::from(WINDOW_SECONDS));
        let mut tx = self.0.parts.store.begin_read().await?;
        let seen = read(&mut tx, tenant, (&FINE, from)).await?;
        let fresh = now.plus_seconds(-FRESH_SECONDS);
        let last = seen
            .iter()
            .rev()
            .find(|(at, seen)| **at >= fresh && seen.memory_bytes().is_some())
            .map(|(_, seen)| seen);
        let mut counts = Counts::default();
        for seen in seen.values() {
            counts.merge(&seen.counts);
        }
        Ok(Metrics {
            at: now,
            cpu_percent: last.and_then(Seen::cpu_percent),
            memory_bytes: last.and_then(Seen::memory_bytes),
            memory_limit_bytes: u64::from(tenant.memory_mb) * 1024 * 1024,
            window_seconds: WINDOW_SECONDS,
            requests: counts.shown(f64::from(WINDOW_SECONDS)),
        })
    }

    /// What was seen of a tenant in the last `seconds`, in steps of 15 seconds or of five minutes.
    ///
    /// # Errors
    /// The store fails.
    pub async fn metrics_history(
        &self,
        tenant: &TenantRow,
        (seconds, is_fine): (i64, bool),
    ) -> Result<History, StoreError> {
        let now = self.0.parts.clock.now();
        let resolution = if is_fine { FINE } else { COARSE };
        let step = resolution.step_seconds * 1000;
        // Whole steps: the one that runs now is among them.
        let to = Time::from_millis((now.as_millis().div_euclid(step) + 1) * step);
        let from = Time::from_millis((to.as_millis() - seconds * 1000).div_euclid(step) * step);
        let mut tx = self.0.parts.store.begin_read().await?;
        let mut seen = read(&mut tx, tenant, (&resolution, from)).await?;
        if !is_fine {
            add_unrolled(&mut tx, tenant, (&mut seen, from)).await?;
        }
        let step_seconds = u32::try_from(resolution.step_seconds).unwrap_or(u32::MAX);
        let length = as_float(u64::from(step_seconds));
        let points = seen.into_iter().map(|(at, seen)| Point {
            at,
            cpu_percent: seen.cpu_percent(),
            memory_bytes: seen.memory_bytes(),
            requests: seen.counts.shown(length),
        });
        Ok(History {
            step_seconds,
            from,
            to,
            points: points.collect(),
        })
    }
}

/// What the coarse blocks do not hold yet: the last minutes.
async fn add_unrolled(
    tx: &mut Tx,
    tenant: &TenantRow,
    (seen, from): (&mut BTreeMap<Time, Seen>, Time),
) -> Result<(), StoreError> {
    for block in metric_blocks::list_unrolled_of(tx, &tenant.id).await? {
        if block.starts_at >= from {
            let sum = seen.entry(block.starts_at).or_default();
            for fine in points::read(&block.points).values() {
                sum.merge(fine);
            }
        }
    }
    Ok(())
}

async fn read(
    tx: &mut Tx,
    tenant: &TenantRow,
    (resolution, from): (&Resolution, Time),
) -> Result<BTreeMap<Time, Seen>, StoreError> {
    let mut all = BTreeMap::new();
    for block in metric_blocks::list(tx, &tenant.id, (resolution, from)).await? {
        for (place, seen) in points::read(&block.points) {
            let at = block
                .starts_at
                .plus_seconds(i64::from(place) * resolution.step_seconds);
            if at >= from {
                all.insert(at, seen);
            }
        }
    }
    Ok(all)
}
