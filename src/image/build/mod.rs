//! Builds the image: with BuildKit where the engine has it, else with the classic builder.

mod credentials;
mod lines;
mod sync;
mod ways;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bollard::errors::Error as DockerError;
use bollard::query_parameters::TagImageOptionsBuilder;

use crate::image::context::{Context, size};
use crate::image::dockerfile::BuildArgs;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// What goes to the engine.
    pub context: Context,
    /// What the image is called afterwards, with tag.
    pub reference: String,
    /// `--build-arg`.
    pub args: BuildArgs,
    /// `--target`.
    pub target: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// Every step anew.
    pub no_cache: bool,
    /// Written into the image.
    pub labels: BTreeMap<String, String>,
    /// A folder to remember in what the engine was sent; without one, everything is sent every time.
    pub cache: Option<PathBuf>,
}

/// An image that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// `sha256:…` of its configuration, the engine's own name for it.
    pub image_id: String,
    /// Unpacked.
    pub size_bytes: u64,
    /// What it says it runs on: `linux/amd64`.
    pub platform: String,
    /// What is written into it.
    pub labels: BTreeMap<String, String>,
}

/// Builds and tags. Nothing counts as success but an image id from the engine.
pub async fn build(
    engine: &Engine,
    request: BuildRequest,
    progress: Arc<dyn Progress>,
) -> Result<Built, ImageError> {
    let id = "build".to_owned();
    let builder = if engine.info().buildkit {
        "BuildKit"
    } else {
        "the classic builder"
    };
    let label = format!("Building with {builder}");
    progress.report(ProgressEvent::Started {
        id: id.clone(),
        label,
        total_bytes: None,
    });

    let bases = request.context.dockerfile().base_images(&request.args);
    let credentials = credentials::find(engine, bases).await;
    let reference = request.reference.clone();
    let image_id = ways::run(engine, request, credentials, &progress).await?;
    let built = tag(engine, &image_id, &reference).await?;
    let summary = format!("{} for {}", size(built.size_bytes), built.platform);
    progress.report(ProgressEvent::Finished { id, summary });
    Ok(built)
}

/// What the engine has under this name, if anything.
pub async fn find(engine: &Engine, reference: &str) -> Result<Option<Built>, ImageError> {
    match engine.docker().inspect_image(reference).await {
        Ok(image) => Ok(Some(described(image))),
        Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(ImageError::engine(format!("look for the image `{reference}`"))(
            error,
        )),
    }
}

/// Gives `image` another name, and says what it is.
pub async fn tag(engine: &Engine, image: &str, reference: &str) -> Result<Built, ImageError> {
    let (repository, tag) = split_reference(reference);
    let options = TagImageOptionsBuilder::default()
        .repo(repository)
        .tag(tag)
        .build();
    let what = || format!("tag `{image}` as `{reference}`");
    engine
        .docker()
        .tag_image(image, Some(options))
        .await
        .map_err(ImageError::engine(what()))?;
    let image = engine
        .docker()
        .inspect_image(reference)
        .await
        .map_err(ImageError::engine(what()))?;
    Ok(described(image))
}

/// Repository and tag; the port of a registry is no tag.
pub(crate) fn split_reference(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

fn described(image: bollard::models::ImageInspect) -> Built {
    let part = |part: &Option<String>, default: &str| {
        part.as_deref()
            .filter(|part| !part.is_empty())
            .unwrap_or(default)
            .to_owned()
    };
    Built {
        platform: format!(
            "{}/{}",
            part(&image.os, "linux"),
            part(&image.architecture, "unknown")
        ),
        labels: image
            .config
            .and_then(|config| config.labels)
            .into_iter()
            .flatten()
            .collect(),
        image_id: image.id.unwrap_or_default(),
        size_bytes: image
            .size
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::split_reference;

    #[test]
    fn a_port_is_not_a_tag() {
        assert_eq!(
            split_reference("127.0.0.1:8787/images:tenant-x"),
            ("127.0.0.1:8787/images", "tenant-x")
        );
        assert_eq!(
            split_reference("127.0.0.1:8787/images"),
            ("127.0.0.1:8787/images", "latest")
        );
        assert_eq!(split_reference("debian"), ("debian", "latest"));
    }
}
