//! Receipts: what was looked for, and not found, when a tenant was deleted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::{OperationId, TenantId};
use crate::api::time::Time;

/// `GET /tenants/{id}/receipt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The tenant that was deleted.
    pub tenant_id: TenantId,
    /// Its last name.
    pub name: String,
    /// The operation that deleted it.
    pub operation_id: OperationId,
    /// Who asked for it.
    pub requested_by: String,
    /// When everything was seen to be absent.
    pub verified_at: Time,
    /// Every resource that the tenant ever owned, and what was found of it.
    pub resources: Vec<ReceiptLine>,
}

/// One resource on a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptLine {
    /// `network`, `volume`, `database`, `image`, `secret` …
    pub kind: String,
    /// What the provider called it.
    pub external_id: String,
    /// `absent`; or `expires`: a certificate in the edge's cache, of no use any more. A receipt is only written when
    /// nothing else is left.
    pub found: String,
    /// Who was asked: `provider`, `databases`, `registry`, `store`, `edge`.
    pub checked_with: String,
}
