//! What a manifest says: its kind, what it is made of, and of what it speaks.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::server::registry::digest::Digest;
use crate::server::registry::error::RegistryError;
use crate::server::registry::names::parse_digest;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// A manifest that was read and found good.
pub(super) struct Document {
    /// As it was pushed, without parameters.
    pub(super) media_type: String,
    /// Everything that must be there before it.
    pub(super) children: Vec<Child>,
    /// The blob that says how the image runs, where it is an image.
    pub(super) config: Option<Digest>,
    /// Configuration and layers, as they are downloaded; 0 for an index.
    pub(super) size_bytes: u64,
    /// The manifest of which it speaks; need not be there.
    pub(super) subject: Option<Digest>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Something that a manifest is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Child {
    /// A config or a layer.
    Blob(Digest),
    /// A manifest of an index.
    Manifest(Digest),
}

/// One line of a list of referrers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    /// What kind of thing it is; what lists are filtered by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Vec<RawDescriptor>,
    #[serde(default)]
    blobs: Vec<RawDescriptor>,
    #[serde(default)]
    manifests: Vec<RawDescriptor>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

impl Document {
    /// Reads a manifest that was sent as `content_type`.
    pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, RegistryError> {
        let raw: Raw = serde_json::from_slice(bytes)
            .map_err(|error| RegistryError::manifest_invalid(format!("not a manifest: {error}")))?;
        let media_type = media_type(&raw, content_type)?;
        let mut children = Vec::new();
        // A nondistributable layer stays where it came from; a registry need not have it.
        let blobs = raw.config.iter().chain(&raw.layers).chain(&raw.blobs);
        for part in blobs
            .clone()
            .filter(|part| !is_nondistributable(&part.media_type))
        {
            children.push(Child::Blob(parse_digest(&part.digest)?));
        }
        for part in &raw.manifests {
            children.push(Child::Manifest(parse_digest(&part.digest)?));
        }
        let config = raw.config.as_ref().map(|config| parse_digest(&config.digest));
        let size_bytes = blobs.map(|part| part.size).fold(0, u64::saturating_add);
        let subject = raw
            .subject
            .as_ref()
            .map(|subject| parse_digest(&subject.digest))
            .transpose()?;
        let is_index = media_type == INDEX || media_type == DOCKER_LIST;
        let artifact_type = match raw.artifact_type {
            Some(kind) if !kind.is_empty() => Some(kind),
            _ if is_index => None,
            _ => raw
                .config
                .map(|config| config.media_type)
                .filter(|kind| !kind.is_empty()),
        };
        Ok(Self {
            media_type,
            children,
            config: config.transpose()?,
            size_bytes,
            subject,
            artifact_type,
            annotations: raw.annotations,
        })
    }

    /// How it stands in the list of referrers of its subject, as JSON.
    pub(super) fn descriptor(&self, digest: &Digest, size_bytes: usize) -> Bytes {
        let descriptor = Descriptor {
            media_type: self.media_type.clone(),
            digest: digest.to_string(),
            size: size_bytes as u64,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        };
        // Strings and a number: there is nothing that JSON cannot hold.
        serde_json::to_vec(&descriptor).unwrap_or_default().into()
    }
}

fn media_type(raw: &Raw, content_type: Option<&str>) -> Result<String, RegistryError> {
    let sent = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
    let media_type = match (sent.filter(|text| !text.is_empty()), &raw.media_type) {
        (Some(sent), Some(said)) if sent != said => {
            let why = format!("sent as `{sent}`, but says that it is `{said}`");
            return Err(RegistryError::manifest_invalid(why));
        }
        (Some(sent), _) => sent.to_owned(),
        (None, Some(said)) => said.clone(),
        (None, None) => return Err(RegistryError::manifest_invalid("the media type is missing")),
    };
    if raw.schema_version != 2 || media_type.starts_with(DOCKER_V1) {
        return Err(RegistryError::manifest_invalid(
            "only manifests of schema version 2 are taken",
        ));
    }
    // It is sent back as a header and kept on a line of its own.
    match media_type.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(media_type),
        false => Err(RegistryError::manifest_invalid("the media type is malformed")),
    }
}

fn is_nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
}
