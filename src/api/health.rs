//! How the server is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /health`: every part that the server stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// Of the binary.
    pub version: String,
    /// The store: `ok` or what is wrong.
    pub database: String,
    /// What runs tenants.
    pub provider: String,
    /// The gate's object store.
    pub registry: String,
    /// The proxy in front of tenants.
    pub edge: String,
    /// The PostgreSQL server that tenants' databases are on.
    #[serde(default)]
    pub databases: String,
}

/// `GET /api/v1/jobs/health`: the queue of operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobsHealth {
    /// Operations that wait.
    pub queued: u64,
    /// Operations that a worker holds.
    pub running: u64,
    /// Operations that need a decision.
    pub stuck: u64,
    /// Age of the oldest that waits, in seconds.
    pub oldest_waiting_seconds: u64,
}
