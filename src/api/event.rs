//! Events: the numbered lines of a tenant's history, replayed over SSE.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::id::{OperationId, TenantId};
use crate::api::time::Time;

/// One line of a tenant's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The tenant's own number, from 1 without gaps; the SSE `id`.
    pub seq: u64,
    /// Whose history it is.
    pub tenant_id: TenantId,
    /// The operation that wrote it, if one did.
    pub operation_id: Option<OperationId>,
    /// What happened: a name of the contract's table (`app_created` …); the SSE `event`.
    pub event: String,
    /// The tenant's status after it.
    pub status: String,
    /// For people.
    pub message: String,
    /// When it happened.
    pub at: Time,
    /// More, by event; never secret.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// From where to read a tenant's history.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events after this number; `Last-Event-ID` wins over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// 1 to 200 entries of the JSON list; ignored by the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}
