//! Work on files that may block, and files as streams.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::api::time::Time;
use crate::server::registry::store::ByteStream;

/// How much is read at once; two such pieces are in memory for each download.
const PIECE: u64 = 256 * 1024;

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// `None` for what is not there.
pub(super) fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a folder and those above it; new ones last.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder_of(path),
    }
}

/// Renames a synced file to where it belongs; then its name lasts too.
pub(super) fn settle(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Makes the names in the folder of `path` last.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// What lies in a folder; nothing when there is no such folder.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match absent_is_none(fs::read_dir(folder))? {
        Some(found) => found.map(|entry| entry.map(|entry| entry.path())).collect(),
        None => Ok(Vec::new()),
    }
}

/// Whether a file was written last before `limit`.
pub(super) fn is_older(path: &Path, limit: Time) -> bool {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let age = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let millis = age.and_then(|age| i64::try_from(age.as_millis()).ok());
    millis.is_some_and(|millis| millis < limit.as_millis())
}

/// A time as files keep it.
pub(super) fn moment(time: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or_default())
}

/// A time in milliseconds that a file holds.
pub(super) fn read_time(path: &Path) -> io::Result<Option<Time>> {
    let text = absent_is_none(fs::read_to_string(path))?;
    Ok(text.and_then(|text| text.parse().ok()).map(Time::from_millis))
}

type Piece = JoinHandle<io::Result<(File, Bytes)>>;

fn read_piece(file: File, length: u64) -> Piece {
    spawn_blocking(move || {
        let mut piece = Vec::with_capacity(length as usize);
        (&file).take(length).read_to_end(&mut piece)?;
        match piece.len() as u64 == length {
            true => Ok((file, Bytes::from(piece))),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    })
}

/// Reads the next piece while the last one is on its way out. No thread waits for a slow client.
pub(super) fn read_ahead(file: File, length: u64) -> ByteStream {
    let first = length.min(PIECE);
    let start = (first > 0).then(|| (read_piece(file, first), length - first));
    futures::stream::try_unfold(start, |state| async move {
        let Some((running, left)) = state else {
            return Ok(None);
        };
        let (file, piece) = running.await.map_err(io::Error::other)??;
        let next = left.min(PIECE);
        let state = (next > 0).then(|| (read_piece(file, next), left - next));
        Ok(Some((piece, state)))
    })
    .boxed()
}
