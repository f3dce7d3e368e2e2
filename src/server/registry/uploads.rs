//! Uploads: begun, continued in order, looked at, given up, and made a blob when the digest is right.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::Response;

use crate::api::id::TenantId;
use crate::api::registry::REPOSITORY;
use crate::server::registry::Inner;
use crate::server::registry::digest::{Algorithm, Digest};
use crate::server::registry::error::RegistryError;
use crate::server::registry::http::{CONTENT_DIGEST, Call, answer, stream};
use crate::server::registry::names::{UploadId, parse_digest};
use crate::server::registry::range::chunk;
use crate::server::registry::store::{Key, Part, UploadError};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST`: mounts what the namespace has already, takes a whole blob (`?digest=`), or begins an upload.
pub(super) async fn begin(gate: &Inner, call: &Call, body: Body) -> Result<Response, RegistryError> {
    if let Some(digest) = call.query.get("mount").map(parse_digest).transpose()? {
        // Without a source, or from another one, the blob might be found elsewhere: an ordinary upload tells nothing.
        let own = call.query.get("from") == Some(REPOSITORY);
        if own
            && gate
                .store
                .touch(&call.grant.tenant, &Key::blob(&digest), gate.clock.now())
                .await?
                .is_some()
        {
            return Ok(created(&digest));
        }
    }
    let digest = call.query.get("digest").map(parse_digest).transpose()?;
    let algorithm = match (&digest, call.query.get("digest-algorithm")) {
        (Some(digest), _) => digest.algorithm(),
        (None, Some(name)) => Algorithm::find(name).ok_or_else(RegistryError::digest_malformed)?,
        (None, None) => Algorithm::Sha256,
    };
    let id = new_upload(gate, &call.grant.tenant, algorithm).await?;
    match digest {
        Some(digest) => {
            let part = Part {
                offset: Some(0),
                length: None,
                body: stream(body),
            };
            let result = append_and_finish(gate, &call.grant.tenant, &id, part, &digest).await;
            if result.is_err() {
                // The client was never told the id, so nobody could go on with it.
                gate.store.cancel_upload(&call.grant.tenant, &id).await?;
            }
            result
        }
        None => Ok(progress(StatusCode::ACCEPTED, &id, 0)),
    }
}

/// `PATCH`: the next bytes, streamed or as a chunk that says where it belongs.
pub(super) async fn append(
    gate: &Inner,
    call: &Call,
    id: &UploadId,
    body: Body,
) -> Result<Response, RegistryError> {
    let part = part(call, body)?;
    match gate.store.append(&call.grant.tenant, id, part).await {
        Ok(length) => Ok(progress(StatusCode::ACCEPTED, id, length)),
        Err(error) => Err(refusal(gate, &call.grant.tenant, id, error).await),
    }
}

/// `PUT ?digest=`: the last bytes, if there are more, and the name of the whole.
pub(super) async fn finish(
    gate: &Inner,
    call: &Call,
    id: &UploadId,
    body: Body,
) -> Result<Response, RegistryError> {
    let digest = call.query.get("digest").map(parse_digest).transpose()?;
    let digest = digest.ok_or_else(RegistryError::digest_malformed)?;
    let part = part(call, body)?;
    append_and_finish(gate, &call.grant.tenant, id, part, &digest).await
}

/// `GET`: how far it is.
pub(super) async fn status(gate: &Inner, call: &Call, id: &UploadId) -> Result<Response, RegistryError> {
    match gate.store.upload_length(&call.grant.tenant, id).await? {
        Some(length) => Ok(progress(StatusCode::NO_CONTENT, id, length)),
        None => Err(RegistryError::upload_unknown()),
    }
}

/// `DELETE`: gives it up.
pub(super) async fn cancel(gate: &Inner, call: &Call, id: &UploadId) -> Result<Response, RegistryError> {
    match gate.store.cancel_upload(&call.grant.tenant, id).await? {
        true => Ok(answer(StatusCode::NO_CONTENT, [], ())),
        false => Err(RegistryError::upload_unknown()),
    }
}

async fn new_upload(
    gate: &Inner,
    tenant: &TenantId,
    algorithm: Algorithm,
) -> Result<UploadId, RegistryError> {
    // An id is only ever taken when a clock of a test counts anew over an old folder.
    for _ in 0..100 {
        let id = UploadId::new(gate.clock.uuid());
        if gate.store.begin_upload(tenant, &id, algorithm).await? {
            return Ok(id);
        }
    }
    Err(std::io::Error::other("no free upload id").into())
}

async fn append_and_finish(
    gate: &Inner,
    tenant: &TenantId,
    id: &UploadId,
    part: Part,
    digest: &Digest,
) -> Result<Response, RegistryError> {
    let result = match gate.store.append(tenant, id, part).await {
        Ok(_) => {
            gate.store
                .finish_upload(tenant, id, digest, gate.clock.now())
                .await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => Ok(created(digest)),
        Err(error) => Err(refusal(gate, tenant, id, error).await),
    }
}

fn part(call: &Call, body: Body) -> Result<Part, RegistryError> {
    let length = call
        .header(&CONTENT_LENGTH)
        .and_then(|text| text.parse::<u64>().ok());
    let range = match call.header(&CONTENT_RANGE) {
        Some(text) => Some(chunk(text).ok_or_else(RegistryError::size_invalid)?),
        None => None,
    };
    let (offset, length) = match (range, length) {
        (Some((first, last)), Some(length)) if last - first + 1 != length => {
            return Err(RegistryError::size_invalid());
        }
        (Some((first, last)), _) => (Some(first), Some(last - first + 1)),
        (None, _) => (None, None),
    };
    Ok(Part {
        offset,
        length,
        body: stream(body),
    })
}

fn location(id: &UploadId) -> String {
    format!("/v2/{REPOSITORY}/blobs/uploads/{}", id.as_str())
}

fn progress(status: StatusCode, id: &UploadId, length: u64) -> Response {
    let headers = [
        (LOCATION, location(id)),
        // There is no way to write "nothing yet"; clients know this one from the reference registry.
        (RANGE, format!("0-{}", length.saturating_sub(1))),
        (UPLOAD_ID, id.as_str().to_owned()),
    ];
    answer(status, headers, ())
}

fn created(digest: &Digest) -> Response {
    let headers = [
        (LOCATION, format!("/v2/{REPOSITORY}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
    ];
    answer(StatusCode::CREATED, headers, ())
}

async fn refusal(gate: &Inner, tenant: &TenantId, id: &UploadId, error: UploadError) -> RegistryError {
    let invalid = |status, why: &str| RegistryError::new(status, "BLOB_UPLOAD_INVALID", why);
    match error {
        UploadError::Unknown => RegistryError::upload_unknown(),
        UploadError::Digest => RegistryError::digest_invalid(),
        UploadError::Length => RegistryError::size_invalid(),
        UploadError::Store(error) => error.into(),
        UploadError::Client(_) => invalid(
            StatusCode::BAD_REQUEST,
            "the request's body broke off; what came is kept",
        ),
        UploadError::Busy => RegistryError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOOMANYREQUESTS",
            "another request is writing to this upload",
        )
        .with(RETRY_AFTER, "5"),
        UploadError::OutOfOrder => {
            let refusal = invalid(StatusCode::RANGE_NOT_SATISFIABLE, "the chunk is out of order");
            match gate.store.upload_length(tenant, id).await {
                Ok(Some(length)) => refusal
                    .with(LOCATION, &location(id))
                    .with(RANGE, &format!("0-{}", length.saturating_sub(1))),
                _ => RegistryError::upload_unknown(),
            }
        }
    }
}
