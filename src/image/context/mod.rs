//! The build context: which files, in what order, and the tar stream that the engine reads while they are read.

mod archive;
#[cfg(test)]
mod odd;
mod open;
mod pieces;
mod report;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::dockerfile::{BuildArgs, Dockerfile};
use crate::image::error::ImageError;
use crate::image::ignore::Ignore;

pub(crate) use crate::image::context::archive::Upload;
pub(crate) use crate::image::context::open::{is_still, open, read_small, unread};
pub(crate) use crate::image::context::pieces::FIXED_TIME_SECONDS;
pub(crate) use crate::image::context::report::size;
pub use crate::image::context::report::{ContextReport, LARGE_BYTES};

/// What goes to the engine, seen once; nothing is read yet but the Dockerfile and the ignore file. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    root: PathBuf,
    /// Where the Dockerfile is, when it is not below the root.
    outside: Option<PathBuf>,
    dockerfile_name: String,
    dockerfile: Dockerfile,
    entries: Arc<[Entry]>,
}

/// One file, folder or link of the context. There may be a million: small counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name in the context.
    pub(crate) path: Box<Path>,
    pub(crate) kind: EntryKind,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) stamp: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Folder,
    File,
    Link(Box<Path>),
}

/// By what a file is known to be unchanged. Nanoseconds, which reach from the year 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size_bytes: u64,
    pub(crate) modified_ns: i64,
    pub(crate) changed_ns: i64,
    pub(crate) inode: u64,
}

#[cfg(test)]
impl Entry {
    /// A file of that size, of which nothing else matters.
    fn of_size(path: &str, size_bytes: u64) -> Self {
        Self {
            path: Path::new(path).into(),
            kind: EntryKind::File,
            mode: 0o644,
            stamp: Stamp {
                size_bytes,
                ..Stamp::default()
            },
        }
    }
}

impl Context {
    /// Walks `root` once. `dockerfile` is where the Dockerfile is: inside of `root` or elsewhere in the project.
    pub fn scan(root: &Path, dockerfile: &Path) -> Result<Self, ImageError> {
        let inside = dockerfile
            .strip_prefix(root)
            .ok()
            .and_then(Path::to_str)
            .map(str::to_owned);
        // A Dockerfile from outside travels under a name that no file of the project has.
        let name = inside
            .clone()
            .unwrap_or_else(|| ".systemprompt-outside.Dockerfile".to_owned());
        let shown = inside.clone().unwrap_or_else(|| dockerfile.display().to_string());
        let parsed = Dockerfile::read(dockerfile, &shown)?;
        let (ignore, ignore_file) = Ignore::read(root, dockerfile)?;
        let always: Vec<String> = inside.iter().cloned().chain(ignore_file).collect();
        let (mut entries, _) = walk::walk(root, &ignore, &always)?;
        let outside = inside.is_none().then(|| dockerfile.to_owned());
        if outside.is_some() {
            let looked = walk::entry(PathBuf::from(&name), dockerfile)?;
            entries.extend(looked);
        }
        Ok(Self {
            root: root.to_owned(),
            outside,
            dockerfile_name: name,
            dockerfile: parsed,
            entries: entries.into(),
        })
    }

    /// Where an entry is on this machine.
    pub(crate) fn source(&self, entry: &Entry) -> PathBuf {
        match &self.outside {
            Some(outside) if self.is_outside(entry) => outside.clone(),
            _ => self.root.join(&entry.path),
        }
    }

    /// Whether this is the Dockerfile from outside.
    pub(crate) fn is_outside(&self, entry: &Entry) -> bool {
        self.outside.is_some() && *entry.path == *Path::new(&self.dockerfile_name)
    }

    /// The Dockerfile.
    #[must_use]
    pub fn dockerfile(&self) -> &Dockerfile {
        &self.dockerfile
    }

    /// The name of the Dockerfile in the context.
    pub(crate) fn dockerfile_name(&self) -> &str {
        &self.dockerfile_name
    }

    /// Everything, sorted by path.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The names of everything that is sent.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().map(|entry| &*entry.path)
    }

    /// How much there is, what is large, and what people should know of it when this stage is built.
    #[must_use]
    pub fn report(&self, args: &BuildArgs, target: Option<&str>) -> ContextReport {
        report::report(&self.entries, &self.dockerfile.copied(args, target))
    }

    /// How many bytes the files have together, and how many files there are.
    #[must_use]
    pub fn total(&self) -> (u64, usize) {
        report::total(&self.entries)
    }
}
