//! Errors on the wire: RFC 9457 problem documents with a stable code and the next thing to do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of every error answer.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What failed, why, and what mends it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Identifies the kind of problem: `about:blank` or a URI reference that ends in the code.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The kind of problem in a few words, always the same for one code.
    pub title: String,
    /// The HTTP status of this answer.
    pub status: u16,
    /// What happened this time, for people.
    #[serde(default)]
    pub detail: String,
    /// Stable, kebab-case; what programs look at.
    #[serde(default)]
    pub code: String,
    /// The next command, or the field to mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Names this request in the server's log.
    #[serde(default)]
    pub request_id: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// One entry for every field that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One refused field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer to the field as a URI fragment (`#/name`).
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}
