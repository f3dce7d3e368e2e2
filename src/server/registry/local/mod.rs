//! The object store in a local folder: `<root>/<tenant>/{blobs,manifests,tags,referrers,uploads}`.
//!
//! Objects are written into `uploads`, synced and renamed to where they belong, so whatever is killed leaves
//! nothing but files in `uploads`, which the sweep removes.

mod files;
mod uploads;
mod writer;

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::registry::digest::{Algorithm, Digest};
use crate::server::registry::local::files::{
    absent_is_none, blocking, entries, is_older, make_folder, moment, read_ahead, read_time, settle,
    sync_folder_of,
};
use crate::server::registry::local::uploads::LocalUploads;
use crate::server::registry::names::UploadId;
use crate::server::registry::store::{ByteStream, Folder, Key, ObjectStore, Part, UploadError};

pub(super) use crate::server::registry::local::uploads::SILENCE;

/// Where the times of removals are kept; no tenant id begins with a dot.
const REMOVED: &str = ".removed";
/// Under which names removed namespaces wait for their deletion.
const DYING: &str = ".dying-";

/// An object store in a folder.
pub(super) struct LocalStore {
    root: PathBuf,
    uploads: LocalUploads,
}

impl LocalStore {
    /// Opens the folder `root`, making it where it is not.
    pub(super) async fn open(root: PathBuf) -> io::Result<Self> {
        let folder = root.join(REMOVED);
        blocking(move || make_folder(&folder)).await?;
        Ok(Self {
            root,
            uploads: LocalUploads::default(),
        })
    }

    fn namespace(&self, tenant: &TenantId) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    fn path(&self, tenant: &TenantId, key: &Key) -> PathBuf {
        self.namespace(tenant).join(key.as_str())
    }

    fn upload(&self, tenant: &TenantId, id: &UploadId) -> PathBuf {
        self.namespace(tenant).join("uploads").join(id.as_str())
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn size(&self, tenant: &TenantId, key: &Key) -> io::Result<Option<u64>> {
        let path = self.path(tenant, key);
        blocking(move || absent_is_none(fs::metadata(path)).map(|found| found.map(|meta| meta.len()))).await
    }

    async fn get(&self, tenant: &TenantId, key: &Key) -> io::Result<Option<Bytes>> {
        let path = self.path(tenant, key);
        blocking(move || absent_is_none(fs::read(path)).map(|found| found.map(Bytes::from))).await
    }

    async fn open(&self, tenant: &TenantId, key: &Key, offset: u64, length: u64) -> io::Result<ByteStream> {
        let path = self.path(tenant, key);
        let file = blocking(move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        })
        .await?;
        Ok(read_ahead(file, length))
    }

    async fn put(&self, tenant: &TenantId, key: &Key, bytes: Bytes, now: Time) -> io::Result<()> {
        let path = self.path(tenant, key);
        let nursery = self.namespace(tenant).join("uploads");
        blocking(move || {
            make_folder(&nursery)?;
            let mut file = tempfile::Builder::new().prefix(".put-").tempfile_in(&nursery)?;
            file.write_all(&bytes)?;
            file.as_file().set_modified(moment(now))?;
            file.as_file().sync_all()?;
            let temporary = file.into_temp_path();
            settle(&temporary, &path)?;
            // It is renamed already; there is nothing left to remove.
            let _ = temporary.keep();
            Ok(())
        })
        .await
    }

    async fn touch(&self, tenant: &TenantId, key: &Key, now: Time) -> io::Result<Option<u64>> {
        let path = self.path(tenant, key);
        blocking(move || {
            let Some(file) = absent_is_none(File::options().write(true).open(&path))? else {
                return Ok(None);
            };
            file.set_modified(moment(now))?;
            // Renamed away in between, it is touched where it is now, and comes back; until then it is not here.
            absent_is_none(fs::metadata(&path)).map(|found| found.map(|meta| meta.len()))
        })
        .await
    }

    async fn remove_unused(&self, tenant: &TenantId, key: &Key, before: Time) -> io::Result<Option<u64>> {
        let path = self.path(tenant, key);
        let nursery = self.namespace(tenant).join("uploads");
        blocking(move || {
            if !path.exists() || !is_older(&path, before) {
                return Ok(None);
            }
            make_folder(&nursery)?;
            let away = tempfile::Builder::new()
                .prefix(".dead-")
                .tempfile_in(&nursery)?
                .into_temp_path();
            if absent_is_none(fs::rename(&path, &away))?.is_none() {
                return Ok(None);
            }
            // Whoever touched it before it was renamed relies on it; whoever looks for it now knows that it is gone.
            if !is_older(&away, before) {
                if !path.exists() {
                    settle(&away, &path)?;
                    let _ = away.keep();
                }
                return Ok(None);
            }
            let length = fs::metadata(&away)?.len();
            sync_folder_of(&path)?;
            away.close()?;
            Ok(Some(length))
        })
        .await
    }

    async fn used_since(&self, tenant: &TenantId, key: &Key, limit: Time) -> io::Result<bool> {
        let path = self.path(tenant, key);
        blocking(move || Ok(path.exists() && !is_older(&path, limit))).await
    }

    async fn remove(&self, tenant: &TenantId, key: &Key) -> io::Result<bool> {
        let path = self.path(tenant, key);
        blocking(move || {
            let gone = absent_is_none(fs::remove_file(&path))?.is_some();
            if gone {
                sync_folder_of(&path)?;
            }
            Ok(gone)
        })
        .await
    }

    async fn list(&self, tenant: &TenantId, folder: &Folder) -> io::Result<Vec<String>> {
        let path = self.namespace(tenant).join(folder.as_str());
        blocking(move || {
            let mut names: Vec<String> = entries(&path)?
                .into_iter()
                .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .collect();
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    async fn begin_upload(&self, tenant: &TenantId, id: &UploadId, algorithm: Algorithm) -> io::Result<bool> {
        self.uploads.begin(self.upload(tenant, id), algorithm).await
    }

    async fn upload_length(&self, tenant: &TenantId, id: &UploadId) -> io::Result<Option<u64>> {
        let path = self.upload(tenant, id);
        blocking(move || absent_is_none(fs::metadata(path)).map(|found| found.map(|meta| meta.len()))).await
    }

    async fn append(&self, tenant: &TenantId, id: &UploadId, part: Part) -> Result<u64, UploadError> {
        self.uploads.append(self.upload(tenant, id), part).await
    }

    async fn finish_upload(
        &self,
        tenant: &TenantId,
        id: &UploadId,
        digest: &Digest,
        now: Time,
    ) -> Result<(), UploadError> {
        let target = self.path(tenant, &Key::blob(digest));
        self.uploads
            .finish(self.upload(tenant, id), digest.clone(), target, now)
            .await
    }

    async fn cancel_upload(&self, tenant: &TenantId, id: &UploadId) -> io::Result<bool> {
        self.uploads.cancel(self.upload(tenant, id)).await
    }

    async fn has_namespace(&self, tenant: &TenantId) -> io::Result<bool> {
        tokio::fs::try_exists(self.namespace(tenant)).await
    }

    async fn remove_namespace(&self, tenant: &TenantId, now: Time) -> io::Result<()> {
        let root = self.root.clone();
        let namespace = self.namespace(tenant);
        let name = tenant.as_str().to_owned();
        blocking(move || {
            let removed = root.join(REMOVED);
            let mut note = tempfile::NamedTempFile::new_in(&removed)?;
            note.write_all(now.as_millis().to_string().as_bytes())?;
            note.as_file().sync_all()?;
            note.persist(removed.join(&name)).map_err(|error| error.error)?;
            // Renamed first, so that it is gone at once however long the deletion takes.
            let dying = tempfile::Builder::new().prefix(DYING).tempdir_in(&root)?;
            if absent_is_none(fs::rename(&namespace, dying.path().join(&name)))?.is_some() {
                File::open(&root)?.sync_all()?;
            }
            dying.close()
        })
        .await
    }

    async fn removed_at(&self, tenant: &TenantId) -> io::Result<Option<Time>> {
        let path = self.root.join(REMOVED).join(tenant.as_str());
        blocking(move || read_time(&path)).await
    }

    async fn sweep(&self, limit: Time) -> io::Result<()> {
        let root = self.root.clone();
        let stale = blocking(move || {
            for path in entries(&root.join(REMOVED))? {
                if is_older(&path, limit) {
                    absent_is_none(fs::remove_file(&path))?;
                }
            }
            let mut stale = Vec::new();
            for path in entries(&root)? {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if name.starts_with(DYING) && is_older(&path, limit) {
                    absent_is_none(fs::remove_dir_all(&path))?;
                } else if name.parse::<TenantId>().is_ok() {
                    stale.extend(entries(&path.join("uploads"))?);
                }
            }
            stale.retain(|path| is_older(path, limit));
            Ok(stale)
        })
        .await?;
        for path in stale {
            self.uploads.cancel(path).await?;
        }
        Ok(())
    }

    async fn ping(&self) -> io::Result<()> {
        let root = self.root.clone();
        blocking(move || tempfile::tempfile_in(root).and_then(|mut file| file.write_all(b"ping"))).await
    }
}
