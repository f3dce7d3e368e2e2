//! Operations: how work stands, and what to do when it stands still.

use reqwest::Method;

use crate::api::id::{OperationId, TenantId};
use crate::api::operation::Operation;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// One operation.
    pub async fn get_operation(&self, id: &OperationId) -> Result<Operation, ClientError> {
        self.call(Call::get(&format!("/api/v1/operations/{id}"))).await
    }

    /// Every operation of a tenant, newest first.
    pub async fn list_operations(&self, tenant: &TenantId) -> Result<Vec<Operation>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{tenant}/operations"))
            .await
    }

    /// Takes up a failed or stuck operation again.
    pub async fn retry_operation(&self, id: &OperationId) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/operations/{id}/retry");
        self.call(Call::change(Method::POST, &path)).await
    }

    /// Takes back what an operation has made so far.
    pub async fn cancel_operation(&self, id: &OperationId) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/operations/{id}/cancel");
        self.call(Call::change(Method::POST, &path)).await
    }

    /// Gives an operation up.
    pub async fn abandon_operation(&self, id: &OperationId) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/operations/{id}/abandon");
        self.call(Call::change(Method::POST, &path)).await
    }
}
