//! The one who writes an upload's file, and keeps its hash in step with it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use crate::api::time::Time;
use crate::server::registry::digest::{Algorithm, Digest, Hasher};
use crate::server::registry::local::files::{absent_is_none, moment, settle};
use crate::server::registry::local::uploads::PIECE;
use crate::server::registry::store::UploadError;

/// The hash of the first `length` bytes, where it is known.
#[derive(Default)]
pub(super) struct Running {
    /// Has seen them.
    pub(super) hasher: Option<Hasher>,
    /// How many they are.
    pub(super) length: u64,
}

/// An open upload. It goes from thread to thread, and the upload's lock with it.
pub(super) struct Writer {
    file: File,
    /// How long the upload is.
    pub(super) length: u64,
    running: OwnedMutexGuard<Running>,
}

impl Writer {
    /// Opens it at its end.
    pub(super) fn open(path: &Path, mut running: OwnedMutexGuard<Running>) -> Result<Self, UploadError> {
        // It may have been finished or removed while this request waited for the lock.
        let mut file =
            absent_is_none(OpenOptions::new().write(true).open(path))?.ok_or(UploadError::Unknown)?;
        lock(&file)?;
        let length = file.seek(SeekFrom::End(0))?;
        if running.length != length {
            *running = Running::default();
        }
        if length == 0 && running.hasher.is_none() {
            *running = Running {
                hasher: Some(Hasher::new(Algorithm::Sha256)),
                length: 0,
            };
        }
        Ok(Self {
            file,
            length,
            running,
        })
    }

    /// Adds pieces; when that fails, those that were written whole stay.
    pub(super) fn write(mut self, pieces: Vec<Bytes>) -> Result<Self, UploadError> {
        let mut length = self.length;
        for piece in pieces {
            if let Err(error) = self.file.write_all(&piece) {
                // The file shall end where the hash does, also when the disk is full.
                self.cut(length)?;
                return Err(error.into());
            }
            length += piece.len() as u64;
            self.length = length;
            if let Some(hasher) = &mut self.running.hasher {
                hasher.update(&piece);
                self.running.length = length;
            }
        }
        Ok(self)
    }

    /// Shortens it to `length`.
    pub(super) fn cut(mut self, length: u64) -> Result<Self, UploadError> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.length = length;
        if self.running.length != length {
            *self.running = Running::default();
        }
        Ok(self)
    }
}

/// Renames the upload to `target` if its digest is `digest`; else removes it.
pub(super) fn finish(
    path: &Path,
    mut running: OwnedMutexGuard<Running>,
    (digest, now): (&Digest, Time),
    target: &Path,
) -> Result<(), UploadError> {
    let mut file = absent_is_none(File::open(path))?.ok_or(UploadError::Unknown)?;
    lock(&file)?;
    let length = file.metadata()?.len();
    let known = running.length == length;
    let found = match running.hasher.take() {
        Some(hasher) if known && hasher.algorithm() == digest.algorithm() => hasher.finish(),
        _ => hash(&mut file, digest.algorithm())?,
    };
    if found != *digest {
        fs::remove_file(path)?;
        return Err(UploadError::Digest);
    }
    // It may have rested before its end; its content is needed from now on.
    file.set_modified(moment(now))?;
    file.sync_all()?;
    absent_is_none(settle(path, target))?.ok_or(UploadError::Unknown)
}

/// Holds the file against other servers of the same folder until it is closed.
fn lock(file: &File) -> Result<(), UploadError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(UploadError::Busy),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn hash(file: &mut File, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            length => hasher.update(&piece[..length]),
        }
    }
}
