//! What was learned of files, in a file beside the project: one record for every file, in the order of the walk, so
//! that reading it costs no memory however many there are.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::image::context::{Entry, Stamp};
use crate::image::error::ImageError;

/// The coarsest clock of a file system that people use: a file that changed so shortly before it was looked at may
/// change again without looking different.
const RACY_NS: i64 = 2_000_000_000;
/// No path is longer: a record that says so is broken.
const LONGEST_PATH: u32 = 64 * 1024;
const BUFFER: usize = 256 * 1024;

/// Records read while they are compared: a head of `HEAD` bytes for all, and `EACH` bytes for each file.
pub(crate) struct Records<const HEAD: usize, const EACH: usize> {
    /// Where the next record is; nothing behind the last or the first broken one.
    file: Option<BufReader<File>>,
    head: Option<[u8; HEAD]>,
    /// When the files were looked at, on the file system's clock.
    started_ns: i64,
    record: Option<Record<EACH>>,
    record_count: usize,
}

struct Record<const EACH: usize> {
    path: PathBuf,
    stamp: Stamp,
    value: [u8; EACH],
}

impl<const HEAD: usize, const EACH: usize> Records<HEAD, EACH> {
    /// There are none where the file is missing or begins with another `format`.
    pub(crate) fn open(path: &Path, format: &[u8]) -> Self {
        let mut records = Self {
            file: None,
            head: None,
            started_ns: 0,
            record: None,
            record_count: 0,
        };
        let begin = || -> std::io::Result<(BufReader<File>, [u8; HEAD], i64)> {
            let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
            let mut begin = vec![0; format.len()];
            file.read_exact(&mut begin)?;
            let started_ns = i64::from_le_bytes(bytes(&mut file)?);
            let head = bytes(&mut file)?;
            if begin != format {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            Ok((file, head, started_ns))
        };
        if let Ok((file, head, started_ns)) = begin() {
            records.file = Some(file);
            records.head = Some(head);
            records.started_ns = started_ns;
            records.advance();
        }
        records
    }

    /// What holds for all of them.
    pub(crate) fn head(&self) -> Option<[u8; HEAD]> {
        self.head
    }

    /// What is known of this file, if it looks as it did then. Files must be asked for in the order of the walk.
    pub(crate) fn value(&mut self, entry: &Entry) -> Option<[u8; EACH]> {
        while let Some(record) = &self.record {
            match record.path.as_path().cmp(&entry.path) {
                Ordering::Less => self.advance(),
                Ordering::Greater => return None,
                Ordering::Equal => {
                    let changed_ns = record.stamp.modified_ns.max(record.stamp.changed_ns);
                    let is_settled = changed_ns.saturating_add(RACY_NS) < self.started_ns;
                    let value = (is_settled && record.stamp == entry.stamp).then_some(record.value);
                    self.advance();
                    return value;
                }
            }
        }
        None
    }

    /// How many records there were; all of them have been read when the last file was asked for.
    pub(crate) fn count(mut self) -> usize {
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

fn bytes<const N: usize>(file: &mut BufReader<File>) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read<const EACH: usize>(file: &mut BufReader<File>) -> std::io::Result<Record<EACH>> {
    let length = u32::from_le_bytes(bytes(file)?);
    if length > LONGEST_PATH {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut path = vec![0; length as usize];
    file.read_exact(&mut path)?;
    let stamp = Stamp {
        size_bytes: u64::from_le_bytes(bytes(file)?),
        modified_ns: i64::from_le_bytes(bytes(file)?),
        changed_ns: i64::from_le_bytes(bytes(file)?),
        inode: u64::from_le_bytes(bytes(file)?),
    };
    Ok(Record {
        path: PathBuf::from(OsStr::from_bytes(&path)),
        stamp,
        value: bytes(file)?,
    })
}

/// Records that are about to take the place of those in `path`.
pub(crate) struct Next {
    file: NamedTempFile,
    started_ns: i64,
    path: PathBuf,
}

impl Next {
    /// Begins before the files are looked at: the time counts.
    pub(crate) fn begin(path: &Path) -> Result<Self, ImageError> {
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(ImageError::file("make the folder", directory))?;
        // The file system's own clock, which the times of the files come from too.
        let file =
            NamedTempFile::new_in(directory).map_err(ImageError::file("write the cache in", directory))?;
        let now = file.as_file().metadata();
        let now = now.map_err(ImageError::file("look at", file.path()))?;
        Ok(Self {
            started_ns: now
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(now.mtime_nsec()),
            file,
            path: path.to_owned(),
        })
    }

    /// Writes the records anew, whole or not at all.
    pub(crate) fn write<'a, const HEAD: usize, const EACH: usize>(
        mut self,
        (format, head): (&[u8], [u8; HEAD]),
        files: impl Iterator<Item = (&'a Entry, [u8; EACH])>,
    ) -> Result<(), ImageError> {
        let mut writer = BufWriter::with_capacity(BUFFER, self.file.as_file_mut());
        let write = || -> std::io::Result<()> {
            writer.write_all(format)?;
            writer.write_all(&self.started_ns.to_le_bytes())?;
            writer.write_all(&head)?;
            for (entry, value) in files {
                let name = entry.path.as_os_str().as_bytes();
                writer.write_all(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes())?;
                writer.write_all(name)?;
                writer.write_all(&entry.stamp.size_bytes.to_le_bytes())?;
                writer.write_all(&entry.stamp.modified_ns.to_le_bytes())?;
                writer.write_all(&entry.stamp.changed_ns.to_le_bytes())?;
                writer.write_all(&entry.stamp.inode.to_le_bytes())?;
                writer.write_all(&value)?;
            }
            writer.flush()
        };
        write().map_err(ImageError::file("write", &self.path))?;
        drop(writer);
        let persisted = self.file.persist(&self.path);
        persisted
            .map(drop)
            .map_err(|error| ImageError::file("write", &self.path)(error.error))
    }
}
