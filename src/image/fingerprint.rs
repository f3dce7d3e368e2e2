//! One text for everything that an image is made from: equal inputs need no build.
//!
//! Contents are hashed once and remembered by size, times and inode, so that an unchanged tree costs one look per file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::image::context::{Context, Entry, EntryKind, Stamp};
use crate::image::dockerfile::BuildArgs;
use crate::image::error::ImageError;

/// Begins every fingerprint's input; a change of the rules below changes the number.
const FORMAT: &str = "systemprompt-fingerprint-1";
/// The coarsest clock of a file system that people use: a file that changed so shortly before it was hashed may
/// change again without looking different.
const RACY_NS: i128 = 2_000_000_000;

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
    let directory = cache.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(ImageError::file("make the folder", directory))?;
    // The file system's own clock, which the times of the files come from too.
    let next = tempfile::NamedTempFile::new_in(directory)
        .map_err(ImageError::file("write the cache in", directory))?;
    let started_ns = modified_ns(next.as_file()).map_err(ImageError::file("look at", next.path()))?;

    let known = Known::read(cache);
    let files: Vec<&Entry> = context
        .entries()
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .collect();
    let (digests, read_count) = digests(&files, &known)?;

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
                contents.next().map(String::as_bytes).unwrap_or_default(),
            ),
        }
    }
    if read_count > 0 || known.files.len() != files.len() {
        remember(&files, digests, started_ns, next, cache)?;
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

/// What was hashed before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    format: String,
    /// When the hashing began, on the file system's clock.
    started_ns: i128,
    /// By path: size, modified, changed, inode, digest.
    files: BTreeMap<String, (u64, i128, i128, u64, String)>,
}

impl Known {
    fn read(path: &Path) -> Self {
        let read = || serde_json::from_reader(BufReader::new(File::open(path).ok()?)).ok();
        read()
            .filter(|known: &Self| known.format == FORMAT)
            .unwrap_or_default()
    }

    fn digest(&self, entry: &Entry) -> Option<String> {
        let (size_bytes, modified_ns, changed_ns, inode, digest) = self.files.get(entry.path.to_str()?)?;
        let stamp = Stamp {
            size_bytes: *size_bytes,
            modified_ns: *modified_ns,
            changed_ns: *changed_ns,
            inode: *inode,
        };
        let is_settled = stamp.modified_ns.max(stamp.changed_ns) + RACY_NS < self.started_ns;
        (is_settled && stamp == entry.stamp).then(|| digest.clone())
    }
}

/// The digest of every file in order, and how many had to be read for it.
fn digests(files: &[&Entry], known: &Known) -> Result<(Vec<String>, usize), ImageError> {
    let mut digests: Vec<Option<String>> = files.iter().map(|entry| known.digest(entry)).collect();
    let missing: Vec<usize> = digests
        .iter()
        .enumerate()
        .filter(|(_, digest)| digest.is_none())
        .map(|(index, _)| index)
        .collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::with_capacity(missing.len()));
    let failure = Mutex::new(None);
    let work = || {
        while let Some(index) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(entry) = files.get(*index) else { break };
            match digest(&entry.source) {
                Ok(digest) => lock(&found).push((*index, digest)),
                Err(error) => {
                    *lock(&failure) = Some(ImageError::file("read", &entry.source)(error));
                    next.store(missing.len(), Ordering::Relaxed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(missing.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    for (index, digest) in lock(&found).drain(..) {
        if let Some(slot) = digests.get_mut(index) {
            *slot = Some(digest);
        }
    }
    Ok((digests.into_iter().flatten().collect(), missing.len()))
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(buffer.get(..count).unwrap_or_default());
    }
}

fn remember(
    files: &[&Entry],
    digests: Vec<String>,
    started_ns: i128,
    mut next: tempfile::NamedTempFile,
    cache: &Path,
) -> Result<(), ImageError> {
    let remembered = files.iter().zip(digests).filter_map(|(entry, digest)| {
        let stamp = entry.stamp;
        let path = entry.path.to_str()?.to_owned();
        Some((
            path,
            (
                stamp.size_bytes,
                stamp.modified_ns,
                stamp.changed_ns,
                stamp.inode,
                digest,
            ),
        ))
    });
    let known = Known {
        format: FORMAT.to_owned(),
        started_ns,
        files: remembered.collect(),
    };
    let mut writer = BufWriter::new(next.as_file_mut());
    let written = serde_json::to_writer(&mut writer, &known).map_err(std::io::Error::from);
    written
        .and_then(|()| writer.flush())
        .map_err(ImageError::file("write", cache))?;
    drop(writer);
    next.persist(cache)
        .map(drop)
        .map_err(|error| ImageError::file("write", cache)(error.error))
}

fn modified_ns(file: &File) -> std::io::Result<i128> {
    let metadata = file.metadata()?;
    Ok(i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()))
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
        take(
            &context,
            inputs,
            &root.join(".systemprompt/cache/fingerprint.json"),
        )
        .expect("a fingerprint")
    }

    fn plain(root: &Path) -> Fingerprint {
        with(root, &BuildArgs::new(), None)
    }

    /// Makes every file look as if it had been there for long. (The time of the last change of the inode can not be
    /// set, so the cache is told that it began later.)
    fn settle(root: &Path) {
        let path = root.join(".systemprompt/cache/fingerprint.json");
        let mut known: serde_json::Value =
            serde_json::from_reader(File::open(&path).expect("a cache")).expect("JSON");
        known["started_ns"] = serde_json::json!(4_000_000_000_000_000_000_i64);
        write(root, ".systemprompt/cache/fingerprint.json", &known.to_string());
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
        write(
            root.path(),
            ".systemprompt/cache/fingerprint.json",
            "{\"format\":",
        );
        assert_eq!(plain(root.path()), first);
    }
}
