//! Releases and deploys: what ran, what runs, what is asked to run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::OperationId;
use crate::api::time::Time;

/// `POST /tenants/{id}/deploy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// The tenant's own image reference exactly, or `current`.
    pub image: String,
    /// The digest that the client pushed; the server refuses another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `rolling` (the default): new beside old, then switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Why, for the list of releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The fingerprint of the inputs that made the image, so that an unchanged tree need not be built again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Command that runs once before the release serves, instead of the image's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_command: Option<Vec<String>>,
    /// Path that answers 2xx once the release may serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
}

/// How a release stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    /// On its way.
    Pending,
    /// Serves.
    Active,
    /// Served before.
    Superseded,
    /// Never served.
    Failed,
}

/// What ran: digest, configuration, secret versions and migration mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// v1, v2 … of this tenant.
    pub number: u32,
    /// How it stands.
    pub status: ReleaseStatus,
    /// `sha256:…` of the image manifest.
    pub digest: String,
    /// The reference that was deployed.
    pub image: String,
    /// Fingerprint of the inputs, where the client sent one.
    pub fingerprint: Option<String>,
    /// Memory it ran with, in MB.
    pub memory_mb: u32,
    /// Version of every secret that it saw.
    pub secret_versions: std::collections::BTreeMap<String, u32>,
    /// Path that had to answer before it served.
    pub health_path: String,
    /// What ran once before it served.
    pub release_command: Vec<String>,
    /// Why, in the words of who deployed.
    pub message: Option<String>,
    /// Who deployed.
    pub created_by: String,
    /// The operation that brought it.
    pub operation_id: OperationId,
    /// When it was made.
    pub created_at: Time,
}

/// A release in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseSummary {
    /// v1, v2 … of this tenant.
    pub number: u32,
    /// `sha256:…` of the image manifest.
    pub digest: String,
    /// Fingerprint of the inputs, where the client sent one.
    pub fingerprint: Option<String>,
    /// When it was made.
    pub created_at: Time,
}
