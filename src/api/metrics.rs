//! What a tenant uses and how it answers: now, and in its history.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::time::Time;

/// `GET /tenants/{id}/metrics`: the last sample, and the requests of the last minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Metrics {
    /// When it was looked.
    pub at: Time,
    /// Processor time used, in percent of one processor; `null` while nothing runs.
    pub cpu_percent: Option<f64>,
    /// Memory in use; `null` while nothing runs.
    pub memory_bytes: Option<u64>,
    /// The most that it may use.
    pub memory_limit_bytes: u64,
    /// How many seconds `requests` covers.
    pub window_seconds: u32,
    /// The requests that the edge has answered in this time.
    pub requests: Requests,
}

/// Requests of some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Requests {
    /// How many.
    pub count: u64,
    /// How many a second, on average.
    pub per_second: f64,
    /// How they were answered.
    pub status: StatusClasses,
    /// How long the answers took; `null` without requests.
    pub latency: Option<Latency>,
}

/// How many answers of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusClasses {
    /// Whoever asked was gone before the answer, or 1xx.
    pub other: u64,
    /// Done.
    #[serde(rename = "2xx")]
    pub success: u64,
    /// Elsewhere, or not modified.
    #[serde(rename = "3xx")]
    pub redirect: u64,
    /// The request was wrong.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// The tenant, or the edge for it, failed.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// Within how many milliseconds a share of the requests was answered; read from a histogram, right within a fifth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Half of them.
    pub p50_ms: u64,
    /// 95 of 100.
    pub p95_ms: u64,
    /// 99 of 100.
    pub p99_ms: u64,
}

/// Which part of the history is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// How far back: `15m`, `1h`, `24h`, `30d` … or seconds; an hour unless told, 30 days at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// Seconds between two points: 15 (for the last hour) or 300; the finer one that there is unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
}

/// `GET /tenants/{id}/metrics/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Seconds between two points.
    pub step_seconds: u32,
    /// The time of the first point that could be there.
    pub from: Time,
    /// The time after the last.
    pub to: Time,
    /// In order; a time in which nothing was seen has no point.
    pub points: Vec<Point>,
}

/// What was seen in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// When the step began.
    pub at: Time,
    /// Processor time used, in percent of one processor, on average.
    pub cpu_percent: Option<f64>,
    /// The most memory in use.
    pub memory_bytes: Option<u64>,
    /// The requests that were answered.
    pub requests: Requests,
}
