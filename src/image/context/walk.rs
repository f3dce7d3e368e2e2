//! One walk over the context: sorted, links not followed, folders that cannot matter never entered.

use std::ffi::OsString;
use std::fs::FileType;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::image::context::open::stamp;
use crate::image::context::{Entry, EntryKind, Stamp};
use crate::image::error::ImageError;
use crate::image::ignore::{FolderMatch, Ignore};

/// How many files a thread looks at before it asks for more.
const AT_ONCE: usize = 128;

/// Walks `root`; the files `always` are taken whatever the patterns say. The second value: how many folders were read.
pub(super) fn walk(
    root: &Path,
    ignore: &Ignore,
    always: &[String],
) -> Result<(Vec<Entry>, usize), ImageError> {
    let mut walk = Walk {
        root,
        ignore,
        always,
        names: Vec::new(),
        open: Vec::new(),
        folders_read: 0,
    };
    walk.folder(Path::new(""), "", &FolderMatch::default())?;
    Ok((look_at_all(root, walk.names)?, walk.folders_read))
}

struct Walk<'a> {
    root: &'a Path,
    ignore: &'a Ignore,
    always: &'a [String],
    names: Vec<PathBuf>,
    /// Folders that are left out themselves and come along when something below them is brought back.
    open: Vec<PathBuf>,
    folders_read: usize,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, text: &str, above: &FolderMatch) -> Result<(), ImageError> {
        let directory = self.root.join(path);
        self.folders_read += 1;
        let mut names = match read(&directory) {
            Ok(names) => names,
            // It went away while its neighbours were read: it is no part of the context any more.
            Err(error) if is_gone(&error) && !text.is_empty() => return Ok(()),
            Err(error) => return Err(ImageError::file("read the folder", &directory)(error)),
        };
        names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let may_hold_ours = text.to_ascii_lowercase().contains(".systemprompt");
        let mut text = text.to_owned();
        let begin = text.len();
        for (name, kind) in names {
            text.truncate(begin);
            if begin > 0 {
                text.push('/');
            }
            text.push_str(&name.to_string_lossy());
            if may_hold_ours && is_ours_alone(&text) {
                continue;
            }
            if kind.is_dir() {
                self.enter(path.join(&name), &text, above)?;
            } else if (kind.is_file() || kind.is_symlink())
                && (!self.ignore.excludes_file(&text, above) || self.always.contains(&text))
            {
                self.take(path.join(&name));
            }
        }
        Ok(())
    }

    fn may_hold_something(&self, folder: &str) -> bool {
        self.ignore.may_bring_back_below(folder)
            || self.always.iter().any(|path| {
                path.strip_prefix(folder)
                    .is_some_and(|rest| rest.starts_with('/'))
            })
    }

    fn enter(&mut self, path: PathBuf, text: &str, above: &FolderMatch) -> Result<(), ImageError> {
        let (excluded, below) = self.ignore.excludes_below(text, above);
        if excluded && !self.may_hold_something(text) {
            return Ok(());
        }
        if excluded {
            self.open.push(path.clone());
        } else {
            self.take(path.clone());
        }
        self.folder(&path, text, &below)?;
        self.open.retain(|open| *open != path);
        Ok(())
    }

    fn take(&mut self, path: PathBuf) {
        self.names.append(&mut self.open);
        self.names.push(path);
    }
}

fn read(directory: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    std::fs::read_dir(directory)?
        .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))))
        .collect()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Looks at everything that was found, on every processor. What has gone meanwhile is left out.
fn look_at_all(root: &Path, names: Vec<PathBuf>) -> Result<Vec<Entry>, ImageError> {
    let count = names.len();
    let shares: Vec<Mutex<Share>> = shares(names);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(share) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut share = share.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let names = std::mem::take(&mut share.names);
            let looked = names.into_iter().map(|name| {
                let source = root.join(&name);
                entry(name, &source)
            });
            share.entries = looked.filter_map(Result::transpose).collect();
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        // This thread works too: a small project needs no other.
        (1..processors.min(shares.len())).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let mut entries = Vec::with_capacity(count);
    for share in shares {
        let share = share
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.append(&mut share.entries?);
    }
    Ok(entries)
}

/// Some of the names, and what they were found to be.
struct Share {
    names: Vec<PathBuf>,
    entries: Result<Vec<Entry>, ImageError>,
}

fn shares(names: Vec<PathBuf>) -> Vec<Mutex<Share>> {
    let mut shares = Vec::with_capacity(names.len() / AT_ONCE + 1);
    let mut names = names.into_iter();
    loop {
        let some: Vec<PathBuf> = names.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return shares;
        }
        shares.push(Mutex::new(Share {
            names: some,
            entries: Ok(Vec::new()),
        }));
    }
}

/// Looks at one file, folder or link. Nothing where nothing of these is there.
pub(super) fn entry(path: PathBuf, source: &Path) -> Result<Option<Entry>, ImageError> {
    let metadata = match source.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(ImageError::file("look at", source)(error)),
    };
    let kind = if metadata.is_dir() {
        EntryKind::Folder
    } else if metadata.is_symlink() {
        let target = source
            .read_link()
            .map_err(ImageError::file("read the link", source))?;
        EntryKind::Link(target.into())
    } else if metadata.is_file() {
        EntryKind::File
    } else {
        return Ok(None);
    };
    let stamp = stamp(&metadata);
    Ok(Some(Entry {
        path: path.into(),
        stamp: Stamp {
            size_bytes: if kind == EntryKind::File {
                stamp.size_bytes
            } else {
                0
            },
            ..stamp
        },
        kind,
        mode: metadata.mode() & 0o7777,
    }))
}

/// What never leaves this machine, whatever the ignore file says: secrets, files in the middle of being written
/// beside them, and the cache, which changes with every run.
fn is_ours_alone(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let Some(inside) = lower
        .strip_prefix(".systemprompt/")
        .or_else(|| lower.rsplit_once("/.systemprompt/").map(|(_, inside)| inside))
    else {
        return false;
    };
    let (folder, name) = inside.rsplit_once('/').unwrap_or(("", inside));
    let top = folder.split('/').next().unwrap_or_default();
    match (top, name) {
        ("", "cache" | "credentials.json") => true,
        ("profiles", "secrets.json") => true,
        ("docker", name) if name.ends_with(".env") => true,
        (_, name) => name.starts_with(".tmp") || name.ends_with(".lock"),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_ours_alone, walk};
    use crate::image::ignore::Ignore;

    #[test]
    fn folders_that_nothing_can_bring_back_are_never_entered() {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["node_modules/a/b", "src/deep", "vendor/x"] {
            std::fs::create_dir_all(root.path().join(folder)).expect("made");
            std::fs::File::create(root.path().join(folder).join("keep")).expect("made");
        }
        let walked = |text: &str| {
            let ignore = Ignore::parse(".dockerignore", text.as_bytes()).expect("patterns");
            let (entries, folders) = walk(root.path(), &ignore, &[]).expect("a walk");
            (
                entries
                    .iter()
                    .filter(|entry| entry.path.ends_with("keep"))
                    .count(),
                folders,
            )
        };
        // The root itself is read always.
        assert_eq!(walked(""), (3, 8));
        assert_eq!(walked("node_modules\nsrc"), (1, 3));
        assert_eq!(walked("node_modules\nsrc\n!src/deep/keep"), (2, 5));
        assert_eq!(walked("*\n!vendor"), (1, 3));
        assert_eq!(walked("*\n!**/b/keep"), (1, 8));
    }

    #[test]
    fn secrets_never_leave() {
        for path in [
            ".systemprompt/credentials.json",
            ".systemprompt/profiles/prod/secrets.json",
            ".systemprompt/profiles/a/b/secrets.json",
            ".systemprompt/profiles/prod/SECRETS.JSON",
            "apps/web/.systemprompt/profiles/prod/secrets.json",
            ".systemprompt/profiles/prod/.tmpX8s2",
            ".systemprompt/docker/dev.env",
            ".systemprompt/cache",
        ] {
            assert!(is_ours_alone(path), "{path}");
        }
        for path in [
            ".systemprompt",
            ".systemprompt/profiles",
            ".systemprompt/profiles/prod/profile.yaml",
            ".systemprompt/docker/dev.yaml",
            ".systemprompt/entrypoint.sh",
            "secrets.json",
            "web/credentials.json",
            "Cargo.lock",
            "src/cache",
        ] {
            assert!(!is_ours_alone(path), "{path}");
        }
    }
}
