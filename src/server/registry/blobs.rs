//! Blobs: read whole or in part, and remove.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use axum::response::{IntoResponse, Response};

use crate::server::registry::Inner;
use crate::server::registry::digest::Digest;
use crate::server::registry::error::RegistryError;
use crate::server::registry::grant::Action;
use crate::server::registry::http::{CONTENT_DIGEST, Call, answer};
use crate::server::registry::range::{Wanted, wanted};
use crate::server::registry::store::Key;

/// `GET` (with its bytes) and `HEAD` (without).
pub(super) async fn read(gate: &Inner, call: &Call, digest: &Digest) -> Result<Response, RegistryError> {
    let key = Key::blob(digest);
    let tenant = &call.grant.tenant;
    let found = match call.grant.allows(Action::Push) {
        // A push that finds it here will not send it again: the collector must know.
        true => gate.store.touch(tenant, &key, gate.clock.now()).await?,
        false => gate.store.size(tenant, &key).await?,
    };
    let size = found.ok_or_else(RegistryError::blob_unknown)?;
    let (status, first, length) = match wanted(range_of(call, digest), size) {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Wanted::Unsatisfiable => {
            let why = "the blob has no such bytes";
            return Err(
                RegistryError::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", why)
                    .with(CONTENT_RANGE, &format!("bytes */{size}")),
            );
        }
    };
    let body = match call.with_body() {
        true => Body::from_stream(gate.store.open(&call.grant.tenant, &key, first, length).await?),
        false => Body::empty(),
    };
    let mut headers = vec![
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, format!("\"{digest}\"")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        headers.push((
            CONTENT_RANGE,
            format!("bytes {first}-{}/{size}", first + length - 1),
        ));
    }
    Ok(answer(status, headers, body))
}

/// `DELETE`.
pub(super) async fn remove(gate: &Inner, call: &Call, digest: &Digest) -> Result<Response, RegistryError> {
    match gate.store.remove(&call.grant.tenant, &Key::blob(digest)).await? {
        true => Ok(StatusCode::ACCEPTED.into_response()),
        false => Err(RegistryError::blob_unknown()),
    }
}

fn range_of<'a>(call: &'a Call, digest: &Digest) -> Option<&'a str> {
    // What is named by its content never changes, but a client may ask with the tag of something else.
    match call.header(&IF_RANGE) {
        Some(tag) if tag != format!("\"{digest}\"") => None,
        _ => call.header(&RANGE),
    }
}
