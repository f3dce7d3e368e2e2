//! One walk over the context: sorted, links not followed, folders that cannot matter never entered.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::image::context::{Entry, EntryKind, Stamp};
use crate::image::error::ImageError;
use crate::image::ignore::{FolderMatch, Ignore};

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
        entries: Vec::new(),
        open: Vec::new(),
        folders_read: 0,
    };
    walk.folder(Path::new(""), "", &FolderMatch::default())?;
    Ok((walk.entries, walk.folders_read))
}

struct Walk<'a> {
    root: &'a Path,
    ignore: &'a Ignore,
    always: &'a [String],
    entries: Vec<Entry>,
    /// Folders that are left out themselves and come along when something below them is brought back.
    open: Vec<PathBuf>,
    folders_read: usize,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, text: &str, above: &FolderMatch) -> Result<(), ImageError> {
        let directory = self.root.join(path);
        self.folders_read += 1;
        let read = || -> std::io::Result<Vec<_>> {
            std::fs::read_dir(&directory)?
                .map(|entry| entry.and_then(|e| Ok((e.file_name(), e.file_type()?))))
                .collect()
        };
        let mut names = read().map_err(ImageError::file("read the folder", &directory))?;
        names.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        for (name, kind) in names {
            let path = path.join(&name);
            let text = join(text, &name);
            if is_ours_alone(&text) {
                continue;
            }
            let (mut excluded, below) = self.ignore.excludes_below(&text, above);
            if self.always.contains(&text) {
                excluded = false;
            }
            if kind.is_dir() {
                if excluded && !self.may_hold_something(&text) {
                    continue;
                }
                self.enter(&path, &text, excluded, &below)?;
            } else if !excluded && (kind.is_file() || kind.is_symlink()) {
                self.take(path)?;
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

    fn enter(
        &mut self,
        path: &Path,
        text: &str,
        excluded: bool,
        below: &FolderMatch,
    ) -> Result<(), ImageError> {
        if excluded {
            self.open.push(path.to_owned());
        } else {
            self.take(path.to_owned())?;
        }
        self.folder(path, text, below)?;
        self.open.retain(|open| open != path);
        Ok(())
    }

    fn take(&mut self, path: PathBuf) -> Result<(), ImageError> {
        for open in std::mem::take(&mut self.open) {
            let source = self.root.join(&open);
            self.entries.push(entry(open, source)?);
        }
        let source = self.root.join(&path);
        self.entries.push(entry(path, source)?);
        Ok(())
    }
}

/// Looks at one file, folder or link.
pub(super) fn entry(path: PathBuf, source: PathBuf) -> Result<Entry, ImageError> {
    let metadata = source
        .symlink_metadata()
        .map_err(ImageError::file("look at", &source))?;
    let kind = if metadata.is_dir() {
        EntryKind::Folder
    } else if metadata.is_symlink() {
        EntryKind::Link(
            source
                .read_link()
                .map_err(ImageError::file("read the link", &source))?,
        )
    } else {
        EntryKind::File
    };
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let stamp = Stamp {
        size_bytes: if kind == EntryKind::File {
            metadata.len()
        } else {
            0
        },
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
    };
    Ok(Entry {
        path,
        source,
        kind,
        mode: metadata.mode() & 0o7777,
        stamp,
    })
}

fn join(folder: &str, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    if folder.is_empty() {
        name.into_owned()
    } else {
        format!("{folder}/{name}")
    }
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
