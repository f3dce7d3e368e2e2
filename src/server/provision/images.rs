//! Where images come from.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::api::id::TenantId;
use crate::api::release::ImageConfig;
use crate::server::providers::PullCredential;
use crate::server::registry::{Collected, Gate, GateAccess, GateError};

/// Where images come from: the gate, or a stand-in in tests.
#[async_trait]
pub trait Images: Send + Sync {
    /// Host and port, as an image reference begins.
    fn registry_host(&self) -> &str;
    /// What the tenant's image of that digest says of itself; `None` when there is none.
    async fn describe(&self, tenant: &TenantId, digest: &str) -> Result<Option<ImageConfig>, GateError>;
    /// A credential with which the provider may pull the tenant's images, for some minutes.
    fn pull_credential(&self, tenant: &TenantId) -> PullCredential;
    /// Removes what of the tenant's content is no part of the images of `keep` or of a push under way.
    async fn collect(
        &self,
        tenant: &TenantId,
        keep: &BTreeSet<String>,
        unused_for_seconds: i64,
    ) -> Result<Collected, GateError>;
    /// Whether anything of the tenant is left.
    async fn has_any(&self, tenant: &TenantId) -> Result<bool, GateError>;
    /// Removes everything of the tenant.
    async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), GateError>;
    /// Whether the object store works.
    async fn ping(&self) -> Result<(), GateError>;
}

/// A pull of a large image over a slow line must end within this.
const PULL_SECONDS: u32 = 1800;

#[async_trait]
impl Images for Gate {
    fn registry_host(&self) -> &str {
        Self::registry_host(self)
    }

    async fn describe(&self, tenant: &TenantId, digest: &str) -> Result<Option<ImageConfig>, GateError> {
        Self::describe(self, tenant, digest).await
    }

    fn pull_credential(&self, tenant: &TenantId) -> PullCredential {
        let (password, _) = self.mint(tenant, GateAccess::Pull, PULL_SECONDS);
        PullCredential {
            registry: Self::registry_host(self).to_owned(),
            username: "systemprompt".to_owned(),
            password,
        }
    }

    async fn collect(
        &self,
        tenant: &TenantId,
        keep: &BTreeSet<String>,
        unused_for_seconds: i64,
    ) -> Result<Collected, GateError> {
        Self::collect(self, tenant, keep, unused_for_seconds).await
    }

    async fn has_any(&self, tenant: &TenantId) -> Result<bool, GateError> {
        Self::has_any(self, tenant).await
    }

    async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), GateError> {
        Self::remove_tenant(self, tenant).await
    }

    async fn ping(&self) -> Result<(), GateError> {
        Self::ping(self).await
    }
}
