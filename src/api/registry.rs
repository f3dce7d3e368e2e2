//! Push credentials of the gate.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::api::time::Time;

/// The repository that all tenants' images are pushed to; what one may see of it, its token decides.
pub const REPOSITORY: &str = "systemprompt-images";

/// The one tag that a tenant may write.
#[must_use]
pub fn tenant_tag(tenant: &TenantId) -> String {
    format!("tenant-{tenant}")
}

/// The one image reference that a tenant may deploy.
#[must_use]
pub fn tenant_image(registry: &str, tenant: &TenantId) -> String {
    format!("{registry}/{REPOSITORY}:{}", tenant_tag(tenant))
}

/// A manifest that was just pushed: rides on the answer to whoever records it, and does not go over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub digest: String,
    /// Under which tags.
    pub tags: Vec<String>,
}

/// `GET /tenants/{id}/registry-token`: what a push needs, for minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistryToken {
    /// Host and port of the registry, as an image reference begins.
    pub registry: String,
    /// Goes with the token where a user name is asked for.
    pub username: String,
    /// The password: may write one tag and that tenant's blobs.
    pub token: SecretText,
    /// Always `systemprompt-images`.
    pub repository: String,
    /// `tenant-{id}`.
    pub tag: String,
    /// When it ends.
    pub expires_at: Time,
}

impl RegistryToken {
    /// The reference to push to and to deploy.
    #[must_use]
    pub fn image(&self) -> String {
        format!("{}/{}:{}", self.registry, self.repository, self.tag)
    }
}
