//! Containers.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, NetworkingConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RestartContainerOptionsBuilder, StopContainerOptionsBuilder,
};

use crate::server::containers::files::ContainerFile;
use crate::server::containers::fingerprint::fingerprint;
use crate::server::containers::network::endpoint;
use crate::server::containers::{Engine, EngineError, EngineFault, Labels, key};

/// A container that shall run.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// To whom it belongs.
    pub labels: Labels,
    /// What it is made of. Labels and networks are filled in.
    pub body: ContainerCreateBody,
    /// The networks that it is in before it starts.
    pub networks: Vec<JoinedNetwork>,
    /// Files that it finds when it starts.
    pub files: Vec<ContainerFile>,
    /// How long an older one that differs may take to end.
    pub grace: Duration,
}

/// A network that a container is in, and its names there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct JoinedNetwork {
    /// Which.
    pub name: String,
    /// The names besides the container's own.
    pub aliases: Vec<String>,
}

/// What [`Engine::ensure_container`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// An equal one was there.
    Adopted,
    /// It is new, or replaced another.
    Made,
}

/// How often a look and a call may be overtaken by somebody else.
const ATTEMPTS: u32 = 5;
/// For how long somebody else's call may be on its way, in pauses.
const PATIENCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// The container runs afterwards. An equal one is adopted and started if need be; one that differs, or that is
    /// cut off from its networks, is replaced.
    ///
    /// # Errors
    /// The name belongs to something else, or the engine refuses.
    pub async fn ensure_container(&self, spec: &ContainerSpec) -> Result<Ensured, EngineError> {
        let config = fingerprint(spec);
        for _ in 0..ATTEMPTS {
            let (found, made) = self.find_or_create(spec, &config).await?;
            if made {
                self.start(spec).await?;
                return Ok(Ensured::Made);
            }
            let labels = labels_of(&found);
            if !spec.labels.own(self.instance(), &labels) {
                let action = format!("make the container `{}`", spec.name);
                return Err(EngineError::plain(EngineFault::Conflict, action));
            }
            if labels.get(key::CONFIG) == Some(&config) && !self.is_cut_off(spec, &found).await? {
                if !is_running(&found) {
                    self.start(spec).await?;
                }
                return Ok(Ensured::Adopted);
            }
            self.remove_container(&spec.name, spec.grace).await?;
        }
        let action = format!(
            "make the container `{}`: somebody else keeps changing it",
            spec.name
        );
        Err(EngineError::plain(EngineFault::Busy, action))
    }

    /// The container is there afterwards, as it was or newly made; it is not started.
    ///
    /// # Errors
    /// The name belongs to something else, or the engine refuses.
    pub async fn create_container(
        &self,
        spec: &ContainerSpec,
    ) -> Result<ContainerInspectResponse, EngineError> {
        let (found, _) = self.find_or_create(spec, &fingerprint(spec)).await?;
        if spec.labels.own(self.instance(), &labels_of(&found)) {
            return Ok(found);
        }
        let action = format!("make the container `{}`", spec.name);
        Err(EngineError::plain(EngineFault::Conflict, action))
    }

    /// The container as it is; `None` when there is none of that name.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn find_container(&self, name: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let found = self
            .docker()
            .await?
            .inspect_container(name, None::<InspectContainerOptions>)
            .await;
        match found.map_err(|source| EngineError::engine(format!("look at the container `{name}`"), source)) {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.fault == EngineFault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// This installation's containers with these labels, running or not.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn list_containers(
        &self,
        labels: &[(&str, &str)],
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&self.filter(labels))
            .build();
        self.docker()
            .await?
            .list_containers(Some(options))
            .await
            .map_err(|source| EngineError::engine("list containers", source))
    }

    /// The container does not run afterwards: TERM, `grace`, KILL. One that is not there does not run either.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn stop_container(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = self.docker().await?.stop_container(name, Some(options)).await;
        match stopped.map_err(|source| EngineError::engine(format!("stop the container `{name}`"), source)) {
            Err(error) if error.fault == EngineFault::NotFound => Ok(()),
            other => other,
        }
    }

    /// The container is gone afterwards: TERM, `grace`, KILL, removed with its unnamed volumes.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn remove_container(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let action = format!("remove the container `{name}`");
        if grace.as_secs() > 0 {
            self.stop_container(name, grace).await?;
        }
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.docker().await?.remove_container(name, Some(options)).await;
        match removed.map_err(|source| EngineError::engine(action, source)) {
            Err(error) if error.fault == EngineFault::NotFound => Ok(()),
            // "removal is already in progress": somebody else's call does it
            Err(error) if error.fault == EngineFault::Conflict => self.wait_until_gone(name, error).await,
            other => other,
        }
    }

    /// The container's process runs afterwards, unless it ends at once.
    ///
    /// # Errors
    /// There is none of that name, or the engine refuses.
    pub async fn start_container(&self, name: &str) -> Result<(), EngineError> {
        let started = self.docker().await?.start_container(name, None).await;
        started.map_err(|source| EngineError::engine(format!("start the container `{name}`"), source))
    }

    /// The container runs again afterwards: TERM, `grace`, KILL, started.
    ///
    /// # Errors
    /// It is not there, or the engine refuses.
    pub async fn restart_container(&self, name: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = RestartContainerOptionsBuilder::new().t(seconds).build();
        let restarted = self.docker().await?.restart_container(name, Some(options)).await;
        restarted.map_err(|source| EngineError::engine(format!("start the container `{name}` again"), source))
    }

    /// Whether a network that the container was made in is gone, or is another of the same name: a container looks
    /// for its networks by their numbers when it starts, and one that runs never comes back into one by itself.
    async fn is_cut_off(
        &self,
        spec: &ContainerSpec,
        found: &ContainerInspectResponse,
    ) -> Result<bool, EngineError> {
        let settings = found.network_settings.as_ref();
        let joined = settings.and_then(|settings| settings.networks.as_ref());
        // The others are joined right before the start.
        let count = if is_running(found) { spec.networks.len() } else { 1 };
        for network in spec.networks.iter().take(count) {
            let Some(endpoint) = joined.and_then(|joined| joined.get(&network.name)) else {
                return Ok(true);
            };
            let there = self.find_network(&network.name).await?;
            // It has no number before the first start.
            let id = endpoint.network_id.as_deref().filter(|id| !id.is_empty());
            if there.is_none_or(|there| id.is_some_and(|id| there.id.as_deref() != Some(id))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The container of that name, and whether it was made here.
    async fn find_or_create(
        &self,
        spec: &ContainerSpec,
        config: &str,
    ) -> Result<(ContainerInspectResponse, bool), EngineError> {
        let mut made = false;
        let mut last = None;
        for _ in 0..PATIENCE {
            if let Some(found) = self.find_container(&spec.name).await? {
                return Ok((found, made));
            }
            match self.create(spec, config).await {
                Ok(()) => made = true,
                // Somebody is making it now: its name is taken some time before it is seen.
                Err(error) if error.fault == EngineFault::Conflict => last = Some(error),
                Err(error) => return Err(error),
            }
            if !made {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let gone = || EngineError::busy(format!("make the container `{}`", spec.name));
        Err(last.unwrap_or_else(gone))
    }

    async fn create(&self, spec: &ContainerSpec, config: &str) -> Result<(), EngineError> {
        let mut labels = spec.labels.write(self.instance());
        labels.insert(key::CONFIG.to_owned(), config.to_owned());
        let mut body = spec.body.clone();
        body.labels = Some(labels);
        // Engines before API 1.44 take one network at creation; the others are joined before the start.
        if let Some(first) = spec.networks.first() {
            body.networking_config = Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(first.name.clone(), endpoint(&first.aliases))])),
            });
            body.host_config.get_or_insert_default().network_mode = Some(first.name.clone());
        }
        let options = CreateContainerOptionsBuilder::new().name(&spec.name).build();
        self.docker()
            .await?
            .create_container(Some(options), body)
            .await
            .map(|_| ())
            .map_err(|source| EngineError::engine(format!("make the container `{}`", spec.name), source))
    }

    /// Completes a container that was made, perhaps by a process that died right after, and starts it.
    async fn start(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        for network in spec.networks.iter().skip(1) {
            self.connect(&network.name, &spec.name, &network.aliases).await?;
        }
        self.upload(&spec.name, &spec.files).await?;
        self.start_container(&spec.name).await
    }

    async fn wait_until_gone(&self, name: &str, error: EngineError) -> Result<(), EngineError> {
        for _ in 0..PATIENCE {
            if self.find_container(name).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(error)
    }
}

/// Whether the container's process runs.
fn is_running(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.running) == Some(true)
}

/// The labels of a container.
#[must_use]
pub fn labels_of(container: &ContainerInspectResponse) -> HashMap<String, String> {
    container
        .config
        .as_ref()
        .and_then(|config| config.labels.clone())
        .unwrap_or_default()
}
