//! What a path under `/v2/` names. Everything is checked here, so that no name can leave its folder.

use uuid::Uuid;

use crate::server::registry::digest::Digest;
use crate::server::registry::error::RegistryError;

/// What a request is about, below the repository's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/v2/` itself.
    Base,
    /// `blobs/<digest>`.
    Blob(String),
    /// `blobs/uploads/`.
    Uploads,
    /// `blobs/uploads/<id>`.
    Upload(String),
    /// `manifests/<reference>`.
    Manifest(String),
    /// `tags/list`.
    Tags,
    /// `referrers/<digest>`.
    Referrers(String),
}

type Kind = fn(String) -> Target;

impl Target {
    /// Splits what follows `/v2/` into the repository's name (which may hold slashes) and the target.
    pub(super) fn parse(rest: &str) -> Option<(&str, Self)> {
        if rest.is_empty() {
            return Some(("", Self::Base));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Some((name, Self::Tags));
        }
        let uploads = rest
            .strip_suffix("/blobs/uploads/")
            .or_else(|| rest.strip_suffix("/blobs/uploads"));
        if let Some(name) = uploads {
            return Some((name, Self::Uploads));
        }
        let (head, last) = rest.rsplit_once('/')?;
        let last = last.to_owned();
        let kinds: [(&str, Kind); 4] = [
            ("/blobs/uploads", Self::Upload),
            ("/blobs", Self::Blob),
            ("/manifests", Self::Manifest),
            ("/referrers", Self::Referrers),
        ];
        kinds
            .into_iter()
            .find_map(|(suffix, kind)| Some((head.strip_suffix(suffix)?, kind(last.clone()))))
    }
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// By a tag.
    Tag(String),
    /// By its content.
    Digest(Digest),
}

impl Reference {
    /// A tag or a digest; what has a colon can only be a digest.
    pub(super) fn parse(text: &str) -> Result<Self, RegistryError> {
        if text.contains(':') {
            return parse_digest(text).map(Self::Digest);
        }
        match is_tag(text) {
            true => Ok(Self::Tag(text.to_owned())),
            false => Err(RegistryError::manifest_invalid(
                "the reference is neither a tag nor a digest",
            )),
        }
    }
}

/// A digest, or the answer 400 `DIGEST_INVALID`.
pub(super) fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(|_| RegistryError::digest_malformed())
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`: can be a file name, cannot be hidden, cannot go up.
pub(super) fn is_tag(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    first && rest && text.len() <= 128
}

/// Names one upload inside one namespace. Not a secret: in another namespace it means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UploadId(String);

impl UploadId {
    /// A new one.
    pub(super) fn new(uuid: Uuid) -> Self {
        Self(uuid.simple().to_string())
    }

    /// The id that `text` spells; anything else is an upload that nobody knows.
    pub(super) fn parse(text: &str) -> Result<Self, RegistryError> {
        match text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            true => Ok(Self(text.to_owned())),
            false => Err(RegistryError::upload_unknown()),
        }
    }

    /// As it stands in the `Location`.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, UploadId, is_tag};

    #[test]
    fn paths_name_their_targets() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let cases = [
            ("", "", Target::Base),
            ("a/tags/list", "a", Target::Tags),
            ("a/b/blobs/uploads/", "a/b", Target::Uploads),
            ("a/blobs/uploads", "a", Target::Uploads),
            ("a/blobs/uploads/x", "a", Target::Upload("x".into())),
            ("a/manifests/v1", "a", Target::Manifest("v1".into())),
            (
                "manifests/manifests/manifests/v1",
                "manifests/manifests",
                Target::Manifest("v1".into()),
            ),
        ];
        for (path, name, target) in cases {
            assert_eq!(Target::parse(path), Some((name, target)), "{path}");
        }
        assert_eq!(
            Target::parse(&format!("a/blobs/{digest}")),
            Some(("a", Target::Blob(digest.clone())))
        );
        assert_eq!(
            Target::parse(&format!("a/referrers/{digest}")),
            Some(("a", Target::Referrers(digest)))
        );
        assert_eq!(Target::parse("_catalog"), None);
        assert_eq!(Target::parse("a/nonsense/b"), None);
    }

    #[test]
    fn names_never_leave_their_folder() {
        assert!(is_tag("tenant-ten_01") && is_tag("_x") && is_tag(&"a".repeat(128)));
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-a",
            "a/b",
            "a\\b",
            "a b",
            "ä",
            "a%2f",
            "a\0",
            &"a".repeat(129),
        ] {
            assert!(!is_tag(bad), "{bad:?}");
        }
        for bad in [
            "..",
            "",
            "0123456789abcdef0123456789abcde/",
            "0123456789ABCDEF0123456789ABCDEF",
        ] {
            assert!(UploadId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn outside_bytes_as_registry_name() {
        let seeds: [&[u8]; 6] = [
            b"systemprompt-images/manifests/tenant-ten_01m7yf8m6vebvts9qd0abfmdcn",
            b"systemprompt-images/blobs/sha256:3fd1b68ff00375242cf64ac24891202d73d42330de72736b3bb5036393ecabc1",
            b"systemprompt-images/blobs/uploads/0195f0a1-0000-7000-8000-000000000000",
            b"systemprompt-images/tags/list",
            b"a/b/c/referrers/sha512:00",
            b"blobs/uploads/",
        ];
        crate::mutation::torment(&seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let last = text.rsplit('/').next().unwrap_or_default();
            if let Ok(id) = super::UploadId::parse(last) {
                // It becomes the name of a file.
                assert!(!id.as_str().contains(['/', '.', '\0']));
            }
            if let Ok(digest) = super::parse_digest(last) {
                assert!(digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
            }
            let parsed = super::Target::parse(&text).map(|(name, _)| name.len());
            (
                super::Reference::parse(last).is_ok(),
                super::is_tag(last),
                parsed.is_some(),
            )
        });
    }
}
