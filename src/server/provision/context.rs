//! What the engine and its steps work with: the parts of the server, and the operation as it stands.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use crate::api::id::OperationId;
use crate::api::tenant::TenantStatus;
use crate::server::clock::Clock;
use crate::server::databases::{DatabaseError, TenantDatabases};
use crate::server::edge::{Edge, EdgeError};
use crate::server::providers::{Provider, ProviderError, TenantSpec};
use crate::server::provision::images::Images;
use crate::server::provision::secrets::SecretError;
use crate::server::registry::GateError;
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::StepRow;
use crate::server::store::operations::OperationRow;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Store, StoreError, Tx, operation_steps, operations, tenants};
use crate::server::vault::{Vault, VaultError};

/// How patient the engine is, and how much it does at once.
#[derive(Clone, Debug)]
pub struct ProvisionSettings {
    /// Who works: process and machine, as people are told.
    pub worker: String,
    /// Operations at once.
    pub workers: usize,
    /// For how long a worker that is not heard of keeps its operation.
    pub lease_seconds: i64,
    /// How often it is heard of.
    pub heartbeat: Duration,
    /// How often the table is looked at when nobody wakes the engine.
    pub poll: Duration,
    /// How often the ledger is compared with what the provider has.
    pub reconcile_every: Duration,
    /// The wait after the first failure of a step; it doubles.
    pub retry_first: Duration,
    /// The longest wait between two tries.
    pub retry_most: Duration,
    /// How often a step is tried.
    pub attempts: u32,
    /// For how long a release may take to get ready.
    pub ready_within: Duration,
    /// How often it is asked.
    pub probe_every: Duration,
    /// For how long a release command may run.
    pub release_command_within: Duration,
    /// For how long a machine may finish what it serves.
    pub grace: Duration,
    /// What runs before a release serves, where the deploy says nothing.
    pub release_command: Vec<String>,
    /// What is asked before a release serves, where the deploy says nothing.
    pub health_path: String,
    /// For how long a one-time grant is good.
    pub grant_seconds: i64,
    /// How many of the last releases keep their images in the registry.
    pub kept_releases: u32,
    /// How many images of each tenant stay where they run, so that going back needs no download.
    pub kept_pulled: usize,
    /// A push that was not heard of for so long is none any more, in seconds.
    pub push_rests_seconds: i64,
}

impl Default for ProvisionSettings {
    fn default() -> Self {
        Self {
            worker: format!("process {}", std::process::id()),
            workers: 8,
            lease_seconds: 20,
            heartbeat: Duration::from_secs(5),
            poll: Duration::from_secs(1),
            reconcile_every: Duration::from_secs(300),
            retry_first: Duration::from_millis(500),
            retry_most: Duration::from_secs(30),
            attempts: 10,
            ready_within: Duration::from_secs(60),
            probe_every: Duration::from_millis(250),
            release_command_within: Duration::from_secs(600),
            grace: Duration::from_secs(10),
            release_command: ["systemprompt", "services", "db", "migrate"]
                .map(str::to_owned)
                .to_vec(),
            health_path: "/api/v1/health".to_owned(),
            grant_seconds: 7 * 24 * 3600,
            kept_releases: 20,
            kept_pulled: 3,
            push_rests_seconds: 3 * 3600,
        }
    }
}

/// The parts of the server that provisioning works with.
#[derive(Clone)]
pub struct Parts {
    /// Rows.
    pub store: Store,
    /// Time, ids, chance.
    pub clock: Clock,
    /// Sealed values.
    pub vault: Vault,
    /// Images.
    pub images: Arc<dyn Images>,
    /// Tenant databases.
    pub databases: Arc<dyn TenantDatabases>,
    /// The proxy in front of tenants.
    pub edge: Arc<dyn Edge>,
    /// What runs tenants.
    pub provider: Arc<dyn Provider>,
    /// Patience and defaults.
    pub settings: ProvisionSettings,
}

/// An operation as it stands: its row, its tenant, its log.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// The operation.
    pub(super) operation: OperationRow,
    /// Its tenant.
    pub(super) tenant: TenantRow,
    /// Its steps in order.
    pub(super) steps: Vec<StepRow>,
}

impl Case {
    /// Reads an operation as it stands.
    pub(super) async fn load(store: &Store, id: &OperationId) -> Result<Self, StoreError> {
        let mut tx = store.begin_read().await?;
        Self::load_in(&mut tx, id).await
    }

    /// Reads an operation as it stands, in a transaction of the caller.
    pub(super) async fn load_in(tx: &mut Tx, id: &OperationId) -> Result<Self, StoreError> {
        let operation = operations::get(tx, id).await?;
        let tenant = tenants::get(tx, &operation.tenant_id).await?;
        let steps = operation_steps::list(tx, id).await?;
        Ok(Self {
            operation,
            tenant,
            steps,
        })
    }
}

/// What a step is given.
pub(super) struct StepContext<'a> {
    /// The parts of the server.
    pub(super) parts: &'a Parts,
    /// The operation as it stands.
    pub(super) case: &'a Case,
    /// Cancelled when the server stops: a step that waits gives up with [`StepError::Stopped`].
    pub(super) stop: &'a CancellationToken,
}

/// Why a step did not get done.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// The same step may work later.
    #[error("{what}")]
    Retry {
        /// What failed, for people.
        what: String,
        /// Not before.
        after: Option<Duration>,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The step will not work; what is done is to be taken back.
    #[error("{}", .0.message)]
    Fatal(#[source] Box<Failure>),
    /// The server stops; the step is run again by whoever comes next.
    #[error("stopped in the middle")]
    Stopped,
}

/// A failure that stays.
#[derive(Debug, Default, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    /// Stable, kebab-case.
    pub(super) code: String,
    /// What failed, for people; nothing secret.
    pub(super) message: String,
    /// The way out.
    pub(super) hint: Option<String>,
    /// The last lines of what failed.
    pub(super) log_tail: Vec<String>,
    /// What is told with it.
    pub(super) events: Vec<NewEvent>,
    /// Why.
    #[source]
    pub(super) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// A failure that stays.
    pub(super) fn fatal(code: &str, message: impl Into<String>) -> Self {
        Self::Fatal(Box::new(Failure {
            code: code.to_owned(),
            message: message.into(),
            ..Failure::default()
        }))
    }
}

impl Case {
    /// What the provider must know of the tenant.
    pub(super) fn spec(&self) -> Result<TenantSpec, StepError> {
        let network_slot = self.tenant.network_slot.ok_or_else(|| {
            StepError::fatal(
                "tenant-deleted",
                "failed to find the tenant's place in the address pool",
            )
        })?;
        Ok(TenantSpec {
            tenant_id: self.tenant.id.clone(),
            label: self.tenant.label.clone(),
            network_slot,
            region: self.tenant.region.clone(),
            operation_id: self.operation.id.clone(),
        })
    }

    /// One field of what a step of this operation answered, even if it was taken back since; `None` when it was not
    /// done.
    pub(super) fn output<T: DeserializeOwned>(&self, step: &str, field: &str) -> Option<T> {
        let row = self.steps.iter().find(|row| row.name == step)?;
        serde_json::from_value(row.output.get(field)?.clone()).ok()
    }

    /// One field of what was asked for.
    pub(super) fn param<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        serde_json::from_value(self.operation.params.get(field)?.clone()).ok()
    }

    /// The state of a tenant that is not being worked on: whether something serves.
    pub(super) const fn resting_status(&self) -> TenantStatus {
        match self.tenant.current_release {
            Some(_) => TenantStatus::Running,
            None => TenantStatus::AwaitingDeploy,
        }
    }

    /// The operation's params as a whole.
    pub(super) const fn params(&self) -> &Json {
        &self.operation.params
    }
}

impl From<ProviderError> for StepError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Retry { what, after, source } => Self::Retry { what, after, source },
            ProviderError::Fatal {
                code,
                what,
                hint,
                source,
            } => fatal(code, what, hint, source),
        }
    }
}

impl From<DatabaseError> for StepError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Retry { what, source } => retry(what, source),
            DatabaseError::Fatal {
                code,
                what,
                hint,
                source,
            } => fatal(code, what, hint, source),
        }
    }
}

impl From<EdgeError> for StepError {
    fn from(error: EdgeError) -> Self {
        match error {
            EdgeError::Retry { what, source } => retry(what, source),
            EdgeError::Fatal {
                code,
                what,
                hint,
                source,
            } => fatal(code, what, hint, source),
        }
    }
}

impl From<GateError> for StepError {
    fn from(error: GateError) -> Self {
        retry(error.to_string(), Some(Box::new(error)))
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        retry(
            "failed to use the server's own database".to_owned(),
            Some(Box::new(error)),
        )
    }
}

impl From<SecretError> for StepError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Store(error) => error.into(),
            SecretError::Vault(error) => error.into(),
            SecretError::Missing { .. } => {
                let hint = "set it again: `systemprompt secrets set`";
                fatal("secret-missing", error.to_string(), Some(hint.to_owned()), None)
            }
        }
    }
}

impl From<VaultError> for StepError {
    fn from(error: VaultError) -> Self {
        let hint = "the server's operator must restore its master key";
        let what = "failed to seal or open the tenant's secrets".to_owned();
        fatal(
            "secrets-unreadable",
            what,
            Some(hint.to_owned()),
            Some(Box::new(error)),
        )
    }
}

type Source = Option<Box<dyn std::error::Error + Send + Sync>>;

fn retry(what: String, source: Source) -> StepError {
    StepError::Retry {
        what,
        after: None,
        source,
    }
}

fn fatal(code: &str, message: String, hint: Option<String>, source: Source) -> StepError {
    StepError::Fatal(Box::new(Failure {
        code: code.to_owned(),
        message,
        hint,
        source,
        ..Failure::default()
    }))
}
