//! Tenants on a Docker Engine: two networks, a volume and a container per release.
//!
//! The server must reach the containers' addresses, as it does where it runs on the engine's own Linux host:
//! readiness is asked for on the container's address in the tenant's private network.

mod app;
mod command;
mod logs;
mod pool;
mod prepare;
mod render;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::auth::DockerCredentials;
use bollard::models::{ContainerInspectResponse, ContainerUpdateBody};
use futures::stream::BoxStream;
use tokio::sync::Mutex;

use crate::server::containers::{Engine, EngineError, EngineFault, key, labels_of, restarts, route};
pub use crate::server::providers::docker::pool::{AddressPool, InvalidPool};
use crate::server::providers::docker::render::Names;
pub use crate::server::providers::docker::render::WRITABLE_ROOT;
use crate::server::providers::{
    CommandOutcome, LogLine, LogQuery, MachineSpec, MachineState, Made, Printer, Provider, ProviderError,
    TenantNetwork, TenantSpec, Usage,
};

/// Runs tenants on a Docker Engine.
#[derive(Clone, Debug)]
pub struct DockerProvider {
    engine: Engine,
    pool: AddressPool,
    probes: reqwest::Client,
    /// A volume is made ready by one call at a time.
    preparing: Arc<Mutex<()>>,
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

impl DockerProvider {
    /// A provider on `engine` whose tenants get their addresses from `pool`.
    ///
    /// # Errors
    /// The client that asks for readiness cannot be made.
    pub fn new(engine: Engine, pool: AddressPool) -> Result<Self, ProviderError> {
        // A proxy of the environment must not see tenants' addresses, and would not reach them.
        let probes = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PROBE_TIMEOUT)
            .build()
            .map_err(|source| ProviderError::Fatal {
                code: "probe-client",
                what: "failed to make the client that asks machines whether they are ready".to_owned(),
                hint: None,
                source: Some(Box::new(source)),
            })?;
        Ok(Self {
            engine,
            pool,
            probes,
            preparing: Arc::default(),
        })
    }

    fn names(&self, spec: &TenantSpec) -> Names {
        Names::new(self.engine.instance(), &spec.label)
    }

    /// Whether the image asks for a writable root; makes the volume ready for the tenant's first container.
    async fn prepare(&self, spec: &MachineSpec) -> Result<bool, ProviderError> {
        let mut image = self.engine.find_image(&spec.image).await?;
        if image.is_none() {
            // It was pulled, but somebody has cleaned up on the engine since.
            self.pull_image(spec).await?;
            image = self.engine.find_image(&spec.image).await?;
        }
        let missing = || EngineError::missing(format!("find the image `{}` on the engine", spec.image));
        let config = image.ok_or_else(missing)?.config.unwrap_or_default();
        let _turn = self.preparing.lock().await;
        if app::is_first(&self.engine, &spec.tenant).await? {
            let user = config.user.unwrap_or_default();
            prepare::volume(&self.engine, spec, &self.names(&spec.tenant), &user).await?;
        }
        let labels = config.labels.unwrap_or_default();
        Ok(labels.get(WRITABLE_ROOT).is_some_and(|value| value == "true"))
    }

    /// The edge finds the machine at its release's address.
    async fn join_edge(
        &self,
        spec: &TenantSpec,
        machine: &ContainerInspectResponse,
        release: u32,
    ) -> Result<(), ProviderError> {
        let network = self.names(spec).edge_network();
        let id = machine
            .name
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches('/');
        let wanted = route(self.engine.first_address(&network).await?, release);
        if chosen(machine, &network).is_some_and(|chosen| chosen != wanted.to_string()) {
            self.engine.disconnect(&network, id).await?;
        }
        Ok(self.engine.connect_at(&network, id, wanted).await?)
    }

    async fn get(&self, machine_id: &str) -> Result<ContainerInspectResponse, ProviderError> {
        let found = self.engine.find_container(machine_id).await?;
        found.ok_or_else(|| ProviderError::Fatal {
            code: "machine-not-found",
            what: format!("failed to find the machine `{machine_id}`"),
            hint: None,
            source: None,
        })
    }
}

impl From<EngineError> for ProviderError {
    fn from(error: EngineError) -> Self {
        if error.is_retry() {
            return Self::Retry {
                what: error.to_string(),
                after: None,
                source: error.source,
            };
        }
        Self::Fatal {
            code: error.code(),
            what: error.told(),
            hint: error.hint(),
            source: error.source,
        }
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn ping(&self) -> Result<String, ProviderError> {
        Ok(self.engine.ping().await?)
    }

    async fn create_network(
        &self,
        spec: &TenantSpec,
        network: TenantNetwork,
    ) -> Result<Option<Made>, ProviderError> {
        let names = self.names(spec);
        let made = app::create_network(&self.engine, self.pool, (spec, &names), network);
        made.await.map(Some)
    }

    async fn remove_network(&self, spec: &TenantSpec, network: TenantNetwork) -> Result<(), ProviderError> {
        app::remove_network(&self.engine, &self.names(spec).network(network)).await
    }

    async fn remove_app(&self, spec: &TenantSpec) -> Result<(), ProviderError> {
        app::remove(&self.engine, spec, &self.names(spec)).await
    }

    async fn create_volume(&self, spec: &TenantSpec) -> Result<Made, ProviderError> {
        app::create_volume(&self.engine, spec, self.names(spec).volume()).await
    }

    async fn remove_volume(&self, spec: &TenantSpec) -> Result<(), ProviderError> {
        app::clear(&self.engine, spec).await?;
        Ok(self.engine.remove_volume(&self.names(spec).volume()).await?)
    }

    fn private_network(&self, spec: &TenantSpec) -> Option<String> {
        Some(self.names(spec).private_network())
    }

    fn edge_network(&self, spec: &TenantSpec) -> Option<String> {
        Some(self.names(spec).edge_network())
    }

    async fn pull_image(&self, spec: &MachineSpec) -> Result<(), ProviderError> {
        if !spec.image.contains("@sha256:") {
            return Err(ProviderError::Fatal {
                code: "image-not-pinned",
                what: format!("failed to pull `{}`: it has no digest", spec.image),
                hint: None,
                source: None,
            });
        }
        // What a digest names never changes: an image that is there needs no registry.
        if self.engine.find_image(&spec.image).await?.is_some() {
            return Ok(());
        }
        let credentials = DockerCredentials {
            username: Some(spec.pull.username.clone()),
            password: Some(spec.pull.password.expose().to_owned()),
            serveraddress: Some(spec.pull.registry.clone()),
            ..DockerCredentials::default()
        };
        let pulled = self.engine.pull(&spec.image, Some(credentials)).await;
        pulled.map_err(|error| match error.fault {
            EngineFault::NotFound => image_error("image-not-found", error),
            EngineFault::Forbidden => image_error("image-forbidden", error),
            _ => error.into(),
        })
    }

    async fn list_images(&self, repository: &str) -> Result<Vec<String>, ProviderError> {
        Ok(self.engine.list_images(repository).await?)
    }

    async fn remove_image(&self, image: &str) -> Result<(), ProviderError> {
        Ok(self.engine.remove_image(image).await?)
    }

    async fn run_command(
        &self,
        spec: &MachineSpec,
        timeout: Duration,
    ) -> Result<CommandOutcome, ProviderError> {
        if spec.command.is_none() {
            return Err(ProviderError::Fatal {
                code: "command-missing",
                what: "failed to run a release command: there is none".to_owned(),
                hint: None,
                source: None,
            });
        }
        let writable_root = self.prepare(spec).await?;
        let container = render::command(spec, &self.names(&spec.tenant), writable_root);
        command::run(&self.engine, &container, timeout).await
    }

    async fn start_machine(&self, spec: &MachineSpec) -> Result<Made, ProviderError> {
        let names = self.names(&spec.tenant);
        let writable_root = self.prepare(spec).await?;
        let container = render::machine(spec, &names, writable_root);
        self.engine.ensure_container(&container).await?;
        // What a call that died in the middle has left goes as well.
        for ended in [names.command(spec.release), names.preparation()] {
            self.engine.remove_container(&ended, Duration::ZERO).await?;
        }
        Ok(Made {
            kind: "machine",
            external_id: container.name,
        })
    }

    async fn create_machine(&self, spec: &MachineSpec) -> Result<Made, ProviderError> {
        let names = self.names(&spec.tenant);
        let writable_root = self.prepare(spec).await?;
        let container = render::machine(spec, &names, writable_root);
        self.engine.create_container(&container).await?;
        // It may have its address at once: nobody is sent there before the edge is told to.
        let made = self.get(&container.name).await?;
        self.join_edge(&spec.tenant, &made, spec.release).await?;
        Ok(Made {
            kind: "machine",
            external_id: container.name,
        })
    }

    async fn continue_machine(&self, machine_id: &str) -> Result<(), ProviderError> {
        Ok(self.engine.start_container(machine_id).await?)
    }

    async fn machine_state(&self, machine_id: &str) -> Result<MachineState, ProviderError> {
        let Some(found) = self.engine.find_container(machine_id).await? else {
            return Ok(MachineState::Absent);
        };
        let state = found.state.unwrap_or_default();
        // Between two tries of a machine that crashes again and again the engine says "running" as well.
        if state.running == Some(true) && state.restarting != Some(true) {
            return Ok(MachineState::Running);
        }
        Ok(MachineState::Exited {
            exit_code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed == Some(true),
        })
    }

    async fn probe(
        &self,
        spec: &TenantSpec,
        machine_id: &str,
        (port, path): (u16, &str),
    ) -> Result<bool, ProviderError> {
        let Some(found) = self.engine.find_container(machine_id).await? else {
            return Ok(false);
        };
        let network = self.names(spec).private_network();
        let Some(address) = address(&found, &network) else {
            return Ok(false);
        };
        let path = path.trim_start_matches('/');
        let url = format!("http://{address}:{port}/{path}");
        Ok(match self.probes.get(url).send().await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        })
    }

    async fn attach_traffic(&self, spec: &TenantSpec, machine_id: &str) -> Result<(), ProviderError> {
        let machine = self.get(machine_id).await?;
        let labels = labels_of(&machine);
        let release = labels
            .get(key::RELEASE)
            .and_then(|release| release.parse().ok())
            .unwrap_or(0);
        let update = ContainerUpdateBody {
            restart_policy: Some(restarts(true)),
            ..ContainerUpdateBody::default()
        };
        let updated = self
            .engine
            .docker()
            .await?
            .update_container(machine_id, update)
            .await;
        let action = || format!("let the machine `{machine_id}` start again by itself");
        updated.map_err(|source| EngineError::engine(action(), source))?;
        self.join_edge(spec, &machine, release).await
    }

    async fn list_machines(&self, spec: &TenantSpec) -> Result<Vec<String>, ProviderError> {
        app::list_machines(&self.engine, spec).await
    }

    async fn stop_machine(&self, machine_id: &str, grace: Duration) -> Result<(), ProviderError> {
        Ok(self.engine.remove_container(machine_id, grace).await?)
    }

    async fn end_machine(&self, machine_id: &str, grace: Duration) -> Result<(), ProviderError> {
        Ok(self.engine.stop_container(machine_id, grace).await?)
    }

    async fn restart_machine(&self, machine_id: &str, grace: Duration) -> Result<(), ProviderError> {
        self.get(machine_id).await?;
        Ok(self.engine.restart_container(machine_id, grace).await?)
    }

    async fn logs(
        &self,
        machine_id: &str,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, ProviderError>>, ProviderError> {
        self.get(machine_id).await?;
        Ok(logs::stream(&self.engine, machine_id, query).await?)
    }

    async fn list_printers(&self) -> Result<Vec<Printer>, ProviderError> {
        app::list_printers(&self.engine).await
    }

    async fn usage(&self, machine_id: &str) -> Result<Option<Usage>, ProviderError> {
        Ok(usage::read(&self.engine, machine_id).await?)
    }

    async fn list_tenants(&self) -> Result<Vec<String>, ProviderError> {
        Ok(self.engine.list_owners().await?)
    }

    async fn list_resources(&self, spec: &TenantSpec) -> Result<Vec<Made>, ProviderError> {
        app::list_resources(&self.engine, spec).await
    }
}

fn image_error(code: &'static str, error: EngineError) -> ProviderError {
    ProviderError::Fatal {
        code,
        what: error.to_string(),
        hint: Some("push the image again with `systemprompt deploy`".to_owned()),
        source: error.source,
    }
}

/// The address that was chosen for the container in a network; empty when it is there and none was.
fn chosen(container: &ContainerInspectResponse, network: &str) -> Option<String> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    let chosen = networks.get(network)?.ipam_config.as_ref();
    Some(chosen.and_then(|it| it.ipv4_address.clone()).unwrap_or_default())
}

/// The container's address in a network.
fn address(container: &ContainerInspectResponse, network: &str) -> Option<String> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    let address = networks.get(network)?.ip_address.clone()?;
    (!address.is_empty()).then_some(address)
}
