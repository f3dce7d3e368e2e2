//! What the gate asks of an object store. Keys are made here and nowhere else; each lies in one tenant's namespace.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::registry::digest::{Algorithm, Digest};
use crate::server::registry::names::UploadId;

/// Bytes as they come or go, never all at once.
pub(super) type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Names one object inside a namespace, as a relative path of checked parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// A blob.
    pub(super) fn blob(digest: &Digest) -> Self {
        Self(format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex()))
    }

    /// A manifest, with its media type on a line before it.
    pub(super) fn manifest(digest: &Digest) -> Self {
        Self(format!(
            "manifests/{}/{}",
            digest.algorithm().as_str(),
            digest.hex()
        ))
    }

    /// A tag; holds the digest that it points to.
    pub(super) fn tag(tag: &str) -> Self {
        Self(format!("{}/{tag}", Folder::tags().0))
    }

    /// The descriptor of a manifest that names `subject`.
    pub(super) fn referrer(subject: &Digest, referrer: &Digest) -> Self {
        let name = format!("{}-{}", referrer.algorithm().as_str(), referrer.hex());
        Self(format!("{}/{name}", Folder::referrers(subject).0))
    }

    /// The path below the namespace.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a folder whose objects can be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder(String);

impl Folder {
    /// All tags.
    pub(super) fn tags() -> Self {
        Self("tags".to_owned())
    }

    /// All blobs that are named by `algorithm`, each by its hex digits.
    pub(super) fn blobs(algorithm: Algorithm) -> Self {
        Self(format!("blobs/{}", algorithm.as_str()))
    }

    /// All manifests that are named by `algorithm`, each by its hex digits.
    pub(super) fn manifests(algorithm: Algorithm) -> Self {
        Self(format!("manifests/{}", algorithm.as_str()))
    }

    /// All manifests that name `subject`.
    pub(super) fn referrers(subject: &Digest) -> Self {
        Self(format!(
            "referrers/{}-{}",
            subject.algorithm().as_str(),
            subject.hex()
        ))
    }

    /// The path below the namespace.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A piece of an upload as it arrives.
pub(super) struct Part {
    /// Where it must begin; `None` goes on wherever the upload is.
    pub(super) offset: Option<u64>,
    /// How long it must be, where the client said so.
    pub(super) length: Option<u64>,
    /// Its bytes.
    pub(super) body: ByteStream,
}

/// Why an upload did not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// There is none of that id in the namespace.
    #[error("no such upload")]
    Unknown,
    /// The part does not begin where the upload ends.
    #[error("the part does not begin where the upload ends")]
    OutOfOrder,
    /// The part is longer or shorter than its head said; the upload is where it was.
    #[error("the part has another length than was said")]
    Length,
    /// The content has another digest; the upload is gone.
    #[error("the content has another digest")]
    Digest,
    /// Another request is writing to it.
    #[error("another request is writing to this upload")]
    Busy,
    /// The client went away or fell silent; what came is kept.
    #[error("failed to read the part from the client")]
    Client(#[source] io::Error),
    /// The disk failed or is full.
    #[error("failed to write the upload")]
    Store(#[from] io::Error),
}

/// Holds objects, each tenant's apart. Objects appear whole or not at all.
#[async_trait]
pub(super) trait ObjectStore: Send + Sync {
    /// The length of an object, if it is there.
    async fn size(&self, tenant: &TenantId, key: &Key) -> io::Result<Option<u64>>;
    /// A small object, whole.
    async fn get(&self, tenant: &TenantId, key: &Key) -> io::Result<Option<Bytes>>;
    /// `length` bytes of an object from `offset`, as a stream.
    async fn open(&self, tenant: &TenantId, key: &Key, offset: u64, length: u64) -> io::Result<ByteStream>;
    /// Writes a small object; replaces what was there. It counts as touched at `now`.
    async fn put(&self, tenant: &TenantId, key: &Key, bytes: Bytes, now: Time) -> io::Result<()>;
    /// Says that an object was needed at `now`; answers its length, `None` when it is not there. What is touched before a
    /// [`ObjectStore::remove_unused`] stays, also when both happen in the same moment, in two processes.
    async fn touch(&self, tenant: &TenantId, key: &Key, now: Time) -> io::Result<Option<u64>>;
    /// Removes an object that nobody has written or touched since `before`; answers its length when it did.
    async fn remove_unused(&self, tenant: &TenantId, key: &Key, before: Time) -> io::Result<Option<u64>>;
    /// Whether an object was written or touched since `limit`.
    async fn used_since(&self, tenant: &TenantId, key: &Key, limit: Time) -> io::Result<bool>;
    /// Removes an object; answers whether it was there.
    async fn remove(&self, tenant: &TenantId, key: &Key) -> io::Result<bool>;
    /// Names of the objects in a folder, sorted bytewise.
    async fn list(&self, tenant: &TenantId, folder: &Folder) -> io::Result<Vec<String>>;

    /// Begins an upload whose content will most likely be named by `algorithm`; `false` when the id is taken.
    async fn begin_upload(&self, tenant: &TenantId, id: &UploadId, algorithm: Algorithm) -> io::Result<bool>;
    /// How far an upload is, if there is one.
    async fn upload_length(&self, tenant: &TenantId, id: &UploadId) -> io::Result<Option<u64>>;
    /// Adds a part; answers how far the upload is now.
    async fn append(&self, tenant: &TenantId, id: &UploadId, part: Part) -> Result<u64, UploadError>;
    /// Makes the upload the blob `digest`, touched at `now`, if that is what it is; else removes it.
    async fn finish_upload(
        &self,
        tenant: &TenantId,
        id: &UploadId,
        digest: &Digest,
        now: Time,
    ) -> Result<(), UploadError>;
    /// Removes an upload; answers whether it was there.
    async fn cancel_upload(&self, tenant: &TenantId, id: &UploadId) -> io::Result<bool>;

    /// Whether anything is in the namespace.
    async fn has_namespace(&self, tenant: &TenantId) -> io::Result<bool>;
    /// Removes a whole namespace and remembers when.
    async fn remove_namespace(&self, tenant: &TenantId, now: Time) -> io::Result<()>;
    /// When the namespace was removed last, if that is remembered.
    async fn removed_at(&self, tenant: &TenantId) -> io::Result<Option<Time>>;
    /// Removes uploads that rest since before `limit`, leftovers of removed namespaces, and memories older than it.
    async fn sweep(&self, limit: Time) -> io::Result<()>;
    /// Whether it can be written.
    async fn ping(&self) -> io::Result<()>;
}
