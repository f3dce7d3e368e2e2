//! Volumes.

use std::collections::HashMap;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};

use crate::server::containers::{Engine, EngineError, EngineFault, Labels};

impl Engine {
    /// The volume is there afterwards. Answers the labels that it was made with.
    ///
    /// # Errors
    /// The engine refuses, or the name belongs to something else.
    pub async fn ensure_volume(
        &self,
        name: &str,
        labels: &Labels,
        extra: &[(&str, &str)],
    ) -> Result<HashMap<String, String>, EngineError> {
        let mut written = labels.write(self.instance());
        written.extend(
            extra
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(written),
            ..VolumeCreateRequest::default()
        };
        let action = format!("make the volume `{name}`");
        // Creating one that is there answers it, with the labels that it has.
        let volume = self
            .docker()
            .await?
            .create_volume(request)
            .await
            .map_err(|source| EngineError::engine(action.clone(), source))?;
        if labels.own(self.instance(), &volume.labels) {
            return Ok(volume.labels);
        }
        Err(EngineError::plain(EngineFault::Conflict, action))
    }

    /// The labels of a volume; `None` when there is none of that name.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn volume_labels(&self, name: &str) -> Result<Option<HashMap<String, String>>, EngineError> {
        let found = self.docker().await?.inspect_volume(name).await;
        match found.map_err(|source| EngineError::engine(format!("look at the volume `{name}`"), source)) {
            Ok(volume) => Ok(Some(volume.labels)),
            Err(error) if error.fault == EngineFault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The volume is gone afterwards, with its data.
    ///
    /// # Errors
    /// A container uses it, or the engine refuses.
    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveVolumeOptionsBuilder::new().force(true).build();
        let removed = self.docker().await?.remove_volume(name, Some(options)).await;
        let removed =
            removed.map_err(|source| EngineError::engine(format!("remove the volume `{name}`"), source));
        match removed {
            Err(error) if error.fault == EngineFault::NotFound => Ok(()),
            other => other,
        }
    }

    /// Names of this installation's volumes with these labels.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn list_volumes(&self, labels: &[(&str, &str)]) -> Result<Vec<String>, EngineError> {
        let options = ListVolumesOptionsBuilder::new()
            .filters(&self.filter(labels))
            .build();
        let listed = self
            .docker()
            .await?
            .list_volumes(Some(options))
            .await
            .map_err(|source| EngineError::engine("list volumes", source))?;
        let volumes = listed.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|volume| volume.name).collect())
    }
}
