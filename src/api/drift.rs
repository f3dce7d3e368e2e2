//! Drift: where what a provider has differs from what the ledger says.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::OperationId;
use crate::api::operation::Operation;

/// `POST /api/v1/reconcile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReconcileRequest {
    /// Look and report, change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was found, and what is done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReconcileReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Tenants that were looked at. Those with work under way are left to that work.
    pub tenants: u64,
    /// Every difference.
    pub drift: Vec<Drift>,
    /// The operations that mend it.
    pub operations: Vec<Operation>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drift {
    /// Whose, by its labels; it may be unknown to this server.
    pub tenant_id: String,
    /// Its name, where the server knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `network`, `volume`, `machine`, `command`, `route`, `database`.
    pub kind: String,
    /// What the provider calls it.
    pub external_id: String,
    /// `missing`: the ledger has it, the provider has not; `ended`: it does not run; `surplus`: it carries our labels
    /// and no ledger has it.
    pub found: String,
    /// `mend` (or, when nothing is to be changed, what would be mended), `report`: only people can say what is right.
    pub action: String,
    /// Why, or the way out.
    pub detail: String,
    /// The operation that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}
