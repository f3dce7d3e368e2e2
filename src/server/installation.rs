//! The data directory of one installation: made at first start, held by one server at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::server::clock::Clock;
use crate::server::store::postgres::PostgresSettings;
use crate::server::store::{Store, StoreError};

const DATABASE_FILE: &str = "systemprompt.db";
/// What the database is called once it was copied to PostgreSQL.
const COPIED_FILE: &str = "systemprompt.db.copied";
const LOCK_FILE: &str = "server.lock";
const INSTANCE_FILE: &str = "instance";
const INSTANCE_LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const INSTANCE_LENGTH: usize = 6;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// It cannot be made, read or written.
    #[error("failed to use the data directory `{path}`")]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another server holds it.
    #[error("another server ({holder}) runs on the data directory `{path}`")]
    Held {
        /// Where.
        path: PathBuf,
        /// What it wrote into the lock file.
        holder: String,
    },
    /// No server has ever run on it.
    #[error("there is no installation in `{path}`")]
    Absent {
        /// Where.
        path: PathBuf,
    },
    /// The instance file does not hold an instance name.
    #[error("`{path}` does not hold 6 characters of a-z and 0-9")]
    Instance {
        /// Where.
        path: PathBuf,
    },
    /// Its database was copied to PostgreSQL.
    #[error("the database of `{path}` was copied to PostgreSQL, and no URL of it is given")]
    Copied {
        /// Where.
        path: PathBuf,
    },
    /// The PostgreSQL server cannot be used.
    #[error("failed to open the PostgreSQL database that the URL names")]
    Server(#[source] StoreError),
    /// The database cannot be opened.
    #[error("failed to open the database of `{path}`")]
    Database {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

impl InstallationError {
    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Directory { .. } => {
                Some("name a folder that you may write with `--data-dir DIR`".to_owned())
            }
            Self::Held { .. } => {
                Some("stop that server, or name another folder with `--data-dir DIR`".to_owned())
            }
            Self::Instance { path } => Some(format!(
                "put back what `{}` held: the names of all containers begin with it",
                path.display()
            )),
            Self::Absent { .. } => Some(
                "name the server's folder with `--data-dir DIR`, or start a first server with `systemprompt serve`"
                    .to_owned(),
            ),
            Self::Copied { path } => Some(format!(
                "set `SYSTEMPROMPT_DATABASE_URL`; to go back to the file, rename `{}` to `{DATABASE_FILE}`",
                path.join(COPIED_FILE).display()
            )),
            Self::Server(_) => Some(
                "look at `--database-url`, or `SYSTEMPROMPT_DATABASE_URL`: `psql` with the same URL must get in".to_owned(),
            ),
            Self::Database { .. } => None,
        }
    }
}

/// A data directory that is there.
#[derive(Clone, Debug)]
pub struct Installation {
    directory: PathBuf,
}

/// Holds the data directory against a second server until it is dropped.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Installation {
    /// Makes the directory (mode 0700) where there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(directory: &Path) -> Result<Self, InstallationError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| InstallationError::Directory {
                path: directory.to_owned(),
                source,
            })?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The directory of a server that has its database in it.
    ///
    /// # Errors
    /// There is none.
    pub fn find(directory: &Path) -> Result<Self, InstallationError> {
        if directory.join(DATABASE_FILE).is_file() {
            return Ok(Self {
                directory: directory.to_owned(),
            });
        }
        Err(InstallationError::Absent {
            path: directory.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Holds it against a second server; `shared`: against servers that do not share it. Servers over one PostgreSQL
    /// may share a folder, one with its database in the folder has it alone.
    ///
    /// # Errors
    /// Another server holds it, or it cannot be written.
    pub fn hold(&self, shared: bool) -> Result<Hold, InstallationError> {
        let path = self.directory.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| self.failed(source))?;
        let locked = if shared {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(InstallationError::Held {
                    path: self.directory.clone(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(self.failed(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {}", std::process::id()))
            .map_err(|source| self.failed(source))?;
        Ok(Hold(file))
    }

    /// The six characters by which this installation's resources are told from another's; made where there are none.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn instance(&self, clock: &Clock) -> Result<String, InstallationError> {
        match self.found_instance()? {
            Some(name) => Ok(name),
            None => self.adopt_instance(&new_instance(clock)),
        }
    }

    /// The same where they are there.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn found_instance(&self) -> Result<Option<String>, InstallationError> {
        let path = self.directory.join(INSTANCE_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let name = text.trim();
                let shaped =
                    name.len() == INSTANCE_LENGTH && name.bytes().all(|b| INSTANCE_LETTERS.contains(&b));
                if shaped {
                    return Ok(Some(name.to_owned()));
                }
                Err(InstallationError::Instance { path })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Writes them down, unless another process was faster; answers what stands there.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn adopt_instance(&self, name: &str) -> Result<String, InstallationError> {
        let mut file =
            tempfile::NamedTempFile::new_in(&self.directory).map_err(|source| self.failed(source))?;
        writeln!(file, "{name}").map_err(|source| self.failed(source))?;
        match file.persist_noclobber(self.directory.join(INSTANCE_FILE)) {
            Ok(_) => Ok(name.to_owned()),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(self.found_instance()?.unwrap_or_else(|| name.to_owned()))
            }
            Err(error) => Err(self.failed(error.error)),
        }
    }

    /// Opens the installation's database: the file in the directory, or the server that is named.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn store(&self, postgres: Option<&PostgresSettings>) -> Result<Store, InstallationError> {
        if let Some(postgres) = postgres {
            return Store::connect(postgres).await.map_err(InstallationError::Server);
        }
        let path = self.directory.join(DATABASE_FILE);
        if !path.exists() && self.directory.join(COPIED_FILE).exists() {
            return Err(InstallationError::Copied {
                path: self.directory.clone(),
            });
        }
        // SQLite gives its other files the mode of this one: nobody else reads any of them.
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| self.failed(source))?;
        Store::open_sqlite(&path)
            .await
            .map_err(|source| InstallationError::Database {
                path: self.directory.clone(),
                source,
            })
    }

    /// Puts the file with the database aside, so that no server works on it by mistake; answers where it is now.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn put_aside(&self) -> Result<PathBuf, InstallationError> {
        let aside = self.directory.join(COPIED_FILE);
        std::fs::rename(self.directory.join(DATABASE_FILE), &aside)
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|source| self.failed(source))?;
        Ok(aside)
    }

    fn failed(&self, source: std::io::Error) -> InstallationError {
        InstallationError::Directory {
            path: self.directory.clone(),
            source,
        }
    }
}

fn new_instance(clock: &Clock) -> String {
    let mut name = String::with_capacity(INSTANCE_LENGTH);
    while name.len() < INSTANCE_LENGTH {
        for byte in clock.random::<16>() {
            // 252 = 7 × 36: above it the first letters would come up more often.
            if byte < 252 && name.len() < INSTANCE_LENGTH {
                name.push(char::from(
                    INSTANCE_LETTERS[usize::from(byte) % INSTANCE_LETTERS.len()],
                ));
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{Installation, InstallationError};
    use crate::server::clock::Clock;

    #[test]
    fn one_server_at_a_time() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let installation = Installation::open(&directory.path().join("data")).expect("made");
        let held = installation.hold(false).expect("free");
        assert!(installation.hold(true).is_err());
        match installation.hold(false) {
            Err(InstallationError::Held { holder, .. }) => {
                assert_eq!(holder, format!("process {}", std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        drop(held);
        let shared = installation.hold(true).expect("free again");
        let again = installation.hold(true).expect("shared");
        assert!(installation.hold(false).is_err());
        drop((shared, again));
        installation.hold(false).expect("free once more");
    }

    #[tokio::test]
    async fn only_its_owner_reads_the_database() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("temporary directory");
        assert!(matches!(
            Installation::find(directory.path()),
            Err(InstallationError::Absent { .. })
        ));
        let installation = Installation::open(directory.path()).expect("made");
        let store = installation.store(None).await.expect("opened");
        store.migrate_up().await.expect("migrated");
        for file in std::fs::read_dir(directory.path()).expect("listed").flatten() {
            let mode = file.metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", file.path().display());
        }
        assert!(Installation::find(directory.path()).is_ok());
    }

    #[test]
    fn the_instance_is_made_once() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let installation = Installation::open(directory.path()).expect("made");
        let first = installation.instance(&Clock::system()).expect("made");
        assert_eq!(installation.instance(&Clock::system()).expect("read"), first);
        assert_eq!(first.len(), 6);
    }
}
