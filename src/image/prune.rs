//! Older images of the same reference: what a build leaves on the engine when the next one takes its name.

use std::collections::HashMap;

use bollard::errors::Error as DockerError;
use bollard::models::ImageSummary;
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptions};

use crate::image::engine::Engine;
use crate::image::error::ImageError;

/// Written into every image that is built here: what it is called, so that it is known when it has lost the name.
pub const REFERENCE_LABEL: &str = "io.systemprompt.reference";

/// Removes the images that were built under the name of `reference` and have no name any more; answers how many.
/// What a container runs, and what somebody gave another name, stays.
pub async fn prune(engine: &Engine, reference: &str) -> Result<u32, ImageError> {
    let what = || format!("remove older images of `{reference}`");
    let label = format!("{REFERENCE_LABEL}={reference}");
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let options = ListImagesOptionsBuilder::default().filters(&filters).build();
    let found = engine
        .docker()
        .list_images(Some(options))
        .await
        .map_err(ImageError::engine(what()))?;
    let mut removed = 0;
    for image in found.iter().filter(|image| !has_name(image)) {
        let outcome = engine
            .docker()
            .remove_image(&image.id, None::<RemoveImageOptions>, None)
            .await;
        match outcome {
            Ok(_) => removed += 1,
            // Gone already, or a container runs it.
            Err(DockerError::DockerResponseServerError {
                status_code: 404 | 409,
                ..
            }) => {}
            Err(error) => return Err(ImageError::engine(what())(error)),
        }
    }
    Ok(removed)
}

fn has_name(image: &ImageSummary) -> bool {
    image.repo_tags.iter().any(|tag| tag != "<none>:<none>")
}
