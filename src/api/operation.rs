//! Operations: durable pieces of work on a tenant, and how they stand.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::{OperationId, TenantId};
use crate::api::time::Time;

/// How an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationStatus {
    /// Waits for a worker.
    Queued,
    /// A worker holds it.
    Running,
    /// Every step is done.
    Succeeded,
    /// It failed; what it had made is undone where that was possible.
    Failed,
    /// It failed and is taking back what it made.
    Undoing,
    /// It was taken back whole on request.
    Undone,
    /// It can go neither on nor back by itself; `retry` or `abandon` it.
    Stuck,
    /// Somebody gave it up; what is left is in the ledger.
    Abandoned,
}

impl OperationStatus {
    /// Whether nothing more will happen by itself.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Undone | Self::Abandoned
        )
    }
}

/// One durable piece of work on a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Names the operation.
    pub id: OperationId,
    /// The tenant it works on.
    pub tenant_id: TenantId,
    /// `create-tenant`, `deploy`, `delete-tenant` …
    pub kind: String,
    /// How it stands.
    pub status: OperationStatus,
    /// Its steps in order.
    pub steps: Vec<Step>,
    /// Why it failed or is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationError>,
    /// What it made, once it has succeeded (`{"release": 3, "url": "…"}`).
    #[serde(default)]
    pub result: serde_json::Value,
    /// Who asked for it.
    pub requested_by: String,
    /// Its own events are those after this number.
    #[serde(default)]
    pub events_after: u64,
    /// Who works on it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
    /// When it was asked for.
    pub created_at: Time,
    /// When its row last changed.
    pub updated_at: Time,
    /// When it reached a terminal status.
    pub finished_at: Option<Time>,
}

/// The process that works on an operation. It must renew its lease; when it does not, another one takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Process and machine.
    pub name: String,
    /// Since when it holds the operation.
    pub since: Time,
    /// Until when, unless it renews its lease.
    pub until: Time,
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Permanent, kebab-case.
    pub name: String,
    /// `waiting`, `running`, `done`, `failed`, `undone`.
    pub status: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The last failure of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why an operation failed, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationError {
    /// Stable, kebab-case.
    pub code: String,
    /// The step that failed.
    pub step: String,
    /// What happened, for people.
    pub message: String,
    /// The next command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last lines that the new release printed, where that is why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

/// An operation in one line, where it blocks or explains another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationSummary {
    /// Names the operation.
    pub id: OperationId,
    /// What it does.
    pub kind: String,
    /// How it stands.
    pub status: OperationStatus,
    /// Who asked for it.
    pub requested_by: String,
    /// Since when.
    pub created_at: Time,
    /// Who works on it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
}
