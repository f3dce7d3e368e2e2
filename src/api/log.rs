//! Log lines of a tenant: `GET /tenants/{id}/logs` answers one JSON object a line (`application/x-ndjson`),
//! with `follow` for as long as the caller stays; an empty line keeps the connection alive.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::time::Time;

/// The media type of a list of log lines.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// Where a line comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// Its releases.
    #[default]
    App,
    /// The commands that ran once before a release served.
    Release,
    /// The proxy in front of the tenant: a line for every request.
    Edge,
}

/// Which lines are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Keep the connection open for new lines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub follow: bool,
    /// Only lines after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Only lines after this number of the source; wins over `since` and `tail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only the last so many lines; 100 unless this or `since` is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Where from; `app` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<LogSource>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its number among the tenant's lines of this source, without gaps; the SSE `id`.
    pub seq: u64,
    /// When it was printed.
    pub at: Time,
    /// Where it comes from.
    pub source: LogSource,
    /// The release that printed it, if one did.
    pub release: Option<u32>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line without its end.
    pub line: String,
}
