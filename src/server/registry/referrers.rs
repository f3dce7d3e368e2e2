//! Referrers: the manifests that speak of another one, as an index.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::api::id::TenantId;
use crate::server::registry::Inner;
use crate::server::registry::digest::Digest;
use crate::server::registry::document::{Descriptor, Document};
use crate::server::registry::error::RegistryError;
use crate::server::registry::http::{Call, answer};
use crate::server::registry::manifests;
use crate::server::registry::store::{Folder, Key, ObjectStore};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// `GET …/referrers/<digest>?artifactType=`: an empty list for what nobody speaks of, never 404.
pub(super) async fn list(gate: &Inner, call: &Call, subject: &Digest) -> Result<Response, RegistryError> {
    let (store, tenant) = (&*gate.store, &call.grant.tenant);
    let wanted = call.query.get("artifactType").filter(|kind| !kind.is_empty());
    let mut found = Vec::new();
    for name in store.list(tenant, &Folder::referrers(subject)).await? {
        let Ok(referrer) = name.replacen('-', ":", 1).parse::<Digest>() else {
            continue;
        };
        // The entry is written before its manifest, so there may be none behind it.
        if store.size(tenant, &Key::manifest(&referrer)).await?.is_none() {
            continue;
        }
        let entry = store.get(tenant, &Key::referrer(subject, &referrer)).await?;
        let entry = entry.and_then(|entry| serde_json::from_slice::<Descriptor>(&entry).ok());
        found.extend(entry.filter(|entry| wanted.is_none() || entry.artifact_type.as_deref() == wanted));
    }
    let mut headers = vec![(CONTENT_TYPE, INDEX.to_owned())];
    if wanted.is_some() {
        headers.push((OCI_FILTERS_APPLIED, "artifactType".to_owned()));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": found});
    Ok(answer(StatusCode::OK, headers, index.to_string()))
}

/// Takes a manifest that is about to go out of its subject's list.
pub(super) async fn forget(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    digest: &Digest,
) -> std::io::Result<()> {
    let Some(stored) = manifests::find(store, tenant, digest).await? else {
        return Ok(());
    };
    let document = Document::parse(&stored.bytes, Some(&stored.media_type)).ok();
    if let Some(subject) = document.and_then(|document| document.subject) {
        store.remove(tenant, &Key::referrer(&subject, digest)).await?;
    }
    Ok(())
}
