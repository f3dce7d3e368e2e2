//! Networks, and who is in them.

use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest, NetworkInspect,
};
use bollard::query_parameters::ListNetworksOptionsBuilder;

use crate::server::containers::{Engine, EngineError, EngineFault, Labels};

/// A network that shall be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its addresses (`10.213.0.0/28`); from the engine's own pool when absent.
    pub subnet: Option<String>,
    /// Whether it has no way out.
    pub internal: bool,
    /// To whom it belongs.
    pub labels: Labels,
}

const ATTEMPTS: u32 = 15;
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// The network is there afterwards.
    ///
    /// # Errors
    /// The addresses or the name belong to somebody else, or the engine refuses.
    pub async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), EngineError> {
        if self.adopt_network(spec).await? {
            return Ok(());
        }
        let ipam = spec.subnet.as_ref().map(|subnet| Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.clone()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        });
        let request = NetworkCreateRequest {
            name: spec.name.clone(),
            driver: Some("bridge".to_owned()),
            internal: Some(spec.internal),
            ipam,
            labels: Some(spec.labels.write(self.instance())),
            ..NetworkCreateRequest::default()
        };
        let Err(source) = self.docker().await?.create_network(request).await else {
            return Ok(());
        };
        let error = EngineError::engine(format!("make the network `{}`", spec.name), source);
        // Somebody may be making it now: its addresses are taken some time before its name is seen.
        for _ in 0..ATTEMPTS {
            if self.adopt_network(spec).await? {
                return Ok(());
            }
            if error.fault != EngineFault::AddressInUse {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(error)
    }

    /// The network is gone afterwards. What the installation itself has in it leaves it first.
    ///
    /// # Errors
    /// A tenant's container is in it, or the engine refuses.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.docker().await?.remove_network(name).await;
        match removed.map_err(|source| EngineError::engine(format!("remove the network `{name}`"), source)) {
            Err(error) if error.fault == EngineFault::NotFound => Ok(()),
            other => other,
        }
    }

    /// The network as it is, with the names of who is in it; `None` when there is none of that name.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn find_network(&self, name: &str) -> Result<Option<NetworkInspect>, EngineError> {
        let found = self.docker().await?.inspect_network(name, None).await;
        match found.map_err(|source| EngineError::engine(format!("look at the network `{name}`"), source)) {
            Ok(network) => Ok(Some(network)),
            Err(error) if error.fault == EngineFault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names of this installation's networks with these labels.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn list_networks(&self, labels: &[(&str, &str)]) -> Result<Vec<String>, EngineError> {
        let options = ListNetworksOptionsBuilder::new()
            .filters(&self.filter(labels))
            .build();
        let networks = self
            .docker()
            .await?
            .list_networks(Some(options))
            .await
            .map_err(|source| EngineError::engine("list networks", source))?;
        Ok(networks.into_iter().filter_map(|network| network.name).collect())
    }

    /// The container is in the network afterwards, under these names besides its own.
    ///
    /// # Errors
    /// One of the two is not there, or the engine refuses.
    pub async fn connect(
        &self,
        network: &str,
        container: &str,
        aliases: &[String],
    ) -> Result<(), EngineError> {
        self.join(network, container, endpoint(aliases)).await
    }

    /// The container is in the network afterwards, at this address whenever it runs.
    ///
    /// # Errors
    /// One of the two is not there, somebody else has the address, or the engine refuses.
    pub async fn connect_at(
        &self,
        network: &str,
        container: &str,
        address: Ipv4Addr,
    ) -> Result<(), EngineError> {
        let wanted = EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..EndpointIpamConfig::default()
        };
        let settings = EndpointSettings {
            ipam_config: Some(wanted),
            ..EndpointSettings::default()
        };
        self.join(network, container, settings).await
    }

    /// The first address of a network whose addresses were chosen.
    ///
    /// # Errors
    /// The network is not there, or its addresses are the engine's own choice.
    pub async fn first_address(&self, network: &str) -> Result<Ipv4Addr, EngineError> {
        let found = self.find_network(network).await?;
        let subnet = found.and_then(|it| it.ipam?.config?.into_iter().find_map(|range| range.subnet));
        let first = subnet.and_then(|subnet| subnet.split('/').next()?.parse().ok());
        first.ok_or_else(|| EngineError::missing(format!("find the addresses of the network `{network}`")))
    }

    async fn join(
        &self,
        network: &str,
        container: &str,
        settings: EndpointSettings,
    ) -> Result<(), EngineError> {
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(settings),
        };
        let connected = self.docker().await?.connect_network(network, request).await;
        let Err(source) = connected else {
            return Ok(());
        };
        if says(&source, "already exists in network") || says(&source, "already attached") {
            return Ok(());
        }
        Err(EngineError::engine(
            format!("join `{container}` to the network `{network}`"),
            source,
        ))
    }

    /// The container is not in the network afterwards.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn disconnect(&self, network: &str, container: &str) -> Result<(), EngineError> {
        let request = NetworkDisconnectRequest {
            container: container.to_owned(),
            force: Some(true),
        };
        let Err(source) = self.docker().await?.disconnect_network(network, request).await else {
            return Ok(());
        };
        if says(&source, "is not connected to") {
            return Ok(());
        }
        let error = EngineError::engine(
            format!("take `{container}` out of the network `{network}`"),
            source,
        );
        if error.fault == EngineFault::NotFound {
            return Ok(());
        }
        Err(error)
    }

    async fn adopt_network(&self, spec: &NetworkSpec) -> Result<bool, EngineError> {
        let Some(found) = self.find_network(&spec.name).await? else {
            return Ok(false);
        };
        let action = format!("make the network `{}`", spec.name);
        if !spec
            .labels
            .own(self.instance(), &found.labels.unwrap_or_default())
        {
            return Err(EngineError::plain(EngineFault::Conflict, action));
        }
        let subnets: Vec<String> = found
            .ipam
            .and_then(|ipam| ipam.config)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|config| config.subnet)
            .collect();
        match &spec.subnet {
            Some(wanted) if !subnets.contains(wanted) => {
                Err(EngineError::plain(EngineFault::AddressInUse, action))
            }
            _ => Ok(true),
        }
    }
}

pub(super) fn endpoint(aliases: &[String]) -> EndpointSettings {
    EndpointSettings {
        aliases: (!aliases.is_empty()).then(|| aliases.to_vec()),
        ..EndpointSettings::default()
    }
}

fn says(error: &Error, text: &str) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. } if message.contains(text))
}
