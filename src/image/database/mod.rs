//! PostgreSQL of a local tenant: a container of the project's own, described by a Compose file.
//!
//! The caller writes the two files that [`LocalDatabase`] gives (the Compose file, and beside it the environment file
//! with the password: 0600, git-ignored), then starts the container here. It carries the labels that Compose gives
//! its own containers, so `docker compose -f <file> ps` shows it too.

mod compose;
mod container;

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::api::secret::SecretText;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::Progress;
use crate::image::pull::{self, Wanted};

/// What is asked for where nobody says otherwise.
pub const DEFAULT_IMAGE: &str = "postgres:16-alpine";
/// What `scripts/setup` builds where images cannot be pulled.
pub const STAND_IN_IMAGE: &str = "systemprompt-standin/postgres:15";

/// Everything that describes the database of a local tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDatabase {
    /// The tenant's name; names the files.
    pub name: String,
    /// The Compose project: carries the name and a mark of the folder, so that two projects may both have a `dev`.
    pub project: String,
    /// The image it runs.
    pub image: String,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The password of the role `app`, owner of the database `app`.
    pub password: SecretText,
    /// The folder that holds `.systemprompt`.
    pub root: PathBuf,
}

/// How a local database stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseState {
    /// There is no container.
    Absent,
    /// There is one and it does not run.
    Stopped,
    /// It runs.
    Running,
}

impl LocalDatabase {
    /// Describes a new database: chooses an image that the engine has or can pull, a free port and a password.
    ///
    /// The second value is `true` when a stand-in takes the place of the wanted image; say so.
    pub async fn plan(
        engine: &Engine,
        root: &Path,
        name: &str,
        image: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<(Self, bool), ImageError> {
        let wanted = Wanted {
            image: image.unwrap_or(DEFAULT_IMAGE),
            stand_in: Some(STAND_IN_IMAGE),
        };
        let found = pull::ensure(engine, &wanted, progress).await?;
        let password: [u8; 24] = rand::RngExt::random(&mut rand::rng());
        let planned = Self {
            name: name.to_owned(),
            project: project_name(root, name),
            image: found.image,
            port: free_port()?,
            password: SecretText::new(hex::encode(password)),
            root: root.to_owned(),
        };
        Ok((planned, found.is_stand_in))
    }

    /// Reads back what was written for `name`; nothing when there is no Compose file.
    pub fn read(root: &Path, name: &str) -> Result<Option<Self>, ImageError> {
        compose::read(root, name)
    }

    /// Where the Compose file belongs: `.systemprompt/docker/<name>.yaml`.
    #[must_use]
    pub fn compose_path(&self) -> PathBuf {
        folder(&self.root).join(format!("{}.yaml", self.name))
    }

    /// The Compose file. Nothing in it is secret.
    #[must_use]
    pub fn compose_text(&self) -> String {
        compose::text(self)
    }

    /// Where the environment file belongs: `.systemprompt/docker/<name>.env`, 0600 and git-ignored.
    #[must_use]
    pub fn environment_path(&self) -> PathBuf {
        folder(&self.root).join(format!("{}.env", self.name))
    }

    /// The environment file: holds the password.
    #[must_use]
    pub fn environment_text(&self) -> SecretText {
        SecretText::new(format!("POSTGRES_PASSWORD={}\n", self.password.expose()))
    }

    /// How programs on this machine reach it.
    #[must_use]
    pub fn url(&self) -> SecretText {
        let password = self.password.expose();
        SecretText::new(format!("postgresql://app:{password}@127.0.0.1:{}/app", self.port))
    }

    /// Makes what is missing, starts what is stopped, waits until it answers. Does nothing when it answers already.
    pub async fn start(&self, engine: &Engine, progress: &dyn Progress) -> Result<(), ImageError> {
        container::start(self, engine, progress).await
    }

    /// Stops the container; its data stays.
    pub async fn stop(&self, engine: &Engine) -> Result<(), ImageError> {
        container::stop(self, engine).await
    }

    /// How it stands.
    pub async fn state(&self, engine: &Engine) -> Result<DatabaseState, ImageError> {
        container::state(self, engine).await
    }

    /// Removes container and network, and with `data` the volume too. What is gone already is fine.
    pub async fn remove(&self, engine: &Engine, data: bool) -> Result<(), ImageError> {
        container::remove(self, engine, data).await
    }
}

fn folder(root: &Path) -> PathBuf {
    root.join(".systemprompt").join("docker")
}

fn project_name(root: &Path, name: &str) -> String {
    let canonical = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let mark = hex::encode(Sha256::digest(canonical.as_os_str().as_encoded_bytes()));
    format!("systemprompt-{name}-{}", mark.get(..6).unwrap_or_default())
}

fn free_port() -> Result<u16, ImageError> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| ImageError::File {
            what: "find a free port on",
            path: "127.0.0.1".into(),
            source,
        })
}
