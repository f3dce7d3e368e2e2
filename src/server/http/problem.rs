//! The kinds of problem that the API knows: one stable code, status and title each. `/docs` lists this table.

use axum::http::StatusCode;

/// One kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Stable, kebab-case.
    pub code: &'static str,
    /// The status of its answers.
    pub status: StatusCode,
    /// The same few words every time.
    pub title: &'static str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

macro_rules! kinds {
    ($($name:ident = $code:literal, $status:ident, $title:literal, $retryable:literal;)*) => {
        $(
            #[doc = $title]
            pub const $name: Kind = Kind {
                code: $code,
                status: StatusCode::$status,
                title: $title,
                retryable: $retryable,
            };
        )*

        /// Every kind, in the order of `/docs`.
        pub const ALL: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    INVALID_REQUEST = "invalid-request", BAD_REQUEST, "The request is not as it must be", false;
    IMAGE_MISMATCH = "image-mismatch", BAD_REQUEST, "The image is not the tenant's own", false;
    UNAUTHENTICATED = "unauthenticated", UNAUTHORIZED, "Not signed in", false;
    PAYMENT_REQUIRED = "payment-required", PAYMENT_REQUIRED, "Not paid for", false;
    PLAN_LIMIT = "plan-limit", PAYMENT_REQUIRED, "The plan does not allow it", false;
    FORBIDDEN = "forbidden", FORBIDDEN, "Not allowed", false;
    NOT_FOUND = "not-found", NOT_FOUND, "Not found", false;
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "The route has no such method", false;
    NAME_TAKEN = "name-taken", CONFLICT, "The name is taken", false;
    TENANT_BUSY = "tenant-busy", CONFLICT, "Another operation works on the tenant", true;
    TENANT_STATE = "tenant-state", CONFLICT, "The tenant is not in a state for this", false;
    OPERATION_STATE = "operation-state", CONFLICT, "The operation is not in a state for this", false;
    DIGEST_CHANGED = "digest-changed", CONFLICT, "The tag names another image now", false;
    NO_IMAGE = "no-image", CONFLICT, "There is no image to deploy", false;
    RELEASE_STATE = "release-state", CONFLICT, "The release is not in a state for this", false;
    RELEASE_COLLECTED = "release-collected", CONFLICT, "The image of the release is not kept any more", false;
    IRREVERSIBLE_MIGRATION = "irreversible-migration", CONFLICT, "A migration since then cannot be taken back", false;
    SECRETS_MISSING = "secrets-missing", CONFLICT, "The release would lack secrets", false;
    STILL_RUNNING = "still-running", CONFLICT, "The first request with this key is still running", true;
    CHECKOUT_CLOSED = "checkout-closed", CONFLICT, "The purchase is not open", false;
    ACCOUNT_EXISTS = "account-exists", CONFLICT, "The account exists", false;
    ALREADY_MEMBER = "already-member", CONFLICT, "They are a member of the tenant already", false;
    LAST_WAY_IN = "last-way-in", CONFLICT, "An account has a way in", false;
    LAST_OWNER = "last-owner", CONFLICT, "A tenant has an owner", false;
    BODY_TOO_LARGE = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large", false;
    WRONG_MEDIA_TYPE = "wrong-media-type", UNSUPPORTED_MEDIA_TYPE, "The body is not JSON", false;
    KEY_REUSED = "key-reused", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request", false;
    RATE_LIMITED = "rate-limited", TOO_MANY_REQUESTS, "Too many requests", true;
    CROWDED = "too-many-at-once", TOO_MANY_REQUESTS, "Too many at once", true;
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "The server failed", true;
    UNAVAILABLE = "unavailable", SERVICE_UNAVAILABLE, "A part of the server does not answer", true;
    TIMEOUT = "timeout", SERVICE_UNAVAILABLE, "The server took too long", true;
}

impl Kind {
    /// The `type` member: where the kind is described.
    #[must_use]
    pub fn uri(&self) -> String {
        if *self == RATE_LIMITED {
            // Registered with IANA by the RateLimit header fields draft.
            return "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned();
        }
        format!("/docs#{}", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_kebab_case() {
        let codes: BTreeSet<&str> = ALL.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        );
    }
}
