//! The contents that were hashed before, in a file beside the project: one record for every file, in the order of the
//! walk, so that reading it costs no memory however many there are.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::image::context::{Entry, Stamp};
use crate::image::error::ImageError;

/// Begins the file; a change of the records changes the number.
const FORMAT: &[u8] = b"systemprompt-files-1\n";
/// The coarsest clock of a file system that people use: a file that changed so shortly before it was hashed may
/// change again without looking different.
const RACY_NS: i64 = 2_000_000_000;
/// No path is longer: a record that says so is broken.
const LONGEST_PATH: u32 = 64 * 1024;
const BUFFER: usize = 256 * 1024;

/// SHA-256 of a file's content.
pub(super) type Digest = [u8; 32];

/// What is known, read while it is compared.
pub(super) struct Known {
    /// Where the next record is; nothing behind the last or the first broken one.
    file: Option<BufReader<File>>,
    /// When the hashing began, on the file system's clock.
    started_ns: i64,
    record: Option<Record>,
    record_count: usize,
}

struct Record {
    path: PathBuf,
    stamp: Stamp,
    digest: Digest,
}

impl Known {
    /// Nothing is known where the file is missing or of another format.
    pub(super) fn open(path: &Path) -> Self {
        let mut known = Self {
            file: None,
            started_ns: 0,
            record: None,
            record_count: 0,
        };
        let begin = || -> std::io::Result<(BufReader<File>, i64)> {
            let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
            let mut format = [0; FORMAT.len()];
            file.read_exact(&mut format)?;
            let started_ns = i64::from_le_bytes(number(&mut file)?);
            if format != FORMAT {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            Ok((file, started_ns))
        };
        if let Ok((file, started_ns)) = begin() {
            known.file = Some(file);
            known.started_ns = started_ns;
            known.advance();
        }
        known
    }

    /// The digest of this file, if it looks as it did then. Files must be asked for in the order of the walk.
    pub(super) fn digest(&mut self, entry: &Entry) -> Option<Digest> {
        while let Some(record) = &self.record {
            match record.path.as_path().cmp(&entry.path) {
                Ordering::Less => self.advance(),
                Ordering::Greater => return None,
                Ordering::Equal => {
                    let changed_ns = record.stamp.modified_ns.max(record.stamp.changed_ns);
                    let is_settled = changed_ns.saturating_add(RACY_NS) < self.started_ns;
                    let digest = (is_settled && record.stamp == entry.stamp).then_some(record.digest);
                    self.advance();
                    return digest;
                }
            }
        }
        None
    }

    /// How many records there were; all of them have been read when the last file was asked for.
    pub(super) fn count(mut self) -> usize {
        while self.record.is_some() {
            self.advance();
        }
        self.record_count
    }

    fn advance(&mut self) {
        self.record = self.file.as_mut().and_then(|file| read(file).ok());
        match self.record {
            Some(_) => self.record_count += 1,
            None => self.file = None,
        }
    }
}

fn number<const N: usize>(file: &mut BufReader<File>) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read(file: &mut BufReader<File>) -> std::io::Result<Record> {
    let length = u32::from_le_bytes(number(file)?);
    if length > LONGEST_PATH {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; length as usize];
    file.read_exact(&mut path)?;
    let stamp = Stamp {
        size_bytes: u64::from_le_bytes(number(file)?),
        modified_ns: i64::from_le_bytes(number(file)?),
        changed_ns: i64::from_le_bytes(number(file)?),
        inode: u64::from_le_bytes(number(file)?),
    };
    Ok(Record {
        path: PathBuf::from(OsStr::from_bytes(&path)),
        stamp,
        digest: number(file)?,
    })
}

/// Writes the records anew, whole or not at all. `next` lies beside the file.
pub(super) fn remember<'a>(
    files: impl Iterator<Item = (&'a Entry, Digest)>,
    started_ns: i64,
    mut next: tempfile::NamedTempFile,
    path: &Path,
) -> Result<(), ImageError> {
    let mut writer = BufWriter::with_capacity(BUFFER, next.as_file_mut());
    let write = || -> std::io::Result<()> {
        writer.write_all(FORMAT)?;
        writer.write_all(&started_ns.to_le_bytes())?;
        for (entry, digest) in files {
            let name = entry.path.as_os_str().as_bytes();
            writer.write_all(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes())?;
            writer.write_all(name)?;
            writer.write_all(&entry.stamp.size_bytes.to_le_bytes())?;
            writer.write_all(&entry.stamp.modified_ns.to_le_bytes())?;
            writer.write_all(&entry.stamp.changed_ns.to_le_bytes())?;
            writer.write_all(&entry.stamp.inode.to_le_bytes())?;
            writer.write_all(&digest)?;
        }
        writer.flush()
    };
    write().map_err(ImageError::file("write", path))?;
    drop(writer);
    next.persist(path)
        .map(drop)
        .map_err(|error| ImageError::file("write", path)(error.error))
}
