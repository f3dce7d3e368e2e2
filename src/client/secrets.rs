//! Secrets of a tenant: values go in and never come out.

use reqwest::Method;

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::secret::{RestoreSecret, Secret, SecretChange, SecretVersion, SetSecret, StageQuery};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// Every secret, without values.
    pub async fn list_secrets(&self, id: &TenantId) -> Result<Vec<Secret>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/secrets")).await
    }

    /// Sets a secret, new or not.
    pub async fn set_secret(
        &self,
        id: &TenantId,
        secret: &SetSecret,
        stage: bool,
    ) -> Result<SecretChange, ClientError> {
        let path = format!("/api/v1/tenants/{id}/secrets");
        let call = Call::change(Method::POST, &path).query(&StageQuery { stage })?;
        self.call(call.json(secret)?).await
    }

    /// Every value that a secret has had, newest first, without the values.
    pub async fn list_secret_versions(
        &self,
        id: &TenantId,
        key: &SecretKey,
    ) -> Result<Vec<SecretVersion>, ClientError> {
        self.all_pages(&format!("/api/v1/tenants/{id}/secrets/{key}/versions"))
            .await
    }

    /// Gives a secret the value of an earlier version again.
    pub async fn restore_secret(
        &self,
        id: &TenantId,
        key: &SecretKey,
        version: u32,
        stage: bool,
    ) -> Result<SecretChange, ClientError> {
        let path = format!("/api/v1/tenants/{id}/secrets/{key}/restore");
        let call = Call::change(Method::POST, &path).query(&StageQuery { stage })?;
        self.call(call.json(&RestoreSecret { version })?).await
    }

    /// Removes a secret.
    pub async fn unset_secret(
        &self,
        id: &TenantId,
        key: &SecretKey,
        stage: bool,
    ) -> Result<SecretChange, ClientError> {
        let path = format!("/api/v1/tenants/{id}/secrets/{key}");
        self.call(Call::change(Method::DELETE, &path).query(&StageQuery { stage })?)
            .await
    }
}
