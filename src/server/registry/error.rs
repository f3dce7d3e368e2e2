//! Errors as OCI distribution writes them: a status, and a document with a code of the specification.

use std::io;

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::server::seats::Full;

/// A request that the gate refuses or cannot serve.
#[derive(Debug)]
pub(super) struct RegistryError {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl RegistryError {
    /// Any status with any code.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    /// With one more header; a value that cannot be a header is left out.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// 404: no such blob in the namespace.
    pub(super) fn blob_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    /// 404: no such upload in the namespace.
    pub(super) fn upload_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            "blob upload unknown to registry",
        )
    }

    /// 404: no such manifest in the namespace.
    pub(super) fn manifest_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "manifest unknown to registry",
        )
    }

    /// 400: a text that is no digest.
    pub(super) fn digest_malformed() -> Self {
        let why = "a digest is `sha256:` and 64, or `sha512:` and 128 lowercase hex digits";
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", why)
    }

    /// 400: not the digest of the content.
    pub(super) fn digest_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            "provided digest did not match uploaded content",
        )
    }

    /// 400: not a manifest that we take.
    pub(super) fn manifest_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why)
    }

    /// 400: content length and content range do not go together.
    pub(super) fn size_invalid() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "SIZE_INVALID",
            "provided length did not match content length",
        )
    }

    /// 404: only one repository exists.
    pub(super) fn name_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            "repository name not known to registry",
        )
    }

    /// 403: the credential does not reach so far, and no new token will.
    pub(super) fn denied(why: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", why)
    }

    /// 405: this cannot be done to that.
    pub(super) fn unsupported() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "the operation is unsupported",
        )
    }

    /// Too many requests write at once.
    pub(super) fn crowded(full: Full) -> Self {
        let what = match full {
            Full::Caller(room) => format!("{} {} run for this tenant already", room.each, room.name),
            Full::Server(room) => format!("the registry takes as many {} as it can", room.name),
        };
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", what).with(RETRY_AFTER, "5")
    }

    /// 507: there is no room; nothing half-written was kept.
    pub(super) fn full() -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "UNKNOWN",
            "the registry's disk is full; nothing of this request was kept",
        )
    }
}

/// Whether a write failed because there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl From<io::Error> for RegistryError {
    fn from(error: io::Error) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the registry's object store failed"
        );
        match is_full(&error) {
            true => Self::full(),
            false => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN",
                "the registry's object store failed; its server's log says why",
            ),
        }
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        let document = json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]});
        let mut response = (self.status, Json(document)).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
