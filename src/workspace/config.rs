//! `config.yaml`: what must be built before a deploy, and how a release is checked. Committed, never written by us.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::api::release::Strategy;
use crate::workspace::error::WorkspaceError;
use crate::workspace::{FOLDER, Workspace, file};

/// The file. A key that we do not know is refused: it is most likely a slip, and would do nothing silently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What must exist before an image is built.
    pub artifacts: Vec<Artifact>,
    /// The Dockerfile, relative to the project.
    pub dockerfile: PathBuf,
    /// The folder that the image is built from, relative to the project.
    pub context: PathBuf,
    /// Values for `ARG` lines.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build, unless the last.
    pub target: Option<String>,
    /// `linux/amd64` …, unless the engine's own.
    pub platform: Option<String>,
    /// Path that answers 2xx once a release may serve.
    pub health_path: String,
    /// What runs once before a release serves, unless the image's default.
    pub release_command: Option<Vec<String>>,
    /// How a release takes over from the one before.
    pub strategy: Strategy,
}

/// One thing that must exist before an image is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Relative to the project.
    pub path: PathBuf,
    /// The command that makes it.
    pub build: String,
}

impl Default for Config {
    /// What holds for a project whose file says nothing: the seed's layout.
    fn default() -> Self {
        Self {
            artifacts: Vec::new(),
            dockerfile: PathBuf::from(FOLDER).join("Dockerfile"),
            context: PathBuf::from("."),
            build_args: BTreeMap::new(),
            target: None,
            platform: None,
            health_path: "/readyz".to_owned(),
            release_command: None,
            strategy: Strategy::Rolling,
        }
    }
}

impl Workspace {
    /// The file; the defaults when it is not there.
    pub fn read_config(&self) -> Result<Config, WorkspaceError> {
        let path = self.folder().join("config.yaml");
        Ok(file::read_yaml(&path)?.unwrap_or_default())
    }

    /// What must exist and does not, with the command that makes it. The Dockerfile counts.
    #[must_use]
    pub fn missing_artifacts(&self, config: &Config) -> Vec<Artifact> {
        let dockerfile = Artifact {
            path: config.dockerfile.clone(),
            build: "systemprompt init".to_owned(),
        };
        let wanted = config.artifacts.iter().chain(std::iter::once(&dockerfile));
        wanted
            .filter(|artifact| {
                let path = self.root().join(&artifact.path);
                // An empty folder is what a build leaves that was cut off.
                let is_empty = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
                !path.exists() || is_empty
            })
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Config;
    use crate::workspace::Workspace;
    use crate::workspace::file::{self, Mode};

    #[test]
    fn the_template_is_understood() {
        let text = include_str!("../../templates/workspace/config.yaml");
        let config: Config = serde_saphyr::from_str(text).expect("parses");
        assert_eq!(config.artifacts.len(), 2);
        assert_eq!(config.health_path, "/readyz");
        assert!(config.release_command.is_some());
    }

    #[test]
    fn a_slip_is_refused_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        let path = workspace.folder().join("config.yaml");
        file::write(&path, b"context: .\nhealth_pat: /x\n", Mode::Open).expect("writes");
        let text = workspace.read_config().expect_err("refuses").to_string();
        assert!(
            text.contains("line 2, column 1") && text.contains("health_pat"),
            "{text}"
        );
    }

    #[test]
    fn what_is_missing_names_its_command() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        std::fs::create_dir_all(folder.path().join("web/dist")).expect("a folder");
        let text = "artifacts:\n  - path: web/dist\n    build: npm run build\n";
        let config: Config = serde_saphyr::from_str(text).expect("parses");
        let missing = workspace.missing_artifacts(&config);
        let commands: Vec<&str> = missing.iter().map(|artifact| artifact.build.as_str()).collect();
        assert_eq!(commands, ["npm run build", "systemprompt init"]);
    }
}
