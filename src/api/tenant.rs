//! Tenants: what they are, what state they are in, and what the owner may change.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::edge_session::EdgeSessions;
use crate::api::id::{AccountId, OperationId, ResourceId, TenantId};
use crate::api::name::TenantName;
use crate::api::operation::OperationSummary;
use crate::api::release::ReleaseSummary;
use crate::api::time::Time;

/// The memory sizes that a tenant may have, in MB.
pub const MEMORY_SIZES_MB: [u32; 4] = [256, 512, 1024, 2048];

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// Paid for, its first operation waits.
    Pending,
    /// Its infrastructure is being made.
    Provisioning,
    /// Everything is there but an image.
    AwaitingDeploy,
    /// A release is on its way; an older one may be serving.
    Deploying,
    /// A release serves.
    Running,
    /// Compute is stopped, data is kept.
    Suspended,
    /// Its last operation failed and nothing serves; `hint` of the operation says the way out.
    Failed,
    /// It is being removed.
    Deleting,
    /// Nothing of it is left but its receipt.
    Deleted,
}

/// Which database a tenant has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseKind {
    /// A database of its own in the installation's PostgreSQL cluster.
    #[default]
    Postgres,
    /// An encrypted file on its volume.
    Sqlite,
}

/// One customer project's isolated stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Names the tenant for ever.
    pub id: TenantId,
    /// Chosen by the owner, unique on the server.
    pub name: TenantName,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// Who pays for it: one of its owners.
    pub owner_id: AccountId,
    /// The plan it is on.
    pub plan: String,
    /// Where it runs.
    pub region: String,
    /// What runs it: `docker`, `kubernetes`, `fly`.
    pub provider: String,
    /// Memory of its machine, in MB.
    pub memory_mb: u32,
    /// Its database.
    pub database: DatabaseKind,
    /// Its name on the network; fixed when it is created.
    pub hostname: String,
    /// Where it answers once something serves.
    pub url: String,
    /// The release that serves, if one does.
    pub current_release: Option<u32>,
    /// Who is let in by the edge; absent where nobody is asked who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<EdgeSessions>,
    /// The one-time token for its credentials, until they are confirmed. Only its owner sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_token: Option<String>,
    /// When it was bought.
    pub created_at: Time,
    /// When its row last changed.
    pub updated_at: Time,
}

/// `PATCH /tenants/{id}`: what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantPatch {
    /// A new name; the hostname stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<TenantName>,
    /// 256, 512, 1024 or 2048; applied by a rolling restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Suspend or activate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WantedStatus>,
    /// Who is let in by the edge from now on; `{"who": "off"}` asks nobody any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<EdgeSessions>,
}

/// For how long the former secret is known if nothing is said: twice the life of the sample's tokens.
pub const JWT_OVERLAP_SECONDS: u32 = 7200;
/// The longest that it may be.
pub const LONGEST_JWT_OVERLAP_SECONDS: u32 = 30 * 24 * 3600;

/// `POST /tenants/{id}/rotate-jwt-secret`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateJwtSecret {
    /// For how long tokens that the former secret has signed are still good; 7200 if nothing is said, 0 ends them at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u32>,
    /// No other secret: the former one goes now, before its time.
    #[serde(default)]
    pub end_overlap: bool,
}

/// The two states that an owner may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WantedStatus {
    /// Stop compute, keep data.
    Suspended,
    /// Start it again.
    Active,
}

/// `GET /tenants/{id}/status`: every part of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantReport {
    /// The tenant itself.
    pub tenant: Tenant,
    /// What runs, as the provider sees it now.
    pub machine: Part,
    /// Its database.
    pub database: Part,
    /// The proxy in front of it.
    pub edge: Part,
    /// Its certificate.
    pub certificate: Part,
    /// The release that serves.
    pub release: Option<ReleaseSummary>,
    /// What is being done to it now.
    pub current_operation: Option<OperationSummary>,
}

/// The state of one part of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// `ok`, `absent`, `starting`, `unhealthy` or `unknown`.
    pub state: String,
    /// What was seen, for people.
    pub detail: String,
}

/// One line of the ledger: an external resource that the tenant owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Names the ledger line.
    pub id: ResourceId,
    /// `network`, `volume`, `database`, `role`, `route`, `certificate`, `machine`, `image` …
    pub kind: String,
    /// What the provider calls it.
    pub external_id: String,
    /// `intended` (about to be made), `present` or `removed`.
    pub state: String,
    /// The operation that made it.
    pub operation_id: OperationId,
    /// The step that made it.
    pub step: String,
    /// When the intent was written.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// One variable of the tenant's environment; values are never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvironmentEntry {
    /// Its name.
    pub name: String,
    /// `platform` or `secret`.
    pub source: String,
    /// The value with everything secret masked.
    pub value: String,
}
