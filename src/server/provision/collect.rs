//! Which images are kept: in the registry those of the last releases and of pinned ones, where they run those to which
//! somebody goes back in a hurry. The composition root calls it now and then; several servers may.

use std::collections::BTreeSet;

use crate::api::id::TenantId;
use crate::api::registry::REPOSITORY;
use crate::api::release::{Release, ReleaseStatus};
use crate::server::providers::ProviderError;
use crate::server::provision::Provision;
use crate::server::provision::context::{Parts, ProvisionSettings};
use crate::server::registry::{Collected, GateError};
use crate::server::store::{StoreError, operations, releases, tenants};

/// Why images were not collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The store failed.
    #[error("failed to read or write which releases are kept")]
    Store(#[from] StoreError),
    /// The registry failed.
    #[error("failed to remove images from the registry")]
    Gate(#[from] GateError),
    /// What runs tenants failed.
    #[error("failed to remove images from where they ran")]
    Provider(#[from] ProviderError),
}

/// How many tenants are read at once.
const PAGE: u32 = 200;

impl Provision {
    /// Removes the images of releases that are too old to go back to; tenants that are worked on wait for the next time.
    ///
    /// # Errors
    /// The store, the registry or the provider fails; what was removed until then stays removed.
    pub async fn collect_images(&self) -> Result<(), CollectError> {
        let parts = &self.0.parts;
        // Listed first: what is pulled from now on is not looked at.
        let pulled = parts.provider.list_images(&repository(parts)).await?;
        let mut running = BTreeSet::new();
        let mut failed = None;
        let mut after = None;
        loop {
            let mut tx = parts.store.begin_read().await?;
            let page = tenants::list_ids(&mut tx, after.as_ref(), PAGE).await?;
            drop(tx);
            for tenant in &page {
                // What is wrong with one tenant's images is no reason to keep everybody else's.
                if let Err(error) = collect_tenant(parts, tenant).await {
                    tracing::warn!(%tenant, error = %error, "failed to collect a tenant's images");
                    failed = Some(error);
                }
                running.extend(needed(parts, tenant).await?);
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        let own = format!("{}@", repository(parts));
        for image in pulled {
            let digest = image.strip_prefix(&own).unwrap_or_default();
            if !running.contains(digest) {
                parts.provider.remove_image(&image).await?;
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn repository(parts: &Parts) -> String {
    format!("{}/{REPOSITORY}", parts.images.registry_host())
}

/// First it is written which releases cannot run again, then their content goes: a rollback never meets half an image.
async fn collect_tenant(parts: &Parts, tenant: &TenantId) -> Result<(), CollectError> {
    let mut tx = parts.store.begin().await?;
    let row = tenants::get_locked(&mut tx, tenant).await?;
    if operations::find_unfinished(&mut tx, tenant).await?.is_some() {
        return Ok(());
    }
    let last = releases::last_number(&mut tx, tenant).await?;
    let rows = releases::list_kept(&mut tx, tenant).await?;
    let all: Vec<Release> = rows.into_iter().map(|row| row.release).collect();
    let (keep, drop) = sorted(&all, (last, row.current_release), &parts.settings);
    let now = parts.clock.now();
    for digest in &drop {
        releases::set_collected(&mut tx, tenant, digest, now).await?;
    }
    tx.commit().await?;
    let Collected {
        manifests,
        blobs,
        bytes,
    } = parts
        .images
        .collect(tenant, &keep, parts.settings.push_rests_seconds)
        .await?;
    if manifests + blobs > 0 {
        tracing::info!(%tenant, manifests, blobs, bytes, "images of old releases were removed");
    }
    Ok(())
}

/// The digests that are kept, and those that are not. What runs is kept whatever its age.
fn sorted(
    all: &[Release],
    (last, current): (u32, Option<u32>),
    settings: &ProvisionSettings,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (kept, old): (Vec<&Release>, Vec<&Release>) = all.iter().partition(|release| {
        release.pinned || Some(release.number) == current || release.number + settings.kept_releases > last
    });
    let keep: BTreeSet<String> = kept.into_iter().map(|release| release.digest.clone()).collect();
    let drop = old
        .into_iter()
        .map(|release| release.digest.clone())
        .filter(|digest| !keep.contains(digest))
        .collect();
    (keep, drop)
}

/// The digests that stay where the tenant runs: what serves, what is on its way, and the last that served before.
async fn needed(parts: &Parts, tenant: &TenantId) -> Result<BTreeSet<String>, CollectError> {
    let mut tx = parts.store.begin_read().await?;
    let rows = releases::list(&mut tx, tenant, None, 100).await?;
    let current = tenants::get(&mut tx, tenant).await?.current_release;
    let busy = operations::find_unfinished(&mut tx, tenant).await?.is_some();
    let mut digests = BTreeSet::new();
    for release in rows.into_iter().map(|row| row.release) {
        let served = matches!(release.status, ReleaseStatus::Active | ReleaseStatus::Superseded);
        let is_needed = busy
            || Some(release.number) == current
            || release.status == ReleaseStatus::Pending
            || (served && digests.len() < parts.settings.kept_pulled);
        if is_needed {
            digests.insert(release.digest);
        }
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::sorted;
    use crate::api::id::OperationId;
    use crate::api::release::{Release, ReleaseStatus, Strategy};
    use crate::api::time::Time;
    use crate::server::provision::ProvisionSettings;

    fn release(number: u32, digest: &str, pinned: bool) -> Release {
        Release {
            number,
            status: ReleaseStatus::Superseded,
            digest: digest.to_owned(),
            image: String::new(),
            fingerprint: None,
            memory_mb: 256,
            strategy: Strategy::Rolling,
            secret_versions: [].into(),
            environment: [].into(),
            image_config: None,
            migrations: None,
            restores: None,
            pinned,
            collected_at: None,
            health_path: String::new(),
            release_command: Vec::new(),
            message: None,
            created_by: String::new(),
            operation_id: OperationId::new(uuid::Uuid::from_u128(u128::from(number))),
            created_at: Time::from_millis(0),
        }
    }

    #[test]
    fn the_last_the_pinned_and_what_serves_are_kept() {
        let settings = ProvisionSettings {
            kept_releases: 2,
            ..ProvisionSettings::default()
        };
        let all = [
            release(6, "f", false),
            release(5, "e", false),
            release(4, "d", false),
            release(3, "c", true),
            release(2, "b", false),
            // The same image as one of the last.
            release(1, "f", false),
        ];
        let (keep, drop) = sorted(&all, (6, Some(4)), &settings);
        assert_eq!(keep.into_iter().collect::<String>(), "cdef");
        assert_eq!(drop.into_iter().collect::<String>(), "b");
    }

    #[test]
    fn before_there_are_too_many_all_are_kept() {
        let all = [release(2, "b", false), release(1, "a", false)];
        let (keep, drop) = sorted(&all, (2, None), &ProvisionSettings::default());
        assert_eq!((keep.len(), drop.len()), (2, 0));
    }
}
