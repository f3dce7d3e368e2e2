//! An image that must be on the engine: there already, pulled, or a stand-in.

use std::collections::BTreeMap;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;

use crate::image::build::find;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};

/// An image that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its reference.
    pub image: &'a str,
    /// What may take its place where it can be neither found nor pulled.
    pub stand_in: Option<&'a str>,
}

/// An image that is on the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its reference.
    pub image: String,
    /// Whether it is not the one that was asked for.
    pub is_stand_in: bool,
}

/// Finds the image on the engine, else pulls it, else takes the stand-in if the engine has that.
pub async fn ensure(
    engine: &Engine,
    wanted: &Wanted<'_>,
    progress: &dyn Progress,
) -> Result<Found, ImageError> {
    if find(engine, wanted.image).await?.is_some() {
        return Ok(Found {
            image: wanted.image.to_owned(),
            is_stand_in: false,
        });
    }
    match pull(engine, wanted.image, progress).await {
        Ok(()) => Ok(Found {
            image: wanted.image.to_owned(),
            is_stand_in: false,
        }),
        Err(error) => match wanted.stand_in {
            Some(stand_in) if find(engine, stand_in).await?.is_some() => Ok(Found {
                image: stand_in.to_owned(),
                is_stand_in: true,
            }),
            _ => Err(error),
        },
    }
}

async fn pull(engine: &Engine, image: &str, progress: &dyn Progress) -> Result<(), ImageError> {
    let id = "pull".to_owned();
    let label = format!("Pulling {image}");
    progress.report(ProgressEvent::Started {
        id: id.clone(),
        label,
        total_bytes: None,
    });
    let options = CreateImageOptionsBuilder::default().from_image(image).build();
    let docker = engine.patient();
    let mut lines = docker.create_image(Some(options), None, None);
    let mut layers: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    while let Some(line) = lines.next().await {
        let line = line.map_err(ImageError::engine(format!("pull `{image}`")))?;
        let Some((layer, detail)) = line.id.zip(line.progress_detail) else {
            continue;
        };
        layers.insert(layer, (detail.current.unwrap_or(0), detail.total.unwrap_or(0)));
        let sum = |part: fn(&(i64, i64)) -> i64| {
            u64::try_from(layers.values().map(part).sum::<i64>()).unwrap_or_default()
        };
        progress.report(ProgressEvent::Advanced {
            id: id.clone(),
            done_bytes: sum(|layer| layer.0),
            total_bytes: Some(sum(|layer| layer.1)),
        });
    }
    progress.report(ProgressEvent::Finished {
        id,
        summary: format!("Pulled {image}"),
    });
    Ok(())
}
