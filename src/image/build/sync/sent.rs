//! In which build each file was sent as it is now. The engine tells changed files by size and time; the times in an
//! image are the same everywhere, so the number of the build stands where the nanoseconds of the time do: no layer
//! keeps them.

use std::fs::File;
use std::path::Path;

use uuid::Uuid;

use crate::image::context::{Context, EntryKind};
use crate::image::error::ImageError;
use crate::image::records::{Next, Records};

/// Begins the file; a change of the records changes the number.
const FORMAT: &[u8] = b"systemprompt-sent-1\n";
/// Under which key the engine keeps its copy, and the number of the last build.
const HEAD_BYTES: usize = 20;
/// A second has no more nanoseconds.
const LAST_BUILD: u32 = 999_999_999;

/// What each entry of a context was sent as. While this lives, no other build of the project is numbered.
pub(super) struct Sent {
    key: Uuid,
    builds: Vec<u32>,
    _lock: File,
}

impl Sent {
    /// Numbers a build, and writes down what it is going to send before anything is sent: a number is never used for
    /// two contents, whatever is killed in between. Nothing where that cannot be written, and for the first build of a
    /// project here: engines before 23 give folders in their copy the time of copying, so that what is built only once
    /// on a machine, as in CI, would make other layers than everywhere else.
    pub(super) fn look(context: &Context, directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).ok()?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join("sent.lock"))
            .ok()?;
        lock.try_lock().ok()?;
        let numbered = number(context, &directory.join("sent"));
        let (key, builds) = numbered.ok()??;
        Some(Self {
            key,
            builds,
            _lock: lock,
        })
    }

    /// The engine keeps one copy under each key.
    pub(super) fn key(&self) -> String {
        self.key.simple().to_string()
    }

    /// The build in which the entry of this index was last found changed; 0 for what has no content.
    pub(super) fn build(&self, index: usize) -> u32 {
        self.builds.get(index).copied().unwrap_or_default()
    }
}

fn number(context: &Context, path: &Path) -> Result<Option<(Uuid, Vec<u32>)>, ImageError> {
    let next = Next::begin(path)?;
    let mut records = Records::<HEAD_BYTES, 4>::open(path, FORMAT);
    let known = records.head().map(read_head);
    let Some((key, last)) = known.filter(|(_, last)| *last < LAST_BUILD) else {
        let head = write_head(Uuid::new_v4(), 0);
        next.write::<HEAD_BYTES, 4>((FORMAT, head), std::iter::empty())?;
        return Ok(None);
    };
    let this = last + 1;
    let mut number = |entry| records.value(entry).map_or(this, u32::from_le_bytes);
    let builds: Vec<u32> = context
        .entries()
        .iter()
        .map(|entry| {
            if entry.kind == EntryKind::File {
                number(entry)
            } else {
                0
            }
        })
        .collect();
    let files = context.entries().iter().zip(&builds);
    let files = files.filter(|(_, build)| **build != 0);
    next.write(
        (FORMAT, write_head(key, this)),
        files.map(|(entry, build)| (entry, build.to_le_bytes())),
    )?;
    Ok(Some((key, builds)))
}

fn read_head(head: [u8; HEAD_BYTES]) -> (Uuid, u32) {
    let (key, last) = head.split_at(16);
    let key = Uuid::from_slice(key).unwrap_or_default();
    let last = last.try_into().map_or(LAST_BUILD, u32::from_le_bytes);
    (key, last)
}

fn write_head(key: Uuid, last: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let (front, back) = head.split_at_mut(16);
    front.copy_from_slice(key.as_bytes());
    back.copy_from_slice(&last.to_le_bytes());
    head
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use super::{FORMAT, Sent};
    use crate::image::context::Context;

    fn numbers(root: &Path) -> Option<Vec<u32>> {
        let context = Context::scan(root, &root.join("Dockerfile")).expect("a context");
        let sent = Sent::look(&context, &root.join(".systemprompt/cache"))?;
        let builds = (0..context.entries().len()).map(|index| sent.build(index));
        Some(builds.collect())
    }

    fn write(path: &Path, text: &str) {
        let file = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
        file.expect("written");
    }

    /// Makes every file look as if it had been there for long.
    fn settle(root: &Path) {
        let file = File::options()
            .write(true)
            .open(root.join(".systemprompt/cache/sent"));
        let later = 4_000_000_000_000_000_000_i64.to_le_bytes();
        let written = file.expect("records").write_all_at(&later, FORMAT.len() as u64);
        written.expect("written");
    }

    #[test]
    fn what_changed_gets_the_number_of_the_build() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path();
        std::fs::create_dir(root.join(".systemprompt")).expect("made");
        for name in ["Dockerfile", "a", "b"] {
            write(&root.join(name), "FROM scratch");
        }
        assert_eq!(numbers(root), None, "the first goes as an archive");
        assert_eq!(numbers(root), Some(vec![0, 1, 1, 1]));
        assert_eq!(
            numbers(root),
            Some(vec![0, 2, 2, 2]),
            "files that are new count as changed"
        );
        settle(root);
        assert_eq!(numbers(root), Some(vec![0, 2, 2, 2]));
        settle(root);
        write(&root.join("a"), "FROM SCRATCH");
        assert_eq!(numbers(root), Some(vec![0, 2, 4, 2]));
        settle(root);
        std::fs::remove_file(root.join("b")).expect("removed");
        assert_eq!(numbers(root), Some(vec![0, 2, 4]));
        settle(root);
        write(&root.join("b"), "FROM scratch");
        assert_eq!(numbers(root), Some(vec![0, 2, 4, 6]), "no number comes back");
    }

    #[test]
    fn one_build_of_a_project_is_numbered_at_a_time_and_broken_records_begin_anew() {
        let root = tempfile::tempdir().expect("a folder");
        let (root, cache) = (root.path(), root.path().join(".systemprompt/cache"));
        write(&root.join("Dockerfile"), "FROM scratch");
        let context = Context::scan(root, &root.join("Dockerfile")).expect("a context");
        assert!(Sent::look(&context, &cache).is_none());
        let sent = Sent::look(&context, &cache).expect("numbers");
        assert!(Sent::look(&context, &cache).is_none(), "another build is at it");
        let key = sent.key();
        drop(sent);
        assert_eq!(Sent::look(&context, &cache).expect("numbers").key(), key);
        write(&cache.join("sent"), "rubbish");
        assert!(Sent::look(&context, &cache).is_none());
        assert_ne!(Sent::look(&context, &cache).expect("numbers").key(), key);
    }
}
