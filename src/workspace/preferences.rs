//! What a person prefers on this machine: `config.json` in their own configuration folder.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::workspace::error::WorkspaceError;
use crate::workspace::file::{self, Mode};

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preferences {
    /// The server that was signed in to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Preferences {
    /// The file as it is; empty when it is not there.
    pub fn read(path: &Path) -> Result<Self, WorkspaceError> {
        file::read_json(path, Mode::Open)
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> Result<(), WorkspaceError> {
        file::write_json(path, self, Mode::Open)
    }
}
