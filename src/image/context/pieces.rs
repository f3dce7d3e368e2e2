//! The tar archive of a context in pieces that are made apart from each other, on as many threads as there are: put
//! together in order they are one archive, the same for the same files.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::mem;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tar::{EntryType, Header};

use crate::image::context::{Context, Entry, EntryKind, is_still, open, unread};
use crate::image::error::ImageError;

/// How large a piece is, or hardly more.
const PIECE_BYTES: u64 = 512 * 1024;
/// A piece has headers too, and the last small file may reach over its end: so much memory is asked for at once.
const ROOM_BYTES: usize = 2 * PIECE_BYTES as usize + 8 * BLOCK;
const BLOCK: usize = 512;
/// What an entry is called that is the name of the next one.
const LONG: &[u8] = b"././@LongLink";
/// 1980-01-01, the first day that every archive format can write.
pub(crate) const FIXED_TIME_SECONDS: u64 = 315_532_800;

/// Which part of the archive a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// These entries whole.
    Entries(Range<usize>),
    /// Some bytes of one large file.
    Slice(usize, Range<u64>),
    /// The end of the archive.
    End,
}

/// Memory of pieces that are sent, for the next ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Vec::with_capacity(ROOM_BYTES))
    }
}

/// A piece that is being sent.
struct Lent {
    bytes: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.clear();
        let free = self.pool.0.lock();
        free.unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

/// A piece of the archive.
pub(super) struct Piece {
    bytes: Vec<u8>,
    pool: Pool,
    /// How much of that is the content of files.
    pub(super) content_bytes: u64,
    /// No piece comes after it.
    pub(super) is_last: bool,
}

/// Makes every `of`-th piece, beginning with number `first`.
pub(super) fn pieces(
    context: &Context,
    pool: Pool,
    (first, of): (usize, usize),
) -> impl Iterator<Item = Result<Piece, ImageError>> + '_ {
    // Compilers behind `--mount=type=cache` compare times: a file that is new must look new.
    let keeps_times = context.dockerfile().has_cache_mounts();
    Parts::of(context.entries())
        .skip(first)
        .step_by(of)
        .map(move |part| piece(context, &pool, &part, keeps_times))
}

/// Cuts a list of entries; the same list is always cut at the same places.
struct Parts<'a> {
    entries: &'a [Entry],
    next: usize,
    /// How much of the entry `next` is cut off already.
    done_bytes: u64,
    is_over: bool,
}

impl<'a> Parts<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        Self {
            entries,
            next: 0,
            done_bytes: 0,
            is_over: false,
        }
    }

    fn size(&self, index: usize) -> Option<u64> {
        let entry = self.entries.get(index)?;
        Some(if entry.kind == EntryKind::File {
            entry.stamp.size_bytes
        } else {
            0
        })
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let Some(size) = self.size(self.next) else {
            let is_first = !std::mem::replace(&mut self.is_over, true);
            return is_first.then_some(Part::End);
        };
        let begin = self.next;
        if size > PIECE_BYTES {
            let from = self.done_bytes;
            self.done_bytes = size.min(from + PIECE_BYTES);
            let slice = from..self.done_bytes;
            if self.done_bytes == size {
                self.next += 1;
                self.done_bytes = 0;
            }
            return Some(Part::Slice(begin, slice));
        }
        let mut bytes = 0;
        while let Some(size) = self.size(self.next).filter(|size| *size <= PIECE_BYTES) {
            bytes += size + BLOCK as u64;
            self.next += 1;
            if bytes >= PIECE_BYTES {
                break;
            }
        }
        Some(Part::Entries(begin..self.next))
    }
}

fn piece(context: &Context, pool: &Pool, part: &Part, keeps_times: bool) -> Result<Piece, ImageError> {
    let mut piece = Piece {
        bytes: pool.take(),
        pool: pool.clone(),
        content_bytes: 0,
        is_last: false,
    };
    match part {
        Part::Entries(range) => {
            for entry in context.entries().get(range.clone()).unwrap_or_default() {
                head(&mut piece.bytes, entry, keeps_times);
                if entry.kind == EntryKind::File {
                    piece.content(context, entry, 0..entry.stamp.size_bytes)?;
                }
            }
        }
        Part::Slice(index, slice) => {
            if let Some(entry) = context.entries().get(*index) {
                if slice.start == 0 {
                    head(&mut piece.bytes, entry, keeps_times);
                }
                piece.content(context, entry, slice.clone())?;
            }
        }
        Part::End => {
            piece.bytes.resize(2 * BLOCK, 0);
            piece.is_last = true;
        }
    }
    Ok(piece)
}

impl Piece {
    /// What is sent. Its memory comes back when that is done.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(Lent {
            bytes: self.bytes,
            pool: self.pool,
        })
    }

    /// Appends these bytes of the file, and fills the last block of it up.
    fn content(&mut self, context: &Context, entry: &Entry, slice: Range<u64>) -> Result<(), ImageError> {
        let source = context.source(entry);
        let file = open(&source, entry)?;
        let count = slice.end - slice.start;
        let mut read = || {
            if slice.start > 0 {
                (&file).seek(SeekFrom::Start(slice.start))?;
            }
            (&file).take(count).read_to_end(&mut self.bytes)
        };
        let read_count = read().map_err(|error| unread(error, &source, entry))?;
        is_still(&file, &source, entry)?;
        if read_count as u64 != count {
            // It was another in between.
            return Err(unread(io::ErrorKind::UnexpectedEof.into(), &source, entry));
        }
        self.content_bytes += count;
        if slice.end == entry.stamp.size_bytes {
            self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        }
        Ok(())
    }
}

/// Appends the header of an entry, with what comes before it when a name is long. By hand, because the crate's own way
/// refuses long names that are not UTF-8.
fn head(bytes: &mut Vec<u8>, entry: &Entry, keeps_times: bool) {
    let name = entry.path.as_os_str().as_bytes();
    let (kind, target) = match &entry.kind {
        EntryKind::Folder => (EntryType::Directory, None),
        EntryKind::Link(target) => (EntryType::Symlink, Some(target.as_os_str().as_bytes())),
        EntryKind::File => (EntryType::Regular, None),
    };
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(entry.mode);
    let seconds = u64::try_from(entry.stamp.modified_ns / 1_000_000_000).unwrap_or(0);
    header.set_mtime(if keeps_times { seconds } else { FIXED_TIME_SECONDS });
    header.set_size(entry.stamp.size_bytes);
    header.set_entry_type(kind);
    if let Some(fields) = header.as_gnu_mut() {
        long(bytes, EntryType::GNULongName, name, &mut fields.name);
        if let Some(target) = target {
            long(bytes, EntryType::GNULongLink, target, &mut fields.linkname);
        }
    }
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
}

/// Writes a name into its field; all of it before the header where it does not fit.
fn long(bytes: &mut Vec<u8>, kind: EntryType, name: &[u8], field: &mut [u8]) {
    if name.len() > field.len() {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(name.len() as u64 + 1);
        if let Some(fields) = header.as_gnu_mut() {
            copy(LONG, &mut fields.name);
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(name);
        bytes.push(0);
        let full = bytes.len().next_multiple_of(BLOCK);
        bytes.resize(full, 0);
    }
    copy(name, field);
}

fn copy(from: &[u8], to: &mut [u8]) {
    from.iter().zip(to).for_each(|(from, to)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::{PIECE_BYTES, Part, Parts};
    use crate::image::context::Entry;

    fn file(size_bytes: u64) -> Entry {
        Entry::of_size("a", size_bytes)
    }

    #[test]
    fn small_files_go_together_and_large_ones_in_slices() {
        let large = PIECE_BYTES * 2 + 1;
        let entries = [file(1), file(0), file(large), file(PIECE_BYTES), file(2)];
        let parts: Vec<Part> = Parts::of(&entries).collect();
        assert_eq!(
            parts,
            [
                Part::Entries(0..2),
                Part::Slice(2, 0..PIECE_BYTES),
                Part::Slice(2, PIECE_BYTES..PIECE_BYTES * 2),
                Part::Slice(2, PIECE_BYTES * 2..large),
                Part::Entries(3..4),
                Part::Entries(4..5),
                Part::End,
            ]
        );
        assert_eq!(Parts::of(&[]).collect::<Vec<_>>(), [Part::End]);
    }
}
