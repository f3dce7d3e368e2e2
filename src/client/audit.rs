//! The audit: pages of acts, and verifying their chain.

use crate::api::audit::{AuditEntry, AuditQuery, AuditVerdict, VerifyQuery};
use crate::api::id::TenantId;
use crate::api::page::Page;
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// One page of acts: of a tenant, or (for operators) of everything.
    pub async fn audit_page(
        &self,
        tenant: Option<&TenantId>,
        query: &AuditQuery,
    ) -> Result<Page<AuditEntry>, ClientError> {
        let path = match tenant {
            Some(id) => format!("/api/v1/tenants/{id}/audit"),
            None => "/api/v1/audit".to_owned(),
        };
        self.call(Call::get(&path).query(query)?).await
    }

    /// Has the server verify a stretch of the chain.
    pub async fn verify_audit(&self, after: Option<u64>) -> Result<AuditVerdict, ClientError> {
        let query = VerifyQuery { after };
        self.call(Call::get("/api/v1/audit/verify").query(&query)?).await
    }
}
