//! `profiles/<name>/profile.yaml`: how programs of this project find a tenant.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::workspace::Workspace;
use crate::workspace::error::WorkspaceError;
use crate::workspace::file;

type Other = BTreeMap<String, Value>;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The folder's name: the tenant's id, or the name of a local tenant.
    pub name: String,
    /// Its database.
    pub database: ProfileDatabase,
    /// Where it listens and where it is reached.
    pub server: ProfileServer,
    /// Its tenant.
    pub cloud: ProfileCloud,
    /// Where its secrets are.
    pub secrets: ProfileSecrets,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Other,
}

/// Its database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileDatabase {
    /// `postgres` or `sqlite`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Other,
}

/// Where it listens and where it is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileServer {
    /// Address that it listens on.
    pub host: String,
    /// Port that it listens on.
    pub port: u16,
    /// Where it is reached.
    pub api_server_url: String,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Other,
}

/// Its tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileCloud {
    /// Which.
    pub tenant_id: String,
    /// Whether it runs on a server.
    pub enabled: bool,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Other,
}

/// Where its secrets are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileSecrets {
    /// Relative to the profile's folder.
    pub secrets_path: String,
    /// Always `file`.
    pub source: String,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Other,
}

impl Profile {
    /// A profile as it is first written.
    #[must_use]
    pub fn new(name: &str, database: &str, url: &str, tenant_id: &str, cloud: bool) -> Self {
        Self {
            name: name.to_owned(),
            database: ProfileDatabase {
                kind: database.to_owned(),
                other: Other::new(),
            },
            server: ProfileServer {
                host: if cloud { "0.0.0.0" } else { "127.0.0.1" }.to_owned(),
                port: 8080,
                api_server_url: url.to_owned(),
                other: Other::new(),
            },
            cloud: ProfileCloud {
                tenant_id: tenant_id.to_owned(),
                enabled: cloud,
                other: Other::new(),
            },
            secrets: ProfileSecrets {
                secrets_path: "./secrets.json".to_owned(),
                source: "file".to_owned(),
                other: Other::new(),
            },
            other: Other::new(),
        }
    }
}

impl Workspace {
    /// The folder of a profile.
    #[must_use]
    pub fn profile_folder(&self, name: &str) -> PathBuf {
        self.folder().join("profiles").join(name)
    }

    /// A profile; `None` when it is not there.
    pub fn read_profile(&self, name: &str) -> Result<Option<Profile>, WorkspaceError> {
        file::read_yaml(&self.profile_folder(name).join("profile.yaml"))
    }

    /// Writes a profile, unless one is there: that one may have been edited, and all it says still holds.
    pub fn ensure_profile(&self, profile: &Profile) -> Result<(), WorkspaceError> {
        if self.read_profile(&profile.name)?.is_some() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let path = self.profile_folder(&profile.name).join("profile.yaml");
        file::write_yaml(&path, profile)
    }

    /// Forgets the profile of a tenant that is gone. What the person has put into it themselves stays, and `false`
    /// is answered then; else its folder goes too.
    pub fn forget_profile(&self, name: &str) -> Result<bool, WorkspaceError> {
        if self.drop_given_secrets(name)? {
            return Ok(false);
        }
        let folder = self.profile_folder(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(WorkspaceError::write(&folder, error))
            }
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Profile;
    use crate::api::secret::SecretText;
    use crate::workspace::Workspace;
    use crate::workspace::file::{self, Mode};

    #[test]
    fn is_written_as_the_contract_says_and_an_edited_one_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        let profile = Profile::new("ten_1", "postgres", "http://acme.localhost:8080", "ten_1", true);
        workspace.ensure_profile(&profile).expect("writes");
        let path = workspace.profile_folder("ten_1").join("profile.yaml");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(
            text,
            "name: ten_1\ndatabase:\n  type: postgres\nserver:\n  host: \"0.0.0.0\"\n  port: 8080\n  \
             api_server_url: http://acme.localhost:8080\ncloud:\n  tenant_id: ten_1\n  enabled: true\n\
             secrets:\n  secrets_path: ./secrets.json\n  source: file\n"
        );
        let other = Profile::new("ten_1", "sqlite", "http://elsewhere", "ten_1", true);
        workspace.ensure_profile(&other).expect("keeps");
        assert_eq!(workspace.read_profile("ten_1").expect("reads"), Some(profile));
    }

    #[test]
    fn what_the_person_put_in_outlives_the_tenant() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        let path = workspace.secrets_path("a");
        let (url, jwt) = (SecretText::new("postgresql://x"), SecretText::new("y"));
        workspace.keep_secrets("a", &url, &jwt).expect("keeps");
        assert!(workspace.forget_profile("a").expect("forgets"));
        assert!(!workspace.profile_folder("a").exists());
        file::write(&path, br#"{"openai": "sk-1", "github": null}"#, Mode::Private).expect("writes");
        workspace.keep_secrets("a", &url, &jwt).expect("keeps");
        assert!(!workspace.forget_profile("a").expect("forgets"));
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(text.contains("sk-1") && !text.contains("postgresql"), "{text}");
    }
}
