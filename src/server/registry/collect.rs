//! The collector: removes what no kept image is made of. It marks from the kept digests and the tags, then sweeps.
//!
//! A push under way relies on what it has uploaded and on what it has asked for: both are marked with the time, and what
//! is younger than the limit is kept as if something named it. See [`ObjectStore::touch`] for the two in one moment.

use std::collections::BTreeSet;
use std::io;

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::registry::Collected;
use crate::server::registry::digest::{Algorithm, Digest};
use crate::server::registry::document::{Child, Document};
use crate::server::registry::store::{Folder, Key, ObjectStore};
use crate::server::registry::{manifests, referrers};

/// Everything that something kept is made of.
#[derive(Default)]
struct Live {
    manifests: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
}

/// Removes everything in the namespace that is not part of `keep`, of a tag, or younger than `before`.
pub(super) async fn collect(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    (keep, before): (&BTreeSet<Digest>, Time),
) -> io::Result<Collected> {
    let there = list(store, tenant, Folder::manifests).await?;
    let mut live = Live::default();
    for digest in keep {
        live.mark(store, tenant, digest.clone()).await?;
    }
    for tag in store.list(tenant, &Folder::tags()).await? {
        if let Some(digest) = manifests::find_tag(store, tenant, &tag).await? {
            live.mark(store, tenant, digest).await?;
        }
    }
    for digest in &there {
        if store.used_since(tenant, &Key::manifest(digest), before).await? {
            live.mark(store, tenant, digest.clone()).await?;
        }
    }
    let mut gone = Collected::default();
    for digest in there {
        if live.manifests.contains(&digest) {
            continue;
        }
        // Its entry in a list of referrers goes first: such an entry may have nothing behind it.
        referrers::forget(store, tenant, &digest).await?;
        match store
            .remove_unused(tenant, &Key::manifest(&digest), before)
            .await?
        {
            Some(length) => {
                gone.manifests += 1;
                gone.bytes += length;
            }
            // Somebody asked for it meanwhile: it stays, with everything that it is made of.
            None => live.mark(store, tenant, digest).await?,
        }
    }
    for digest in list(store, tenant, Folder::blobs).await? {
        if live.blobs.contains(&digest) {
            continue;
        }
        if let Some(length) = store.remove_unused(tenant, &Key::blob(&digest), before).await? {
            gone.blobs += 1;
            gone.bytes += length;
        }
    }
    Ok(gone)
}

async fn list(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    folder: fn(Algorithm) -> Folder,
) -> io::Result<Vec<Digest>> {
    let mut all = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let names = store.list(tenant, &folder(algorithm)).await?;
        let digests = names
            .into_iter()
            .map(|hex| format!("{}:{hex}", algorithm.as_str()));
        all.extend(digests.filter_map(|text| text.parse::<Digest>().ok()));
    }
    Ok(all)
}

impl Live {
    /// A manifest, everything that it is made of, and everything that speaks of it (signatures, bills of material).
    async fn mark(&mut self, store: &dyn ObjectStore, tenant: &TenantId, digest: Digest) -> io::Result<()> {
        let mut open = vec![digest];
        while let Some(digest) = open.pop() {
            if !self.manifests.insert(digest.clone()) {
                continue;
            }
            for name in store.list(tenant, &Folder::referrers(&digest)).await? {
                open.extend(name.replacen('-', ":", 1).parse::<Digest>().ok());
            }
            let Some(stored) = manifests::find(store, tenant, &digest).await? else {
                continue;
            };
            let Ok(document) = Document::parse(&stored.bytes, Some(&stored.media_type)) else {
                continue;
            };
            for child in document.children {
                match child {
                    Child::Blob(digest) => {
                        self.blobs.insert(digest);
                    }
                    Child::Manifest(digest) => open.push(digest),
                }
            }
        }
        Ok(())
    }
}
