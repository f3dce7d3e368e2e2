//! Images.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;

use crate::server::containers::{Engine, EngineError, EngineFault};

/// An image that may have a stand-in, built where no registry can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageChoice<'a> {
    /// The image that is wanted.
    pub wanted: &'a str,
    /// The image that does as well, under a name of its own.
    pub stand_in: &'a str,
}

/// A registry that has not said a word in this time is taken for absent.
const FIRST_WORD: Duration = Duration::from_secs(30);
/// A pull of which nothing was heard in this time has stalled.
const NEXT_WORD: Duration = Duration::from_secs(120);

impl Engine {
    /// The name of an image that is there: the wanted one, pulled if need be, or its stand-in.
    ///
    /// # Errors
    /// Neither is there, and the wanted one cannot be pulled.
    pub async fn ensure_image(&self, choice: ImageChoice<'_>) -> Result<String, EngineError> {
        if self.find_image(choice.wanted).await?.is_some() {
            return Ok(choice.wanted.to_owned());
        }
        let Err(error) = self.pull(choice.wanted, None).await else {
            return Ok(choice.wanted.to_owned());
        };
        if self.find_image(choice.stand_in).await?.is_none() {
            return Err(EngineError {
                action: format!(
                    "get the image `{}`, and there is no stand-in `{}`; `scripts/setup` builds it",
                    choice.wanted, choice.stand_in
                ),
                fault: EngineFault::NotFound,
                ..error
            });
        }
        tracing::warn!(
            wanted = choice.wanted,
            stand_in = choice.stand_in,
            reason = %error.source.map(|source| source.to_string()).unwrap_or_default(),
            "the image cannot be pulled: its stand-in, built on this machine, is used"
        );
        Ok(choice.stand_in.to_owned())
    }

    /// The image as the engine has it; `None` when it has not.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn find_image(&self, image: &str) -> Result<Option<ImageInspect>, EngineError> {
        let found = self.docker().await?.inspect_image(image).await;
        match found.map_err(|source| EngineError::engine(format!("look at the image `{image}`"), source)) {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.fault == EngineFault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The images of `repository` that were pulled or pushed by digest, as `repository@digest`.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn list_images(&self, repository: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("reference", vec![repository])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let action = || format!("list the images of `{repository}`");
        let found = self.docker().await?.list_images(Some(options)).await;
        let found = found.map_err(|source| EngineError::engine(action(), source))?;
        let own = format!("{repository}@");
        let mut references: Vec<String> = found.into_iter().flat_map(|image| image.repo_digests).collect();
        references.retain(|reference| reference.starts_with(&own));
        Ok(references)
    }

    /// Takes a reference away, and with the last one its image. What a container runs stays.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let removed = self
            .docker()
            .await?
            .remove_image(image, None::<RemoveImageOptions>, None)
            .await;
        match removed.map_err(|source| EngineError::engine(format!("remove the image `{image}`"), source)) {
            Err(error) if matches!(error.fault, EngineFault::NotFound | EngineFault::Conflict) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The image is on the engine afterwards.
    ///
    /// # Errors
    /// The registry does not have it, does not let us, or does not answer.
    pub async fn pull(&self, image: &str, credentials: Option<DockerCredentials>) -> Result<(), EngineError> {
        let action = || format!("pull the image `{image}`");
        // Without a tag the engine would pull all tags there are.
        let (name, tag) = match image.rsplit_once(':') {
            _ if image.contains('@') => (image, ""),
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (image, "latest"),
        };
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut progress = self
            .docker()
            .await?
            .create_image(Some(options), None, credentials);
        let mut patience = FIRST_WORD;
        loop {
            match tokio::time::timeout(patience, progress.next()).await {
                Ok(None) => return Ok(()),
                // The stream begins with 200 and may fail inside; bollard turns that into an error of the stream.
                Ok(Some(Ok(_))) => patience = NEXT_WORD,
                Ok(Some(Err(source))) => return Err(EngineError::engine(action(), source)),
                Err(_) => return Err(EngineError::plain(EngineFault::Busy, action())),
            }
        }
    }
}
