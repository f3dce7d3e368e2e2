//! What the registry has by the tag: the image of the push before this one, and by which layers it is made.

use http::StatusCode;
use http::header::ACCEPT;
use serde::{Deserialize, Serialize};

use crate::image::push::registry::{Registry, again};
use crate::image::push::{Failure, Pushed};

const KINDS: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json";
/// On a layer: how many bytes it is unpacked, by which an export's layer is known before it has been read.
const UNPACKED: &str = "io.systemprompt.unpacked-bytes";
/// A configuration is kilobytes; what is larger is none.
const CONFIG_BYTES: u64 = 4 << 20;

/// A manifest's word for a blob (OCI image specification, "Descriptors").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::image::push) struct Descriptor {
    #[serde(default)]
    pub(in crate::image::push) media_type: String,
    #[serde(default)]
    pub(in crate::image::push) digest: String,
    pub(in crate::image::push) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Descriptor {
    pub(in crate::image::push) fn new(media_type: &str, digest: String, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: None,
        }
    }

    /// The same, with how large the layer is unpacked.
    pub(in crate::image::push) fn with_unpacked(mut self, bytes: u64) -> Self {
        let annotations = self.annotations.get_or_insert_default();
        annotations.insert(UNPACKED.to_owned(), bytes.to_string().into());
        self
    }

    /// How large the layer is unpacked, where its push said so.
    pub(in crate::image::push) fn unpacked(&self) -> Option<u64> {
        self.annotations.as_ref()?.get(UNPACKED)?.as_str()?.parse().ok()
    }
}

/// What the tag points at.
#[derive(Debug)]
pub(in crate::image::push) struct Stored {
    digest: String,
    manifest: Manifest,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Stored {
    /// What people are told of it.
    pub(in crate::image::push) fn pushed(&self) -> Pushed {
        let manifest = &self.manifest;
        let parts = manifest
            .config
            .iter()
            .chain(&manifest.layers)
            .chain(&manifest.manifests);
        Pushed {
            digest: self.digest.clone(),
            size_bytes: parts.map(|part| part.size).sum(),
        }
    }

    /// What an engine calls the image.
    pub(in crate::image::push) fn image_id(&self) -> Option<&str> {
        self.manifest.config.as_ref().map(|config| config.digest.as_str())
    }

    /// Whether it is the image that the engine has by this id: the digest of its configuration, or of its manifest.
    pub(in crate::image::push) fn is(&self, image_id: &str) -> bool {
        self.digest == image_id || self.image_id() == Some(image_id)
    }
}

/// A layer that the registry has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::image::push) struct Layer {
    /// Digest of the layer as it is unpacked.
    pub(in crate::image::push) diff_id: String,
    pub(in crate::image::push) descriptor: Descriptor,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The layers, unpacked, that a configuration is about.
pub(in crate::image::push) fn diff_ids(config: &[u8]) -> Option<Vec<String>> {
    let config: Config = serde_json::from_slice(config).ok()?;
    Some(config.rootfs.diff_ids)
}

impl Registry<'_> {
    /// What the tag points at, if anything.
    pub(in crate::image::push) async fn stored(&self) -> Result<Option<Stored>, Failure> {
        let get = self
            .get(&format!("manifests/{}", self.request().tag))?
            .header(ACCEPT, KINDS);
        let answer = get.send().await.map_err(again)?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.accepted(answer).await?;
        let digest = digest(&answer)?;
        let manifest = answer.json().await.map_err(again)?;
        Ok(Some(Stored { digest, manifest }))
    }

    /// Its layers, by what they are unpacked; none where it is no image or does not say.
    pub(in crate::image::push) async fn layers(&self, stored: &Stored) -> Result<Vec<Layer>, Failure> {
        let Some(config) = stored
            .manifest
            .config
            .as_ref()
            .filter(|config| config.size <= CONFIG_BYTES)
        else {
            return Ok(Vec::new());
        };
        let get = self.get(&format!("blobs/{}", config.digest))?;
        let answer = self.accepted(get.send().await.map_err(again)?).await?;
        let config = answer.bytes().await.map_err(again)?;
        let diff_ids = diff_ids(&config).unwrap_or_default();
        if diff_ids.len() != stored.manifest.layers.len() {
            return Ok(Vec::new());
        }
        let layers = diff_ids.into_iter().zip(stored.manifest.layers.iter().cloned());
        let layers = layers.map(|(diff_id, descriptor)| Layer { diff_id, descriptor });
        Ok(layers.collect())
    }
}

/// The registry's own word for what it has.
pub(super) fn digest(answer: &reqwest::Response) -> Result<String, Failure> {
    let digest = answer.headers().get("docker-content-digest");
    let digest = digest.and_then(|digest| digest.to_str().ok());
    digest
        .map(str::to_owned)
        .ok_or_else(|| Failure::Again("the registry names no digest".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{Descriptor, Manifest, Stored, diff_ids};

    #[test]
    fn an_image_is_known_by_its_configuration_or_its_manifest() {
        let manifest =
            r#"{"config":{"digest":"sha256:c","size":1},"layers":[{"digest":"sha256:l","size":2}]}"#;
        let manifest: Manifest = serde_json::from_str(manifest).expect("a manifest");
        let stored = Stored {
            digest: "sha256:m".to_owned(),
            manifest,
        };
        assert!(stored.is("sha256:c") && stored.is("sha256:m") && !stored.is("sha256:l"));
        assert_eq!(stored.pushed().size_bytes, 3);
    }

    #[test]
    fn a_layer_says_how_large_it_is_unpacked() {
        let plain = Descriptor::new("application/vnd.oci.image.layer.v1.tar", "sha256:l".to_owned(), 7);
        assert_eq!(plain.unpacked(), None);
        let text = serde_json::to_string(&plain.with_unpacked(2048)).expect("JSON");
        let back: Descriptor = serde_json::from_str(&text).expect("a descriptor");
        assert_eq!(back.unpacked(), Some(2048));
    }

    #[test]
    fn only_a_configuration_names_layers() {
        assert_eq!(
            diff_ids(br#"{"rootfs":{"diff_ids":["sha256:a"]}}"#),
            Some(vec!["sha256:a".to_owned()])
        );
        assert_eq!(diff_ids(b"{}"), None);
    }
}
