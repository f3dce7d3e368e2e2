//! The agents and skills that a project brings: YAML files below its `services/` folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `services/agents/<id>.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// The file's name without its ending.
    #[serde(default)]
    pub id: String,
    /// For people.
    pub name: String,
    /// What it does, in a sentence.
    pub description: String,
    /// The model that it prefers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Ids of the skills that it has.
    #[serde(default)]
    pub skills: Vec<String>,
}

/// `services/skills/<id>/skill.yaml`, with its prompt beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skill {
    /// The folder's name.
    #[serde(default)]
    pub id: String,
    /// For people.
    pub name: String,
    /// What it does, in a sentence.
    pub description: String,
}

/// Everything that the project brings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Catalog {
    /// By id.
    pub agents: Vec<Agent>,
    /// By id.
    pub skills: Vec<Skill>,
    /// Files that could not be used, and why: the others are served all the same.
    #[serde(skip)]
    pub faults: Vec<String>,
}

impl Catalog {
    /// Reads the folder. A folder that is not there is an empty one.
    #[must_use]
    pub fn read(services_path: &Path) -> Self {
        let mut catalog = Self::default();
        for path in entries(&services_path.join("agents")) {
            let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
            if !is_yaml {
                continue;
            }
            match read_yaml::<Agent>(&path) {
                Ok(agent) => catalog.agents.push(Agent {
                    id: stem(&path),
                    ..agent
                }),
                Err(fault) => catalog.faults.push(fault),
            }
        }
        for folder in entries(&services_path.join("skills")) {
            if !folder.is_dir() {
                continue;
            }
            match read_yaml::<Skill>(&folder.join("skill.yaml")) {
                Ok(skill) => catalog.skills.push(Skill {
                    id: stem(&folder),
                    ..skill
                }),
                Err(fault) => catalog.faults.push(fault),
            }
        }
        catalog.check_references();
        catalog
    }

    fn check_references(&mut self) {
        for agent in &self.agents {
            for skill in &agent.skills {
                if !self.skills.iter().any(|known| known.id == *skill) {
                    self.faults.push(format!(
                        "agent `{}` names the skill `{skill}`, which is not there",
                        agent.id
                    ));
                }
            }
        }
    }
}

/// The paths in a folder, sorted, so that every start lists the same.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read_yaml<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("failed to read `{}`: {error}", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|error| format!("failed to read `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Catalog;

    #[test]
    fn this_repository_brings_a_whole_catalog() {
        let catalog = Catalog::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("services"));
        assert_eq!(catalog.faults, [""; 0]);
        assert!(
            catalog.agents.len() >= 2 && catalog.skills.len() >= 2,
            "{catalog:?}"
        );
    }

    #[test]
    fn a_broken_file_is_named_and_the_others_are_served() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("agents")).expect("agents/");
        for (name, text) in [
            ("good.yaml", "name: Good\ndescription: Works\nskills: [absent]\n"),
            ("bad.yaml", "name: [unclosed\n"),
        ] {
            let mut file = std::fs::File::create(folder.path().join("agents").join(name)).expect("a file");
            std::io::Write::write_all(&mut file, text.as_bytes()).expect("its text");
        }
        let catalog = Catalog::read(folder.path());
        assert_eq!(catalog.agents.len(), 1);
        assert_eq!(catalog.agents[0].id, "good");
        assert_eq!(catalog.faults.len(), 2, "{:?}", catalog.faults);
        assert!(catalog.faults[0].contains("bad.yaml"), "{:?}", catalog.faults);
        assert!(catalog.faults[1].contains("`absent`"), "{:?}", catalog.faults);
    }
}
