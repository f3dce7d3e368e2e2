//! Places that run tenants. The trait speaks of apps, volumes and machines; each provider maps them to its own parts.
//!
//! Every method is idempotent and adopts: called again with the same spec it finds what it made before, by names
//! and labels that derive from the tenant id, and answers the same. Removing what is not there succeeds.
//! Providers never see the database.

pub mod docker;
pub mod fake;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::api::id::{OperationId, TenantId};
use crate::api::secret::SecretText;

/// Why a provider call failed, and whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It may work later: connection lost, busy, rate-limited, time-out. The effect may have happened.
    #[error("{what}")]
    Retry {
        /// What failed, for people; nothing secret.
        what: String,
        /// Wait at least this long.
        after: Option<Duration>,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It will not work until something is changed.
    #[error("{what}")]
    Fatal {
        /// Stable, kebab-case: `image-not-found`, `no-capacity`, `name-taken`, `engine-forbidden` …
        code: &'static str,
        /// What failed, for people; nothing secret.
        what: String,
        /// What mends it.
        hint: Option<String>,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// What a provider must know of a tenant to make its infrastructure.
#[derive(Clone, Debug)]
pub struct TenantSpec {
    /// Whose.
    pub tenant_id: TenantId,
    /// The DNS label under which the edge finds it.
    pub label: String,
    /// Its number in the installation's address pool: two small subnets are cut out for it.
    pub network_slot: u32,
    /// Where it shall run.
    pub region: String,
    /// The operation on whose behalf; goes into labels.
    pub operation_id: OperationId,
}

/// A resource that a provider made, as the ledger keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// `network`, `volume`, `route`, `machine`.
    pub kind: &'static str,
    /// The provider's own name for it.
    pub external_id: String,
}

/// A network of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantNetwork {
    /// Through which the tenant reaches its database.
    Private,
    /// Through which the edge reaches the tenant.
    Edge,
}

/// One process of a tenant: a release that serves, or a command that runs once.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The tenant it belongs to.
    pub tenant: TenantSpec,
    /// The release that it runs.
    pub release: u32,
    /// Repository with digest: `HOST/systemprompt-images@sha256:…`.
    pub image: String,
    /// Lets the provider pull that image, and only that.
    pub pull: PullCredential,
    /// Its whole environment. Secret values are among them.
    pub environment: BTreeMap<String, SecretText>,
    /// Memory limit in MB.
    pub memory_mb: u32,
    /// Port on which the release listens.
    pub port: u16,
    /// `None` runs the image's own command; `Some` replaces it (release command).
    pub command: Option<Vec<String>>,
}

/// User and password with which an image may be pulled, for minutes.
#[derive(Clone, Debug)]
pub struct PullCredential {
    /// Host and port of the registry.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Short-lived password.
    pub password: SecretText,
}

/// How a command that ran once ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutcome {
    /// The machine that it ran in; it stays, ended, until the release starts or goes.
    pub machine_id: String,
    /// Its exit code.
    pub exit_code: i64,
    /// Its last lines, both streams, at most 100.
    pub log_tail: Vec<String>,
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// Nothing of that name.
    Absent,
    /// Its process runs; whether it is ready, [`Provider::probe`] says.
    Running,
    /// Its process ended.
    Exited {
        /// Its exit code.
        exit_code: i64,
        /// Whether it was killed for its memory.
        out_of_memory: bool,
    },
}

/// Something that prints: a machine of a release, or a command that runs once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printer {
    /// Its id.
    pub machine_id: String,
    /// Whose.
    pub tenant_id: TenantId,
    /// The release that it runs.
    pub release: u32,
    /// Whether it is a release command.
    pub is_command: bool,
    /// Whether its process runs.
    pub is_running: bool,
}

/// What a machine uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was started, in microseconds.
    pub cpu_micros: u64,
    /// Memory in use, without what the kernel would give back at once.
    pub memory_bytes: u64,
    /// The most that it may use.
    pub memory_limit_bytes: u64,
}

/// Which lines of a machine's output are wanted.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Keep the stream open for new lines.
    pub follow: bool,
    /// Only lines after this time, in seconds since the epoch.
    pub since_seconds: Option<i64>,
    /// Only the last so many.
    pub tail: Option<u32>,
}

/// One line that a machine printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When, RFC 3339.
    pub at: String,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The line without its end, or a piece of it.
    pub line: String,
    /// Whether the line ends here; if not, the next one of its stream goes on with it.
    pub is_whole: bool,
}

/// A place that runs tenants.
#[async_trait]
pub trait Provider: Send + Sync {
    /// `docker`, `kubernetes`, `fly`, `fake`.
    fn name(&self) -> &'static str;

    /// Whether the provider answers; text for `/health`.
    ///
    /// # Errors
    /// It does not.
    async fn ping(&self) -> Result<String, ProviderError>;

    /// Makes what holds a tenant together (Docker: its private network and its edge network).
    async fn create_app(&self, spec: &TenantSpec) -> Result<Vec<Made>, ProviderError> {
        // Both are waited for, also when one fails: nothing is still being made when its undo begins.
        let (private, edge) = futures::join!(
            self.create_network(spec, TenantNetwork::Private),
            self.create_network(spec, TenantNetwork::Edge),
        );
        Ok([private?, edge?].into_iter().flatten().collect())
    }
    /// Makes one of its networks; `None` where the provider has no such thing.
    async fn create_network(
        &self,
        spec: &TenantSpec,
        network: TenantNetwork,
    ) -> Result<Option<Made>, ProviderError>;
    /// Removes it; fails while machines are in it.
    async fn remove_network(&self, spec: &TenantSpec, network: TenantNetwork) -> Result<(), ProviderError>;
    /// Removes all of it; fails while machines are in it.
    async fn remove_app(&self, spec: &TenantSpec) -> Result<(), ProviderError>;

    /// Makes the tenant's volume.
    async fn create_volume(&self, spec: &TenantSpec) -> Result<Made, ProviderError>;
    /// Removes it with its data.
    async fn remove_volume(&self, spec: &TenantSpec) -> Result<(), ProviderError>;

    /// Name of the network through which the tenant reaches its database, where the provider has such a thing.
    fn private_network(&self, spec: &TenantSpec) -> Option<String>;
    /// Name of the network through which the edge reaches the tenant, where the provider has such a thing.
    fn edge_network(&self, spec: &TenantSpec) -> Option<String>;

    /// Brings the image to where it will run.
    async fn pull_image(&self, spec: &MachineSpec) -> Result<(), ProviderError>;

    /// The images of `repository` that are there, as `repository@digest`.
    async fn list_images(&self, repository: &str) -> Result<Vec<String>, ProviderError>;
    /// Removes an image of [`Provider::list_images`]; what a machine or somebody's tag still needs stays.
    async fn remove_image(&self, image: &str) -> Result<(), ProviderError>;

    /// Runs `spec.command` to its end beside whatever serves, once per release; a second call answers the first outcome.
    async fn run_command(
        &self,
        spec: &MachineSpec,
        timeout: Duration,
    ) -> Result<CommandOutcome, ProviderError>;

    /// Starts the release's machine beside the old one. No traffic reaches it yet. Answers its id.
    async fn start_machine(&self, spec: &MachineSpec) -> Result<Made, ProviderError>;
    /// Makes the release's machine, complete but for its start: [`Provider::continue_machine`] is all that it needs to
    /// serve. For a release that may not run beside the old one. Answers its id.
    async fn create_machine(&self, spec: &MachineSpec) -> Result<Made, ProviderError>;
    /// Starts a machine that was made, or ended.
    async fn continue_machine(&self, machine_id: &str) -> Result<(), ProviderError>;
    /// How a machine is.
    async fn machine_state(&self, machine_id: &str) -> Result<MachineState, ProviderError>;
    /// Asks the machine `GET path` on a port as the edge would; `Ok(true)` for 2xx, `Ok(false)` for anything else or
    /// silence.
    async fn probe(
        &self,
        spec: &TenantSpec,
        machine_id: &str,
        asked: (u16, &str),
    ) -> Result<bool, ProviderError>;
    /// The same of a machine that is about to end: whoever stood in line before this question has come in when it is
    /// answered.
    async fn last_in_line(
        &self,
        spec: &TenantSpec,
        machine_id: &str,
        asked: (u16, &str),
    ) -> Result<bool, ProviderError> {
        self.probe(spec, machine_id, asked).await
    }
    /// Lets the edge find this machine at its release's address, in addition to those it finds already.
    async fn attach_traffic(&self, spec: &TenantSpec, machine_id: &str) -> Result<(), ProviderError>;
    /// Ids of this tenant's machines (running or not), newest first; one-off commands are not among them.
    async fn list_machines(&self, spec: &TenantSpec) -> Result<Vec<String>, ProviderError>;
    /// Ends a machine: TERM, `grace` to finish what it serves, KILL, and removes it. Its last lines are lost.
    /// What a release command left (`command` of [`Provider::list_resources`]) is removed in the same way.
    async fn stop_machine(&self, machine_id: &str, grace: Duration) -> Result<(), ProviderError>;
    /// Ends a machine as [`Provider::stop_machine`] does, but leaves it there, so that its last lines can be read.
    async fn end_machine(&self, machine_id: &str, grace: Duration) -> Result<(), ProviderError>;
    /// Stops the machine and starts it again in place (only for `restart` of a tenant whose release has no successor).
    async fn restart_machine(&self, machine_id: &str, grace: Duration) -> Result<(), ProviderError>;

    /// What a machine printed.
    async fn logs(
        &self,
        machine_id: &str,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, ProviderError>>, ProviderError>;

    /// Everything of this installation that prints or has printed, in one look.
    async fn list_printers(&self) -> Result<Vec<Printer>, ProviderError>;
    /// What a machine uses; `None` when it does not run.
    async fn usage(&self, machine_id: &str) -> Result<Option<Usage>, ProviderError>;
    /// Ids of the tenants to whom anything belongs that carries this installation's labels.
    async fn list_tenants(&self) -> Result<Vec<String>, ProviderError>;

    /// Everything that this provider has for the tenant, for receipts and the reconciler.
    async fn list_resources(&self, spec: &TenantSpec) -> Result<Vec<Made>, ProviderError>;
}
