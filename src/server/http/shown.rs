//! Rows in their wire form, and the answer to work that takes time.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::id::OperationId;
use crate::api::operation::Operation;
use crate::api::tenant::Tenant;
use crate::server::http::App;
use crate::server::store::operations::OperationRow;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx, operation_steps, operations};

impl App {
    /// A tenant in its wire form, without the one-time token of its credentials.
    #[must_use]
    pub fn shown_tenant(&self, row: TenantRow) -> Tenant {
        Tenant {
            hostname: self.provision.hostname(&row.label),
            url: self.provision.url(&row.label),
            id: row.id,
            name: row.name,
            status: row.status,
            owner_id: row.owner_id,
            plan: row.plan,
            region: row.region,
            provider: row.provider,
            memory_mb: row.memory_mb,
            database: row.database,
            current_release: row.current_release,
            sessions: row.edge_sessions,
            credentials_token: None,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// An operation with its steps in its wire form.
///
/// # Errors
/// The store fails.
pub async fn shown_operation(tx: &mut Tx, row: OperationRow) -> Result<Operation, StoreError> {
    let steps = operation_steps::list(tx, &row.id).await?;
    Ok(Operation {
        worker: row.worker(),
        events_after: row.events_after,
        id: row.id,
        tenant_id: row.tenant_id,
        kind: row.kind,
        status: row.status,
        steps: steps.iter().map(operation_steps::StepRow::shown).collect(),
        error: row.error,
        result: row.result,
        requested_by: row.requested_by,
        created_at: row.created_at,
        updated_at: row.updated_at,
        finished_at: row.finished_at,
    })
}

/// 202 with the operation and where it is followed.
pub struct Accepted(pub Operation);

impl Accepted {
    /// The operation that was just queued in this transaction.
    ///
    /// # Errors
    /// The store fails.
    pub async fn read(tx: &mut Tx, id: &OperationId) -> Result<Self, StoreError> {
        let row = operations::get(tx, id).await?;
        shown_operation(tx, row).await.map(Self)
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let location = format!("/api/v1/operations/{}", self.0.id);
        let mut response = (StatusCode::ACCEPTED, Json(self.0)).into_response();
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}
