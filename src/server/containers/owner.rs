//! To whom everything belongs that carries this installation's labels.

use std::collections::{BTreeSet, HashMap};

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};

use crate::server::containers::{Engine, EngineError, key};

impl Engine {
    /// Ids of the tenants to whom any container, network or volume of this installation belongs.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn list_owners(&self) -> Result<Vec<String>, EngineError> {
        let ours = self.filter(&[]);
        let docker = self.docker().await?;
        let failed = |source| EngineError::engine("list what belongs to this installation", source);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&ours)
            .build();
        let containers = docker.list_containers(Some(options)).await.map_err(failed)?;
        let options = ListNetworksOptionsBuilder::new().filters(&ours).build();
        let networks = docker.list_networks(Some(options)).await.map_err(failed)?;
        let options = ListVolumesOptionsBuilder::new().filters(&ours).build();
        let volumes = docker.list_volumes(Some(options)).await.map_err(failed)?;
        let mut owners = BTreeSet::new();
        let mut note = |labels: &HashMap<String, String>| owners.extend(labels.get(key::TENANT).cloned());
        for container in containers {
            note(&container.labels.unwrap_or_default());
        }
        for network in networks {
            note(&network.labels.unwrap_or_default());
        }
        for volume in volumes.volumes.unwrap_or_default() {
            note(&volume.labels);
        }
        Ok(owners.into_iter().collect())
    }
}
