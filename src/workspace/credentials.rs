//! Sessions of this machine: in the keyring, or in a file of mode 0600 where there is none and the person agreed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::workspace::Workspace;
use crate::workspace::error::WorkspaceError;
use crate::workspace::file::{self, Mode};
use crate::workspace::lock::Lock;

/// A keyring that waits for somebody to unlock it must not hold a command up.
const KEYRING_PATIENCE: Duration = Duration::from_secs(3);
const KEYRING_SERVICE: &str = "systemprompt";

/// A session with one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    /// Goes into `Authorization`.
    pub access_token: SecretText,
    /// Buys the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<SecretText>,
    /// When the access token ends, by this machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Who it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The tenant that a CI job was let in for: the job can prove who it is again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_tenant: Option<String>,
}

/// Where a session is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The keyring of the operating system.
    Keyring,
    /// A file of mode 0600.
    File,
}

impl Place {
    /// For people and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::File => "file",
        }
    }
}

/// The sessions of this machine.
#[derive(Clone, Debug)]
pub struct CredentialStore {
    workspace: Option<Workspace>,
    config_dir: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct CredentialsFile {
    #[serde(default)]
    servers: BTreeMap<String, StoredSession>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl CredentialStore {
    /// Looks into the project's `.systemprompt` first, then into the person's own folder, then into the keyring.
    #[must_use]
    pub const fn new(workspace: Option<Workspace>, config_dir: PathBuf) -> Self {
        Self {
            workspace,
            config_dir,
        }
    }

    /// The file that a new session goes into: the project's own where there is a project.
    #[must_use]
    pub fn file_path(&self) -> PathBuf {
        let folder = self.workspace.as_ref().map(Workspace::folder);
        folder
            .unwrap_or_else(|| self.config_dir.clone())
            .join("credentials.json")
    }

    /// One process at a time may buy a new pair of tokens.
    pub fn lock(&self) -> Result<Lock, WorkspaceError> {
        Lock::take(&self.config_dir.join("session.lock"))
    }

    /// The session with a server, and where it is kept.
    pub async fn find(&self, server: &str) -> Result<Option<(StoredSession, Place)>, WorkspaceError> {
        if let Some((_, session)) = self.find_in_files(server)? {
            return Ok(Some((session, Place::File)));
        }
        // No keyring is as good as an empty one: whoever needs it is told at login.
        match keyring_get(server.to_owned()).await {
            Ok(Some(session)) => Ok(Some((session, Place::Keyring))),
            Ok(None) | Err(WorkspaceError::Keyring { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a session where it was said. One that was kept in the other place is forgotten.
    pub async fn save(
        &self,
        server: &str,
        session: &StoredSession,
        place: Place,
    ) -> Result<(), WorkspaceError> {
        match place {
            Place::Keyring => {
                keyring_set(server.to_owned(), session.clone()).await?;
                self.remove_from_files(server)
            }
            Place::File => {
                let path = match self.find_in_files(server)? {
                    Some((path, _)) => path,
                    None => self.file_path(),
                };
                if let Some(workspace) = self.workspace.as_ref().filter(|it| path.starts_with(it.root())) {
                    workspace.ensure_ignored()?;
                }
                let mut kept: CredentialsFile = file::read_json(&path, Mode::Private)?;
                kept.servers.insert(server.to_owned(), session.clone());
                file::write_json(&path, &kept, Mode::Private)
            }
        }
    }

    /// Forgets the session with a server, wherever it is kept.
    pub async fn forget(&self, server: &str) -> Result<(), WorkspaceError> {
        self.remove_from_files(server)?;
        match keyring_remove(server.to_owned()).await {
            Ok(()) | Err(WorkspaceError::Keyring { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the keyring works; what it says if it does not.
    pub async fn check_keyring(&self) -> Result<(), WorkspaceError> {
        keyring_get("http://127.0.0.1:0".to_owned()).await.map(|_| ())
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let project = self.workspace.as_ref().map(Workspace::folder);
        let folders = project
            .into_iter()
            .chain(std::iter::once(self.config_dir.clone()));
        folders.map(|folder| folder.join("credentials.json"))
    }

    fn find_in_files(&self, server: &str) -> Result<Option<(PathBuf, StoredSession)>, WorkspaceError> {
        for path in self.paths() {
            let mut kept: CredentialsFile = file::read_json(&path, Mode::Private)?;
            if let Some(session) = kept.servers.remove(server) {
                return Ok(Some((path, session)));
            }
        }
        Ok(None)
    }

    fn remove_from_files(&self, server: &str) -> Result<(), WorkspaceError> {
        for path in self.paths() {
            let mut kept: CredentialsFile = file::read_json(&path, Mode::Private)?;
            if kept.servers.remove(server).is_none() {
                continue;
            }
            if kept.servers.is_empty() && kept.other.is_empty() {
                file::remove(&path)?;
            } else {
                file::write_json(&path, &kept, Mode::Private)?;
            }
        }
        Ok(())
    }
}

async fn keyring_get(server: String) -> Result<Option<StoredSession>, WorkspaceError> {
    let text = on_a_thread(
        move || match keyring::v1::Entry::new(KEYRING_SERVICE, &server)?.get_password() {
            Ok(text) => Ok(Some(SecretText::new(text))),
            Err(keyring::v1::Error::NoEntry) => Ok(None),
            Err(error) => Err(error),
        },
    )
    .await?;
    // An entry that another program wrote is none of ours.
    Ok(text.and_then(|text| serde_json::from_str(text.expose()).ok()))
}

async fn keyring_set(server: String, session: StoredSession) -> Result<(), WorkspaceError> {
    let text = serde_json::to_string(&session)
        .map(SecretText::new)
        .map_err(|error| WorkspaceError::Keyring {
            what: error.to_string(),
        })?;
    on_a_thread(move || keyring::v1::Entry::new(KEYRING_SERVICE, &server)?.set_password(text.expose())).await
}

async fn keyring_remove(server: String) -> Result<(), WorkspaceError> {
    on_a_thread(
        move || match keyring::v1::Entry::new(KEYRING_SERVICE, &server)?.delete_credential() {
            Err(keyring::v1::Error::NoEntry) => Ok(()),
            other => other,
        },
    )
    .await
}

/// A locked Secret Service blocks for ever, and one that does so on the runtime keeps the program from ending.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> keyring::v1::Result<T> + Send + 'static,
) -> Result<T, WorkspaceError> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = send.send(work());
    });
    let silent = || WorkspaceError::Keyring {
        what: "it does not answer; is it locked?".to_owned(),
    };
    let answer = tokio::time::timeout(KEYRING_PATIENCE, receive)
        .await
        .map_err(|_| silent())?
        .map_err(|_| silent())?;
    answer.map_err(|error| WorkspaceError::Keyring {
        what: match keyring::v1::Entry::store_status() {
            Err(status) => status.to_string(),
            Ok(()) => error.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{CredentialStore, Place, StoredSession};
    use crate::api::secret::SecretText;
    use crate::workspace::Workspace;

    fn session(token: &str) -> StoredSession {
        StoredSession {
            access_token: SecretText::new(token),
            refresh_token: None,
            expires_at: None,
            email: None,
            ci_tenant: None,
        }
    }

    #[tokio::test]
    async fn a_file_keeps_one_session_for_every_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        let store = CredentialStore::new(Some(workspace.clone()), folder.path().join("config"));
        store
            .save("http://a", &session("one"), Place::File)
            .await
            .expect("saves");
        store
            .save("http://b", &session("two"), Place::File)
            .await
            .expect("saves");
        let found = store.find("http://a").await.expect("reads");
        assert_eq!(found, Some((session("one"), Place::File)));
        store.forget("http://a").await.expect("forgets");
        store.forget("http://b").await.expect("forgets");
        assert!(!workspace.folder().join("credentials.json").exists());
        let ignored = std::fs::read_to_string(workspace.folder().join(".gitignore")).expect("reads");
        assert!(ignored.contains("credentials.json"));
    }
}
