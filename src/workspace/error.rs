//! What can go wrong with the files of a workspace.

use std::io;
use std::path::PathBuf;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// It is there and cannot be read.
    #[error("failed to read `{}`", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be written; what was there before is untouched.
    #[error("failed to write `{}`; what was there before is untouched", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk is full; what was there before is untouched.
    #[error("failed to write `{}`: the disk is full; what was there before is untouched", .path.display())]
    Full {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was edited by hand or half written by something else; nothing is overwritten.
    #[error("failed to read `{}`, line {line}, column {column}: {what}", .path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong there; never a value of a secret file.
        what: String,
    },
    /// A value could not be turned into text.
    #[error("failed to write `{}`: {what}", .path.display())]
    Encode {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Another command has held the lock for too long.
    #[error("another `systemprompt` command is writing here and holds `{}`", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// There is no keyring, it is locked, or it did not answer.
    #[error("failed to use the keyring: {what}")]
    Keyring {
        /// What it said.
        what: String,
    },
}

impl WorkspaceError {
    pub(super) fn write(path: &std::path::Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::Write { path, source },
        }
    }
}
