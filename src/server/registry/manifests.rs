//! Manifests: kept byte for byte, by digest and by tag. One is taken only when everything that it names is there.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use crate::api::id::TenantId;
use crate::api::registry::{Pushed, REPOSITORY};
use crate::server::registry::Inner;
use crate::server::registry::digest::{Algorithm, Digest};
use crate::server::registry::document::{Child, Document};
use crate::server::registry::error::RegistryError;
use crate::server::registry::grant::Action;
use crate::server::registry::http::{CONTENT_DIGEST, Call, answer, read_limited};
use crate::server::registry::names::{Reference, is_tag};
use crate::server::registry::store::{Folder, Key, ObjectStore};
use crate::server::registry::{ManifestInfo, image, referrers};

/// The largest manifest that is taken.
const LIMIT: usize = 4 * 1024 * 1024;
/// What is not there is looked for again after these times.
const LOOKS: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
];
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// A manifest as it is kept.
pub(super) struct Stored {
    /// As it was pushed.
    pub(super) media_type: String,
    /// Exactly the bytes that were pushed.
    pub(super) bytes: Bytes,
}

/// A manifest by its digest, if the namespace has it.
pub(super) async fn find(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    digest: &Digest,
) -> std::io::Result<Option<Stored>> {
    let Some(mut bytes) = store.get(tenant, &Key::manifest(digest)).await? else {
        return Ok(None);
    };
    // The media type stands on a line of its own before the bytes: one object, so both appear together.
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let head = bytes.split_to(end);
    if !bytes.is_empty() {
        let _ = bytes.split_to(1);
    }
    Ok(Some(Stored {
        media_type: String::from_utf8_lossy(&head).into_owned(),
        bytes,
    }))
}

/// What a tag points to, if the namespace has it.
pub(super) async fn find_tag(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    tag: &str,
) -> std::io::Result<Option<Digest>> {
    let text = store.get(tenant, &Key::tag(tag)).await?;
    Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok()))
}

/// What the rest of the server wants to know of a manifest.
pub(super) async fn info(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    digest: &Digest,
) -> std::io::Result<Option<ManifestInfo>> {
    let Some(stored) = find(store, tenant, digest).await? else {
        return Ok(None);
    };
    let own = stored.bytes.len() as u64;
    let size_bytes = match Document::parse(&stored.bytes, Some(&stored.media_type)) {
        Ok(document) => image::size(store, tenant, (&document, own)).await?,
        Err(_) => own,
    };
    Ok(Some(ManifestInfo {
        digest: digest.to_string(),
        size_bytes,
        media_type: stored.media_type,
    }))
}

/// `GET` and `HEAD`.
pub(super) async fn read(
    gate: &Inner,
    call: &Call,
    reference: &Reference,
) -> Result<Response, RegistryError> {
    let store = &*gate.store;
    let digest = match reference {
        Reference::Digest(digest) => Some(digest.clone()),
        Reference::Tag(tag) => find_tag(store, &call.grant.tenant, tag).await?,
    };
    let digest = digest.ok_or_else(RegistryError::manifest_unknown)?;
    if call.grant.allows(Action::Push) {
        // A push that finds it here will not send it again.
        let key = Key::manifest(&digest);
        store.touch(&call.grant.tenant, &key, gate.clock.now()).await?;
    }
    let stored = find(store, &call.grant.tenant, &digest)
        .await?
        .ok_or_else(RegistryError::manifest_unknown)?;
    let headers = [
        (CONTENT_TYPE, stored.media_type),
        (CONTENT_LENGTH, stored.bytes.len().to_string()),
        (ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    let body = if call.with_body() {
        stored.bytes
    } else {
        Bytes::new()
    };
    Ok(answer(StatusCode::OK, headers, body))
}

/// `PUT`.
pub(super) async fn write(
    gate: &Inner,
    call: &Call,
    reference: &Reference,
    body: Body,
) -> Result<Response, RegistryError> {
    let tags = tags_to_write(call, reference)?;
    let tenant = &call.grant.tenant;
    let content_type = call.header(&CONTENT_TYPE);
    let said = call
        .header(&CONTENT_LENGTH)
        .and_then(|text| text.parse::<usize>().ok());
    if said.is_some_and(|length| length > LIMIT) {
        return Err(too_large());
    }
    let bytes = read_limited(body, LIMIT)
        .await
        .map_err(|_| RegistryError::size_invalid())?;
    let bytes = bytes.ok_or_else(too_large)?;
    let digest = match reference {
        Reference::Digest(digest) => digest.clone(),
        Reference::Tag(_) => Digest::of(Algorithm::Sha256, &bytes),
    };
    if Digest::of(digest.algorithm(), &bytes) != digest {
        return Err(RegistryError::digest_invalid());
    }
    let document = Document::parse(&bytes, content_type)?;
    check_children(gate, tenant, &document).await?;
    let now = gate.clock.now();
    // In this order, so that nothing ever points to what is not there.
    if let Some(subject) = &document.subject {
        let entry = document.descriptor(&digest, bytes.len());
        gate.store
            .put(tenant, &Key::referrer(subject, &digest), entry, now)
            .await?;
    }
    let object = [document.media_type.as_bytes(), b"\n", &bytes].concat();
    let key = Key::manifest(&digest);
    gate.store.put(tenant, &key, object.into(), now).await?;
    for tag in &tags {
        gate.store
            .put(tenant, &Key::tag(tag), digest.to_string().into(), now)
            .await?;
    }
    tracing::info!(%tenant, %digest, ?tags, size_bytes = bytes.len(), "a manifest was pushed");
    let pushed = Pushed {
        tenant: tenant.clone(),
        digest: digest.to_string(),
        tags: tags.clone(),
    };
    let mut headers = vec![
        (LOCATION, format!("/v2/{REPOSITORY}/manifests/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    headers.extend(document.subject.map(|subject| (OCI_SUBJECT, subject.to_string())));
    if matches!(reference, Reference::Digest(_)) {
        headers.extend(tags.into_iter().map(|tag| (OCI_TAG, tag)));
    }
    let mut response = answer(StatusCode::CREATED, headers, ());
    response.extensions_mut().insert(pushed);
    Ok(response)
}

/// `DELETE`: a tag alone, or a manifest with the tags that point to it.
pub(super) async fn remove(
    gate: &Inner,
    call: &Call,
    reference: &Reference,
) -> Result<Response, RegistryError> {
    let (store, tenant) = (&*gate.store, &call.grant.tenant);
    let gone = match reference {
        Reference::Tag(tag) => store.remove(tenant, &Key::tag(tag)).await?,
        Reference::Digest(digest) => {
            for tag in store.list(tenant, &Folder::tags()).await? {
                if find_tag(store, tenant, &tag).await?.as_ref() == Some(digest) {
                    store.remove(tenant, &Key::tag(&tag)).await?;
                }
            }
            referrers::forget(store, tenant, digest).await?;
            store.remove(tenant, &Key::manifest(digest)).await?
        }
    };
    match gone {
        true => Ok(answer(StatusCode::ACCEPTED, [], ())),
        false => Err(RegistryError::manifest_unknown()),
    }
}

fn tags_to_write(call: &Call, reference: &Reference) -> Result<Vec<String>, RegistryError> {
    let mut tags: Vec<String> = match reference {
        Reference::Tag(tag) => vec![tag.clone()],
        Reference::Digest(_) => call.query.all("tag").map(str::to_owned).collect(),
    };
    tags.dedup();
    if tags.iter().any(|tag| !is_tag(tag)) {
        return Err(RegistryError::manifest_invalid(
            "a tag is 1 to 128 of a-z, A-Z, 0-9, `_`, `.` and `-`",
        ));
    }
    match tags.iter().find(|tag| !call.grant.may_write_tag(tag)) {
        Some(_) => Err(RegistryError::denied(format!(
            "this credential may only write the tag `{}`",
            crate::api::registry::tenant_tag(&call.grant.tenant)
        ))),
        None => Ok(tags),
    }
}

async fn check_children(gate: &Inner, tenant: &TenantId, document: &Document) -> Result<(), RegistryError> {
    for child in &document.children {
        if !is_there(gate, tenant, child).await? {
            let (Child::Blob(digest) | Child::Manifest(digest)) = child;
            let why = format!("`{digest}` is named by the manifest and unknown to the registry");
            return Err(RegistryError::new(
                StatusCode::NOT_FOUND,
                "MANIFEST_BLOB_UNKNOWN",
                why,
            ));
        }
    }
    Ok(())
}

/// Touched, not only looked for: from here on the collector leaves it to this manifest. One that the collector holds in
/// its hand at this moment comes back when it sees that it is needed.
async fn is_there(gate: &Inner, tenant: &TenantId, child: &Child) -> std::io::Result<bool> {
    let key = match child {
        Child::Blob(digest) => Key::blob(digest),
        Child::Manifest(digest) => Key::manifest(digest),
    };
    for pause in LOOKS {
        tokio::time::sleep(pause).await;
        if gate.store.touch(tenant, &key, gate.clock.now()).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn too_large() -> RegistryError {
    let why = "a manifest has at most 4 MiB";
    RegistryError::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", why)
}
