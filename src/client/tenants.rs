//! Tenants: list, look, change, remove.

use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::api::id::TenantId;
use crate::api::operation::Operation;
use crate::api::page::{MAX_LIMIT, Page, PageQuery};
use crate::api::secret::Credentials;
use crate::api::tenant::{EnvironmentEntry, Resource, RotateJwtSecret, Tenant, TenantPatch, TenantReport};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

/// Changes are answered by the tenant as it is at once, or by the operation that will make it so.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub enum Changed {
    /// Work was begun.
    Operation(Box<Operation>),
    /// It is done.
    Tenant(Box<Tenant>),
}

impl Client {
    /// Every tenant of the account.
    pub async fn list_tenants(&self) -> Result<Vec<Tenant>, ClientError> {
        self.all_pages("/api/v1/tenants").await
    }

    /// Every tenant of the server, for operators.
    pub async fn list_all_tenants(&self) -> Result<Vec<Tenant>, ClientError> {
        self.all_pages("/api/v1/operator/tenants").await
    }

    /// One tenant.
    pub async fn get_tenant(&self, id: &TenantId) -> Result<Tenant, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}"))).await
    }

    /// Every part of a tenant.
    pub async fn tenant_status(&self, id: &TenantId) -> Result<TenantReport, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}/status")))
            .await
    }

    /// Changes a tenant.
    pub async fn edit_tenant(&self, id: &TenantId, patch: &TenantPatch) -> Result<Changed, ClientError> {
        let path = format!("/api/v1/tenants/{id}");
        self.call(Call::change(Method::PATCH, &path).json(patch)?).await
    }

    /// Removes a tenant.
    pub async fn delete_tenant(&self, id: &TenantId) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/tenants/{id}");
        self.call(Call::change(Method::DELETE, &path)).await
    }

    /// Stops its compute and keeps its data.
    pub async fn suspend_tenant(&self, id: &TenantId) -> Result<Operation, ClientError> {
        self.act(id, "suspend").await
    }

    /// Starts it again.
    pub async fn activate_tenant(&self, id: &TenantId) -> Result<Operation, ClientError> {
        self.act(id, "activate").await
    }

    /// Replaces what runs by the same release.
    pub async fn restart_tenant(&self, id: &TenantId) -> Result<Operation, ClientError> {
        self.act(id, "restart").await
    }

    /// Takes up a failed creation again.
    pub async fn retry_provision(&self, id: &TenantId) -> Result<Operation, ClientError> {
        self.act(id, "retry-provision").await
    }

    /// Gives the tenant new database credentials.
    pub async fn rotate_credentials(&self, id: &TenantId) -> Result<Operation, ClientError> {
        self.act(id, "rotate-credentials").await
    }

    /// Gives the tenant another secret to sign its own tokens with.
    pub async fn rotate_jwt_secret(
        &self,
        id: &TenantId,
        rotation: &RotateJwtSecret,
    ) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/tenants/{id}/rotate-jwt-secret");
        self.call(Call::change(Method::POST, &path).json(rotation)?).await
    }

    /// Everything that the tenant owns, as the ledger has it.
    pub async fn list_resources(&self, id: &TenantId) -> Result<Vec<Resource>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/resources")).await
    }

    /// The tenant's environment, secrets masked.
    pub async fn list_environment(&self, id: &TenantId) -> Result<Vec<EnvironmentEntry>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/environment")).await
    }

    /// What is left of a deleted tenant.
    pub async fn get_receipt(&self, id: &TenantId) -> Result<serde_json::Value, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}/receipt")))
            .await
    }

    /// The one-time credentials; they stay there until confirmed.
    pub async fn get_credentials(&self, id: &TenantId, token: &str) -> Result<Credentials, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}/credentials/{token}")))
            .await
    }

    /// Says that the credentials are safely kept; the token ends.
    pub async fn confirm_credentials(&self, id: &TenantId, token: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/tenants/{id}/credentials/{token}/confirm");
        self.call::<serde::de::IgnoredAny>(Call::change(Method::POST, &path))
            .await
            .map(|_| ())
    }

    async fn act(&self, id: &TenantId, verb: &str) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/tenants/{id}/{verb}");
        self.call(Call::change(Method::POST, &path)).await
    }

    /// Reads a list to its end.
    pub(super) async fn all_pages<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut entries = Vec::new();
        let mut cursor = None;
        loop {
            let query = PageQuery {
                limit: Some(MAX_LIMIT),
                cursor,
            };
            let page: Page<T> = self.call(Call::get(path).query(&query)?).await?;
            entries.extend(page.data);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(entries),
            }
        }
    }
}
