//! One text for everything that an image is made from: equal inputs need no build.
//!
//! Contents are hashed once and remembered by size, times and inode, so that an unchanged tree costs one look per file.

use std::io::Read as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use crate::image::context::{Context, Entry, EntryKind, is_still, open, unread};
use crate::image::dockerfile::BuildArgs;
use crate::image::error::ImageError;
use crate::image::records::{Next, Records};

/// Begins every fingerprint's input; a change of the rules below changes the number.
const FORMAT: &str = "systemprompt-fingerprint-1";
/// Begins the file of what is known; a change of the records changes the number.
const RECORDS: &[u8] = b"systemprompt-files-1\n";
const READ_BYTES: usize = 128 * 1024;

/// SHA-256 of a file's content.
type Digest = [u8; 32];

/// What besides files decides what a build makes.
#[derive(Clone, Copy, Debug)]
pub struct BuildInputs<'a> {
    /// `--build-arg`.
    pub args: &'a BuildArgs,
    /// `--target`.
    pub target: Option<&'a str>,
    /// `--platform`.
    pub platform: Option<&'a str>,
    /// How the image is released: health path, release command. A change of these needs a deploy too.
    pub release: &'a [&'a str],
}

/// The fingerprint of a context, and how it was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// 64 hexadecimal digits.
    pub value: String,
    /// How many files had to be read; the rest were known.
    pub read_count: usize,
}

/// Takes the fingerprint. `cache` is a file that may be missing, old or broken: then everything is read again.
pub fn take(context: &Context, inputs: BuildInputs<'_>, cache: &Path) -> Result<Fingerprint, ImageError> {
    let next = Next::begin(cache)?;
    let mut known = Records::<0, 32>::open(cache, RECORDS);
    let files = || {
        context
            .entries()
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
    };
    let mut digests: Vec<Option<Digest>> = files().map(|entry| known.value(entry)).collect();
    let read_count = read_missing(context, files(), &mut digests)?;
    let digests: Vec<Digest> = digests.into_iter().flatten().collect();

    let mut hash = Sha256::new();
    field(&mut hash, FORMAT.as_bytes());
    for value in [Some(context.dockerfile_name()), inputs.target, inputs.platform] {
        field(&mut hash, value.unwrap_or_default().as_bytes());
    }
    field(&mut hash, &(inputs.release.len() as u64).to_le_bytes());
    inputs
        .release
        .iter()
        .for_each(|value| field(&mut hash, value.as_bytes()));
    field(&mut hash, &(inputs.args.len() as u64).to_le_bytes());
    for (name, value) in inputs.args {
        field(&mut hash, name.as_bytes());
        field(&mut hash, value.as_bytes());
    }
    let mut contents = digests.iter();
    for entry in context.entries() {
        field(&mut hash, entry.path.as_os_str().as_encoded_bytes());
        field(&mut hash, &entry.mode.to_le_bytes());
        match &entry.kind {
            EntryKind::Folder => field(&mut hash, b"folder"),
            EntryKind::Link(target) => field(&mut hash, target.as_os_str().as_encoded_bytes()),
            EntryKind::File => field(
                &mut hash,
                contents.next().map(hex::encode).unwrap_or_default().as_bytes(),
            ),
        }
    }
    if read_count > 0 || known.count() != digests.len() {
        next.write((RECORDS, []), files().zip(digests))?;
    }
    Ok(Fingerprint {
        value: hex::encode(hash.finalize()),
        read_count,
    })
}

/// A length before every value, so that two values never read as one.
fn field(hash: &mut Sha256, value: &[u8]) {
    hash.update((value.len() as u64).to_le_bytes());
    hash.update(value);
}

/// Hashes what is not known, on every processor; says how many files that were.
fn read_missing<'a>(
    context: &Context,
    files: impl Iterator<Item = &'a Entry>,
    digests: &mut [Option<Digest>],
) -> Result<usize, ImageError> {
    let missing: Vec<Mutex<(&Entry, &mut Option<Digest>)>> = files
        .zip(digests)
        .filter(|(_, digest)| digest.is_none())
        .map(Mutex::new)
        .collect();
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        let mut buffer = vec![0; READ_BYTES];
        while let Some(file) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (entry, place) = &mut *lock(file);
            match digest(context, entry, &mut buffer) {
                Ok(digest) => **place = Some(digest),
                Err(error) => {
                    *lock(&failure) = Some(error);
                    next.store(missing.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(missing.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    match lock(&failure).take() {
        Some(error) => Err(error),
        None => Ok(missing.len()),
    }
}

fn digest(context: &Context, entry: &Entry, buffer: &mut [u8]) -> Result<Digest, ImageError> {
    let source = context.source(entry);
    let mut file = open(&source, entry)?;
    let mut hash = Sha256::new();
    let mut left = entry.stamp.size_bytes;
    // What grows for ever is not read for ever.
    while left > 0 {
        let count = file.read(buffer).map_err(|error| unread(error, &source, entry))?;
        if count == 0 {
            break;
        }
        hash.update(buffer.get(..count).unwrap_or_default());
        left = left.saturating_sub(count as u64);
    }
    is_still(&file, &source, entry)?;
    Ok(hash.finalize().into())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes, Permissions};
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::{Duration, UNIX_EPOCH};

    use super::{BuildInputs, Fingerprint, take};
    use crate::image::context::Context;
    use crate::image::dockerfile::BuildArgs;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        File::create(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("written");
    }

    fn project() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path(), "Dockerfile", "FROM scratch\n");
        write(root.path(), "src/a", "one");
        write(root.path(), "src/b", "two");
        std::fs::create_dir(root.path().join(".systemprompt")).expect("made");
        root
    }

    fn with(root: &Path, args: &BuildArgs, target: Option<&str>) -> Fingerprint {
        let context = Context::scan(root, &root.join("Dockerfile")).expect("a context");
        let inputs = BuildInputs {
            args,
            target,
            platform: None,
            release: &["/readyz"],
        };
        take(&context, inputs, &root.join(".systemprompt/cache/files")).expect("a fingerprint")
    }

    fn plain(root: &Path) -> Fingerprint {
        with(root, &BuildArgs::new(), None)
    }

    /// Makes every file look as if it had been there for long. (The time of the last change of the inode can not be
    /// set, so the cache is told that it began later.)
    fn settle(root: &Path) {
        let file = File::options()
            .write(true)
            .open(root.join(".systemprompt/cache/files"));
        let begin = "systemprompt-files-1\n".len() as u64;
        std::os::unix::fs::FileExt::write_all_at(
            &file.expect("a cache"),
            &4_000_000_000_000_000_000_i64.to_le_bytes(),
            begin,
        )
        .expect("written");
    }

    #[test]
    fn every_input_counts() {
        let root = project();
        let first = plain(root.path()).value;
        assert_eq!(plain(root.path()).value, first, "nothing changed");
        let one = BuildArgs::from([("A".to_owned(), "1".to_owned())]);
        let other = BuildArgs::from([("A".to_owned(), "2".to_owned())]);
        let mut seen = vec![
            first,
            with(root.path(), &one, None).value,
            with(root.path(), &other, None).value,
            with(root.path(), &one, Some("build")).value,
        ];
        let mut changed = |change: &dyn Fn()| {
            change();
            seen.push(plain(root.path()).value);
        };
        changed(&|| write(root.path(), "src/a", "ONE"));
        changed(&|| write(root.path(), "Dockerfile", "FROM scratch\n# more\n"));
        changed(&|| {
            let mode = Permissions::from_mode(0o755);
            std::fs::set_permissions(root.path().join("src/a"), mode).expect("set");
        });
        changed(&|| std::fs::rename(root.path().join("src/b"), root.path().join("src/c")).expect("renamed"));
        changed(&|| std::os::unix::fs::symlink("a", root.path().join("src/link")).expect("linked"));
        changed(&|| std::fs::create_dir(root.path().join("empty")).expect("made"));
        let count = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn times_do_not_count() {
        let root = project();
        let first = plain(root.path()).value;
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000));
        File::options()
            .write(true)
            .open(root.path().join("src/a"))
            .and_then(|file| file.set_times(times))
            .expect("set");
        assert_eq!(plain(root.path()).value, first);
    }

    #[test]
    fn settled_files_are_not_read_again() {
        let root = project();
        let first = plain(root.path());
        assert_eq!(first.read_count, 3);
        assert_eq!(plain(root.path()).read_count, 3, "they are too new to be trusted");
        settle(root.path());
        let again = plain(root.path());
        assert_eq!((again.read_count, &again.value), (0, &first.value));
        write(root.path(), "src/a", "ONE");
        let changed = plain(root.path());
        assert_eq!(changed.read_count, 1);
        assert_ne!(changed.value, first.value);
    }

    #[test]
    fn a_change_that_keeps_size_and_time_is_seen() {
        let root = project();
        let first = plain(root.path());
        settle(root.path());
        let path = root.path().join("src/a");
        let modified = path
            .metadata()
            .and_then(|metadata| metadata.modified())
            .expect("a time");
        let mut file = File::options().write(true).open(&path).expect("a file");
        file.write_all(b"eno")
            .and_then(|()| file.set_times(FileTimes::new().set_modified(modified)))
            .expect("set");
        assert_ne!(plain(root.path()).value, first.value);
    }

    #[test]
    fn a_broken_cache_costs_only_time() {
        let root = project();
        let first = plain(root.path());
        let path = root.path().join(".systemprompt/cache/files");
        let whole = std::fs::read(&path).expect("a cache");
        for length in [0, 5, 25, 29, 33, 40, whole.len() - 1] {
            let file = File::create(&path).and_then(|mut file| file.write_all(&whole[..length]));
            file.expect("written");
            settle(root.path());
            let again = plain(root.path());
            assert_eq!(again.value, first.value, "{length} bytes of {}", whole.len());
        }
        write(root.path(), ".systemprompt/cache/files", &"\u{1f}".repeat(500));
        assert_eq!(plain(root.path()), first);
    }
}
