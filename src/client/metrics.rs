//! What a tenant uses and how it answers.

use crate::api::id::TenantId;
use crate::api::metrics::{History, HistoryQuery, Metrics};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// What a tenant uses now.
    pub async fn get_metrics(&self, id: &TenantId) -> Result<Metrics, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}/metrics")))
            .await
    }

    /// What a tenant has used.
    pub async fn get_metrics_history(
        &self,
        id: &TenantId,
        query: &HistoryQuery,
    ) -> Result<History, ClientError> {
        let path = format!("/api/v1/tenants/{id}/metrics/history");
        self.call(Call::get(&path).query(query)?).await
    }
}
