//! Uploads in a local folder: the file is the upload, its length is how far it is; so uploads outlive the server.
//!
//! What is kept in memory is only the running hash, which saves reading the file again at the end. Each piece is
//! hashed and written on a thread that may block while the next piece arrives. That thread owns the upload's lock:
//! a request that is cut off in the middle leaves file and hash in step.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::api::time::Time;
use crate::server::registry::digest::{Algorithm, Digest, Hasher};
use crate::server::registry::error::is_full;
use crate::server::registry::local::files::{absent_is_none, blocking, make_folder};
use crate::server::registry::local::writer::{Running, Writer, finish};
use crate::server::registry::store::{Part, UploadError};

/// How much is gathered before it is written; two such pieces are in memory for each upload.
pub(super) const PIECE: usize = 256 * 1024;
/// A client that is silent for so long is gone.
pub(in crate::server::registry) const SILENCE: Duration = Duration::from_secs(60);
/// Running hashes that are kept for uploads that nobody writes to at the moment.
const IDLE_SESSIONS: usize = 1024;

type Session = Arc<tokio::sync::Mutex<Running>>;

/// All uploads of all namespaces, by the path of their file.
#[derive(Default)]
pub(super) struct LocalUploads {
    sessions: Mutex<HashMap<PathBuf, Session>>,
}

impl LocalUploads {
    /// Makes an empty upload; `false` when there is one already.
    pub(super) async fn begin(&self, path: PathBuf, algorithm: Algorithm) -> io::Result<bool> {
        let file = path.clone();
        let made = blocking(move || {
            if let Some(folder) = file.parent() {
                make_folder(folder)?;
            }
            match OpenOptions::new().write(true).create_new(true).open(file) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                result => result.map(|_| true),
            }
        })
        .await?;
        if made {
            let running = Running {
                hasher: Some(Hasher::new(algorithm)),
                length: 0,
            };
            self.sessions()
                .insert(path, Arc::new(tokio::sync::Mutex::new(running)));
        }
        Ok(made)
    }

    /// Adds a part; answers how far the upload is now.
    pub(super) async fn append(&self, path: PathBuf, part: Part) -> Result<u64, UploadError> {
        let guard = self.lock(&path).await?;
        let file = path.clone();
        let writer = hand_over(spawn_blocking(move || Writer::open(&file, guard))).await?;
        if part.offset.is_some_and(|offset| offset != writer.length) {
            return Err(UploadError::OutOfOrder);
        }
        let result = write_part(writer, part).await;
        if let Err(UploadError::Store(error)) = &result
            && is_full(error)
        {
            // The client begins anew in any case; what it left behind would keep the disk full.
            self.cancel(path).await?;
        }
        result
    }

    /// Renames the upload to `target` if its digest is `digest`; else removes it.
    pub(super) async fn finish(
        &self,
        path: PathBuf,
        digest: Digest,
        target: PathBuf,
        now: Time,
    ) -> Result<(), UploadError> {
        let guard = self.lock(&path).await?;
        let file = path.clone();
        let result = hand_over(spawn_blocking(move || {
            finish(&file, guard, (&digest, now), &target)
        }))
        .await;
        match result {
            Err(UploadError::Store(error)) if is_full(&error) => {
                self.cancel(path).await?;
                Err(UploadError::Store(error))
            }
            result => {
                self.sessions().remove(&path);
                result
            }
        }
    }

    /// Removes an upload; answers whether it was there.
    pub(super) async fn cancel(&self, path: PathBuf) -> io::Result<bool> {
        self.sessions().remove(&path);
        blocking(move || Ok(absent_is_none(fs::remove_file(path))?.is_some())).await
    }

    async fn lock(&self, path: &Path) -> Result<OwnedMutexGuard<Running>, UploadError> {
        let file = path.to_owned();
        if blocking(move || absent_is_none(fs::metadata(file)))
            .await?
            .is_none()
        {
            return Err(UploadError::Unknown);
        }
        let session = self.session(path);
        timeout(SILENCE, session.lock_owned())
            .await
            .map_err(|_| UploadError::Busy)
    }

    fn session(&self, path: &Path) -> Session {
        let mut sessions = self.sessions();
        if sessions.len() > IDLE_SESSIONS {
            sessions.retain(|_, session| Arc::strong_count(session) > 1);
        }
        Arc::clone(sessions.entry(path.to_owned()).or_default())
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hand_over<T>(running: JoinHandle<Result<T, UploadError>>) -> Result<T, UploadError> {
    running.await.map_err(io::Error::other)?
}

async fn write_part(writer: Writer, mut part: Part) -> Result<u64, UploadError> {
    let start = writer.length;
    let mut running = spawn_blocking(move || writer.write(Vec::new()));
    let mut pending = Vec::new();
    let mut pending_length = 0;
    let mut received = 0;
    let end = loop {
        match timeout(SILENCE, part.body.next()).await {
            Err(_) => break Err(UploadError::Client(io::ErrorKind::TimedOut.into())),
            Ok(Some(Err(error))) => break Err(UploadError::Client(error)),
            Ok(None) => break Ok(()),
            Ok(Some(Ok(bytes))) => {
                received += bytes.len() as u64;
                if part.length.is_some_and(|length| received > length) {
                    break Err(UploadError::Length);
                }
                pending_length += bytes.len();
                pending.push(bytes);
            }
        }
        if pending_length >= PIECE {
            let writer = hand_over(running).await?;
            let pieces = std::mem::take(&mut pending);
            pending_length = 0;
            running = spawn_blocking(move || writer.write(pieces));
        }
    };
    let end = match end {
        Ok(()) if part.length.is_some_and(|length| received != length) => Err(UploadError::Length),
        end => end,
    };
    let writer = hand_over(running).await?;
    let writer = match end {
        // What was said and what came differ: then nothing of it is trusted.
        Err(UploadError::Length) => hand_over(spawn_blocking(move || writer.cut(start))).await?,
        _ => hand_over(spawn_blocking(move || writer.write(pending))).await?,
    };
    end.map(|()| writer.length)
}
