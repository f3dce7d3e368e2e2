//! What an image says of itself: how it runs, and how large it is.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use crate::api::id::TenantId;
use crate::api::release::ImageConfig;
use crate::server::registry::digest::Digest;
use crate::server::registry::document::{Child, Document};
use crate::server::registry::manifests;
use crate::server::registry::store::{Key, ObjectStore};

/// A larger configuration is not read; what real ones hold is far below.
const LIMIT: u64 = 8 * 1024 * 1024;

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawImage {
    os: String,
    architecture: String,
    config: Option<RawConfig>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawConfig {
    user: Option<String>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
}

/// The size of what `digest` names, as it is downloaded: of an index, all that it holds.
pub(super) async fn size(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    (document, own): (&Document, u64),
) -> io::Result<u64> {
    let mut sum = document.size_bytes.saturating_add(own);
    for child in &document.children {
        let Child::Manifest(digest) = child else { continue };
        if let Some(stored) = manifests::find(store, tenant, digest).await?
            && let Ok(child) = Document::parse(&stored.bytes, Some(&stored.media_type))
        {
            let length = stored.bytes.len() as u64;
            sum = sum.saturating_add(child.size_bytes).saturating_add(length);
        }
    }
    Ok(sum)
}

/// What the image of a digest says; of an index, its first image. `None` when there is no such manifest. What the
/// configuration does not say, or says in a way that nobody knows, stays empty: a registry takes anything.
pub(super) async fn describe(
    store: &dyn ObjectStore,
    tenant: &TenantId,
    digest: &Digest,
) -> io::Result<Option<ImageConfig>> {
    let Some(stored) = manifests::find(store, tenant, digest).await? else {
        return Ok(None);
    };
    let Ok(mut document) = Document::parse(&stored.bytes, Some(&stored.media_type)) else {
        return Ok(Some(ImageConfig::default()));
    };
    let size_bytes = size(store, tenant, (&document, stored.bytes.len() as u64)).await?;
    if let Some(Child::Manifest(first)) = document.children.first()
        && let Some(stored) = manifests::find(store, tenant, first).await?
        && let Ok(child) = Document::parse(&stored.bytes, Some(&stored.media_type))
    {
        document = child;
    }
    let raw = match &document.config {
        Some(config) => read(store, tenant, config).await?,
        None => RawImage::default(),
    };
    let config = raw.config.unwrap_or_default();
    let platform = match (raw.os.as_str(), raw.architecture.as_str()) {
        ("", "") => String::new(),
        ("", architecture) => format!("linux/{architecture}"),
        (os, architecture) => format!("{os}/{architecture}"),
    };
    Ok(Some(ImageConfig {
        platform,
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        environment: variables(config.env.unwrap_or_default()),
        size_bytes,
    }))
}

async fn read(store: &dyn ObjectStore, tenant: &TenantId, config: &Digest) -> io::Result<RawImage> {
    let key = Key::blob(config);
    if store.size(tenant, &key).await?.is_none_or(|size| size > LIMIT) {
        return Ok(RawImage::default());
    }
    let bytes = store.get(tenant, &key).await?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

fn variables(lines: Vec<String>) -> BTreeMap<String, String> {
    lines
        .into_iter()
        .map(|line| match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (line, String::new()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{RawImage, variables};

    #[test]
    fn a_configuration_may_leave_out_everything() {
        for text in ["{}", r#"{"config": null}"#, r#"{"config": {"Env": null}}"#] {
            let image: RawImage = serde_json::from_str(text).expect("an image");
            assert!(image.config.unwrap_or_default().env.is_none());
        }
    }

    #[test]
    fn a_variable_may_hold_an_equals_sign() {
        let read = variables(vec!["A=b=c".to_owned(), "D".to_owned()]);
        assert_eq!((read["A"].as_str(), read["D"].as_str()), ("b=c", ""));
    }
}
