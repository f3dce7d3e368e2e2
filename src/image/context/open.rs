//! Opens what the walk has seen, and nothing that has taken its place since: a pipe would be waited for for ever.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::image::context::{Entry, Stamp};
use crate::image::error::ImageError;

/// No person writes a Dockerfile of more.
const SMALL_BYTES: u64 = 4_000_000;

/// Opens the file of an entry. Links are not followed: a link that is there now was none before.
pub(crate) fn open(source: &Path, entry: &Entry) -> Result<File, ImageError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(source);
    opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        // Gone; below what is a file now; a link; a socket.
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) => changed(entry),
        _ => ImageError::file("read", source)(error),
    })
}

/// Reads a Dockerfile or an ignore file: whole, and only if it is a file of a size that people write.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "it has more than 4 MB"));
    }
    Ok(bytes)
}

/// An error unless the file, which has been read by now, is what the walk saw. Its inode is not asked for: some file
/// systems give another one every time.
pub(crate) fn is_still(file: &File, source: &Path, entry: &Entry) -> Result<(), ImageError> {
    let metadata = file.metadata().map_err(ImageError::file("look at", source))?;
    let now = Stamp {
        inode: entry.stamp.inode,
        ..stamp(&metadata)
    };
    if metadata.is_file() && now == entry.stamp {
        Ok(())
    } else {
        Err(changed(entry))
    }
}

/// What a failed read of a file says: one that ended early has become shorter.
pub(crate) fn unread(error: io::Error, source: &Path, entry: &Entry) -> ImageError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::WouldBlock | ErrorKind::IsADirectory => changed(entry),
        _ => ImageError::file("read", source)(error),
    }
}

/// The stamp of a file.
pub(super) fn stamp(metadata: &Metadata) -> Stamp {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Stamp {
        size_bytes: metadata.len(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
    }
}

fn changed(entry: &Entry) -> ImageError {
    ImageError::ContextChanged {
        path: entry.path.display().to_string(),
    }
}
