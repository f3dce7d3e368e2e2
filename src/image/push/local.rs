//! What the engine has by the name that is pushed, and which way of pushing it takes less time.

use bollard::models::ImageHistoryResponseItem;

use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::push::PushRequest;
use crate::image::push::registry::Layer;

/// An engine exports an image whole; of a larger one it pushes what is new sooner than that.
const EXPORTED_BYTES: u64 = 1 << 30;
/// Exporting reads so much while the engine packs one part of it.
const READ_TO_PACKED: u64 = 3;
/// How much a layer of programs and text grows when it is unpacked, where nobody has said it.
const GROWTH: u64 = 2;
/// What a layer is made by, as a history tells it; all others only change the configuration.
const MAKERS: [&str; 6] = ["RUN ", "COPY ", "ADD ", "WORKDIR ", "/bin/sh -c ", "|"];
/// How the builder before BuildKit writes down what made no layer.
const MADE_NONE: &str = "/bin/sh -c #(nop)";

/// An image on the engine.
pub(super) struct Local {
    pub(super) id: String,
    pub(super) size_bytes: u64,
    diff_ids: Vec<String>,
    /// Whether an export has the layers as they are unpacked; a store that keeps them packed also pushes them so.
    unpacked: bool,
}

impl Local {
    /// Asks the engine.
    pub(super) async fn find(engine: &Engine, request: &PushRequest) -> Result<Self, ImageError> {
        let reference = format!("{}/{}:{}", request.registry, request.repository, request.tag);
        let image = engine.docker().inspect_image(&reference).await;
        let image = image.map_err(ImageError::engine(format!("look for the image `{reference}`")))?;
        Ok(Self {
            id: image.id.unwrap_or_default(),
            size_bytes: image
                .size
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or_default(),
            diff_ids: image.root_fs.and_then(|layers| layers.layers).unwrap_or_default(),
            unpacked: image.descriptor.is_none() && image.graph_driver.is_some(),
        })
    }

    /// Whether the engine's export is of use at all.
    pub(super) fn can_be_exported(&self) -> bool {
        self.unpacked && self.size_bytes <= EXPORTED_BYTES
    }

    /// Whether most of it is new to the registry: then reading all of it takes less time than the engine's packing. `known`
    /// are the layers that the registry has. An engine that has not sent those itself packs them once more, and then knows
    /// for all deploys after this one; an export would be read whole each time.
    pub(super) async fn is_mostly_new(&self, engine: &Engine, known: &[Layer]) -> bool {
        // Without a history it is guessed.
        let history = engine.docker().image_history(&self.id).await.unwrap_or_default();
        self.is_new_by(&sizes(&history, self.diff_ids.len()), known)
    }

    fn is_new_by(&self, sizes: &[u64], known: &[Layer]) -> bool {
        let there = |(index, diff_id): (usize, &String)| {
            let layer = known.iter().find(|layer| layer.diff_id == *diff_id)?;
            let told = sizes.get(index).copied().or_else(|| layer.descriptor.unpacked());
            Some(told.unwrap_or(layer.descriptor.size * GROWTH))
        };
        let there: u64 = self.diff_ids.iter().enumerate().filter_map(there).sum();
        self.size_bytes.saturating_sub(there) * READ_TO_PACKED >= self.size_bytes
    }
}

/// Sizes of so many layers, the first one first; none where the history cannot be laid beside them.
fn sizes(history: &[ImageHistoryResponseItem], layers: usize) -> Vec<u64> {
    let made = |item: &&ImageHistoryResponseItem| {
        let by = item.created_by.as_str();
        item.size > 0 || (MAKERS.iter().any(|maker| by.starts_with(maker)) && !by.starts_with(MADE_NONE))
    };
    let sizes = history.iter().rev().filter(made);
    let sizes: Vec<u64> = sizes.map(|item| item.size.unsigned_abs()).collect();
    if sizes.len() == layers { sizes } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use bollard::models::ImageHistoryResponseItem;

    use super::{Local, sizes};
    use crate::image::push::registry::{Descriptor, Layer};

    fn layer(diff_id: &str, packed: u64) -> Layer {
        Layer {
            diff_id: diff_id.to_owned(),
            descriptor: Descriptor::new("", String::new(), packed),
        }
    }

    #[test]
    fn an_image_is_exported_when_most_of_it_is_new() {
        let local = Local {
            id: "sha256:i".to_owned(),
            size_bytes: 90,
            diff_ids: vec!["a".to_owned(), "b".to_owned()],
            unpacked: true,
        };
        let told = |known: &[Layer]| local.is_new_by(&[61, 29], known);
        assert!(told(&[]));
        assert!(told(&[layer("b", 29)]));
        assert!(!told(&[layer("a", 9)]), "61 of 90 are there");
        assert!(told(&[layer("another's", 90)]));
        let untold = |known: &[Layer]| local.is_new_by(&[], known);
        let mut of_an_export = layer("a", 9);
        of_an_export.descriptor = of_an_export.descriptor.with_unpacked(61);
        assert!(!untold(&[of_an_export]));
        assert!(
            !untold(&[layer("a", 31)]),
            "what is packed is taken for half of what it was"
        );
    }

    #[test]
    fn a_history_is_laid_beside_the_layers() {
        let item = |created_by: &str, size| ImageHistoryResponseItem {
            created_by: created_by.to_owned(),
            size,
            ..ImageHistoryResponseItem::default()
        };
        // The newest comes first.
        let buildkit = [
            item("CMD [\"x\"]", 0),
            item("COPY x /x # buildkit", 7),
            item("ENV A=RUN", 0),
            item("WORKDIR /app", 0),
            item("", 74),
        ];
        assert_eq!(sizes(&buildkit, 3), [74, 0, 7]);
        assert_eq!(sizes(&buildkit, 4), [0_u64; 0], "one of them is not told");
        let older = [
            item("/bin/sh -c #(nop)  CMD [\"x\"]", 0),
            item("/bin/sh -c true", 0),
            item("/bin/sh -c #(nop) COPY file:1 in / ", 5),
        ];
        assert_eq!(sizes(&older, 2), [5, 0]);
    }
}
