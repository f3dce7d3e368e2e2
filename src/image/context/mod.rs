//! The build context: which files, in what order, and the tar stream that the engine reads while they are read.

mod archive;
mod report;
mod walk;

use std::path::{Path, PathBuf};

use crate::image::dockerfile::{BuildArgs, Dockerfile};
use crate::image::error::ImageError;
use crate::image::ignore::Ignore;

pub(crate) use crate::image::context::archive::Upload;
pub(crate) use crate::image::context::report::size;
pub use crate::image::context::report::{ContextReport, LARGE_BYTES};

/// What goes to the engine, seen once; nothing is read yet but the Dockerfile and the ignore file.
#[derive(Clone, Debug)]
pub struct Context {
    dockerfile_name: String,
    dockerfile: Dockerfile,
    entries: Vec<Entry>,
}

/// One file, folder or link of the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name in the context.
    pub(crate) path: PathBuf,
    /// Where it is on this machine.
    pub(crate) source: PathBuf,
    pub(crate) kind: EntryKind,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) stamp: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Folder,
    File,
    Link(PathBuf),
}

/// By what a file is known to be unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size_bytes: u64,
    pub(crate) modified_ns: i128,
    pub(crate) changed_ns: i128,
    pub(crate) inode: u64,
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
        if inside.is_none() {
            entries.push(walk::entry(PathBuf::from(&name), dockerfile.to_owned())?);
        }
        Ok(Self {
            dockerfile_name: name,
            dockerfile: parsed,
            entries,
        })
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
        self.entries.iter().map(|entry| entry.path.as_path())
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
