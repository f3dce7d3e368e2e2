//! Releases and deploys: what ran, what runs, what is asked to run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::id::OperationId;
use crate::api::name::SecretKey;
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
    /// How the new release takes over; `rolling` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
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
    /// Keys that the running release has and this one may lack; any other loss is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_missing: Vec<SecretKey>,
}

/// `POST /tenants/{id}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The release to go back to; without it the newest one that served before and differs from the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
    /// Why, for the list of releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Go back even past migrations that say of themselves that they cannot be taken back.
    #[serde(default)]
    pub allow_irreversible: bool,
}

/// What a plan of a rollback is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RollbackQuery {
    /// The release to go back to; without it the newest one that served before and differs from the one that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
}

/// How a release takes over from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The new one starts beside the old one, and then takes its requests: nobody waits.
    #[default]
    Rolling,
    /// The old one ends before the new one starts, for a program that must have its volume for itself. Requests wait
    /// at the edge meanwhile.
    Recreate,
}

impl Strategy {
    /// As it is written in `config.yaml` and on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Recreate => "recreate",
        }
    }
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

/// What an image says about how it runs, and how large it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageConfig {
    /// What it runs on: `linux/amd64`.
    pub platform: String,
    /// What is started.
    pub entrypoint: Vec<String>,
    /// What is handed to it.
    pub command: Vec<String>,
    /// As whom it runs; empty where the image does not say.
    pub user: String,
    /// Where it runs.
    pub working_dir: String,
    /// Variables that are written into the image.
    pub environment: BTreeMap<String, String>,
    /// Configuration and layers, as they are downloaded.
    pub size_bytes: u64,
}

/// What a release's command did to the tenant's database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrationMark {
    /// Whether the command ended well; else what it had done until then stays.
    pub finished: bool,
    /// Whether it said what it did: a JSON object with `applied` at the end of its output.
    pub reported: bool,
    /// The migrations that it applied, in order.
    pub applied: Vec<String>,
    /// Those of them that say of themselves that they cannot be taken back.
    pub irreversible: Vec<String>,
    /// How many the database has now.
    pub total: Option<u32>,
}

/// What ran: digest, configuration, environment, secret versions, memory and migration mark.
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
    /// How it took over.
    pub strategy: Strategy,
    /// Version of every secret that it saw.
    pub secret_versions: BTreeMap<String, u32>,
    /// The platform's variables that it saw, without secrets; empty for releases of before they were kept.
    pub environment: BTreeMap<String, String>,
    /// What its image says; `null` where that was not kept.
    pub image_config: Option<ImageConfig>,
    /// What its release command did; `null` where none ran.
    pub migrations: Option<MigrationMark>,
    /// The earlier release that it restored, where it came by a rollback.
    pub restores: Option<u32>,
    /// Whether its image is kept whatever its age.
    pub pinned: bool,
    /// When its image was removed from the registry; it cannot run again since.
    pub collected_at: Option<Time>,
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

/// What a rollback would do: `GET /tenants/{id}/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RollbackPlan {
    /// The release that serves.
    pub from: u32,
    /// The release that would be restored, as a new one.
    pub to: u32,
    /// The release that would be restored.
    pub release: Release,
    /// What would be otherwise afterwards.
    pub differences: Vec<Difference>,
    /// Release commands that ran since; a rollback does not take back what they did.
    pub migrations: Vec<MigrationsOf>,
    /// What to think of before.
    pub warnings: Vec<String>,
    /// Why it cannot be done; empty when it can.
    pub refusals: Vec<Refusal>,
}

/// One thing that differs between two releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// What: `image`, `memory`, `secret A_KEY` …
    pub what: String,
    /// As it is now; `null` where it is not there.
    pub from: Option<String>,
    /// As it would be; `null` where it would not be there.
    pub to: Option<String>,
}

/// What a release's command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrationsOf {
    /// The release.
    pub release: u32,
    /// What its command did.
    pub mark: MigrationMark,
}

/// Why a rollback cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Stable, kebab-case.
    pub code: String,
    /// Why.
    pub detail: String,
    /// The way out.
    pub hint: String,
}
