//! The `.systemprompt` folder of a project, and the credentials of this machine.
//!
//! Files are written whole (temporary file, fsync, rename) under a lock; fields that we do not know are kept;
//! what holds a secret is 0600 and git-ignored before its first byte is written. Paths are passed in: nothing
//! here reads the environment.

pub mod config;
pub mod credentials;
pub mod error;
pub mod file;
pub mod lock;
pub mod preferences;
pub mod profile;
pub mod secrets;
pub mod tenants;

use std::path::{Path, PathBuf};

use crate::workspace::error::WorkspaceError;
use crate::workspace::lock::Lock;

/// The folder's name.
pub const FOLDER: &str = ".systemprompt";

/// What git must never see, whatever the project's own ignore file says.
const IGNORED: [&str; 6] = [
    "credentials.json",
    "profiles/*/secrets.json",
    "docker/*.env",
    "cache/",
    "*.lock",
    ".tmp-*",
];

/// A project's `.systemprompt` folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace of the folder that holds `.systemprompt`, whether it is there yet or not.
    #[must_use]
    pub const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Looks for `.systemprompt` here and in every folder above.
    #[must_use]
    pub fn find(start: &Path) -> Option<Self> {
        start
            .ancestors()
            .find(|folder| folder.join(FOLDER).is_dir())
            .map(|folder| Self::at(folder.to_owned()))
    }

    /// The project: the folder that holds `.systemprompt`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.root.join(FOLDER)
    }

    /// Holds off every other command that writes here. Waits for it 10 seconds.
    pub fn lock(&self) -> Result<Lock, WorkspaceError> {
        self.ensure_ignored()?;
        Lock::take(&self.folder().join("workspace.lock"))
    }

    /// Makes sure that git sees nothing secret of this folder. Called before a secret is written.
    pub fn ensure_ignored(&self) -> Result<(), WorkspaceError> {
        let path = self.folder().join(".gitignore");
        let text = file::read(&path)?.unwrap_or_default();
        let missing: Vec<&str> = IGNORED
            .into_iter()
            .filter(|rule| !text.lines().any(|line| line.trim() == *rule))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut text = text;
        if text.is_empty() {
            text.push_str("# Written by systemprompt: what must never be committed.\n");
        } else if !text.ends_with('\n') {
            text.push('\n');
        }
        for rule in missing {
            text.push_str(rule);
            text.push('\n');
        }
        file::write(&path, text.as_bytes(), file::Mode::Open)
    }

    /// Writes a file of this folder that holds a secret: 0600, git-ignored.
    pub fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<(), WorkspaceError> {
        self.ensure_ignored()?;
        file::write(path, bytes, file::Mode::Private)
    }
}

#[cfg(test)]
mod tests {
    use super::Workspace;

    #[test]
    fn is_found_from_below() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).expect("folders");
        assert_eq!(Workspace::find(&deep), None);
        std::fs::create_dir(folder.path().join(".systemprompt")).expect("a folder");
        assert_eq!(Workspace::find(&deep).expect("a workspace").root(), folder.path());
    }

    #[test]
    fn secrets_are_ignored_before_they_are_written_and_own_rules_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        std::fs::create_dir(workspace.folder()).expect("a folder");
        let ignore = workspace.folder().join(".gitignore");
        let own = tempfile::NamedTempFile::new_in(workspace.folder()).expect("a file");
        std::io::Write::write_all(&mut own.as_file(), b"mine\ncache/").expect("writes");
        own.persist(&ignore).expect("renames");
        let secret = workspace.folder().join("credentials.json");
        workspace.write_private(&secret, b"{}").expect("writes");
        let text = std::fs::read_to_string(&ignore).expect("reads");
        assert!(
            text.starts_with("mine\ncache/\ncredentials.json\nprofiles/*/secrets.json\n"),
            "{text}"
        );
        assert_eq!(text.matches("cache/").count(), 1);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&secret).expect("is there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
