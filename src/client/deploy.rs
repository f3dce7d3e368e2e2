//! Deploys: push credentials, deploy, releases.

use reqwest::Method;

use crate::api::id::TenantId;
use crate::api::operation::Operation;
use crate::api::registry::RegistryToken;
use crate::api::release::{DeployRequest, Release, RollbackPlan, RollbackQuery, RollbackRequest};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// What a push needs, for minutes.
    pub async fn registry_token(&self, id: &TenantId) -> Result<RegistryToken, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}/registry-token")))
            .await
    }

    /// Asks for a deploy.
    pub async fn deploy(&self, id: &TenantId, request: &DeployRequest) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/tenants/{id}/deploy");
        self.call(Call::change(Method::POST, &path).json(request)?).await
    }

    /// Every release, newest first.
    pub async fn list_releases(&self, id: &TenantId) -> Result<Vec<Release>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/releases")).await
    }

    /// One release.
    pub async fn get_release(&self, id: &TenantId, number: u32) -> Result<Release, ClientError> {
        self.call(Call::get(&format!("/api/v1/tenants/{id}/releases/{number}")))
            .await
    }

    /// Keeps the image of a release whatever its age, or not any more.
    pub async fn pin_release(
        &self,
        id: &TenantId,
        number: u32,
        pinned: bool,
    ) -> Result<Release, ClientError> {
        let verb = if pinned { "pin" } else { "unpin" };
        let path = format!("/api/v1/tenants/{id}/releases/{number}/{verb}");
        self.call(Call::change(Method::POST, &path)).await
    }

    /// What going back would do.
    pub async fn rollback_plan(
        &self,
        id: &TenantId,
        release: Option<u32>,
    ) -> Result<RollbackPlan, ClientError> {
        let path = format!("/api/v1/tenants/{id}/rollback");
        self.call(Call::get(&path).query(&RollbackQuery { release })?)
            .await
    }

    /// Restores an earlier release.
    pub async fn rollback(&self, id: &TenantId, request: &RollbackRequest) -> Result<Operation, ClientError> {
        let path = format!("/api/v1/tenants/{id}/rollback");
        self.call(Call::change(Method::POST, &path).json(request)?).await
    }
}
