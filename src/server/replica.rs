//! What all servers of one database must have in common: the installation's name and its keys, checked at every start.

use crate::server::auth::keys::Keys;
use crate::server::clock::Clock;
use crate::server::installation::{Installation, InstallationError};
use crate::server::store::{Store, StoreError, settings};
use crate::server::vault::{Vault, VaultError};

const INSTANCE: &str = "instance";
const SIGNING_KEY: &str = "signing-key-check";
/// Where the proof of the master key is kept.
pub const MASTER_KEY: &str = "master-key-check";

/// Why this server is none of those that share the database.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Its folder is that of another installation.
    #[error("the database is that of installation `{shared}`, and the data directory that of `{own}`")]
    Instance {
        /// In the database.
        shared: String,
        /// In the folder.
        own: String,
    },
    /// One of its keys is not the one that the others have.
    #[error("the {key} key is not the one that the other servers of this database have")]
    Key {
        /// `master` or `signing`.
        key: &'static str,
    },
    /// The folder cannot be used.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// A key cannot be used.
    #[error("failed to use the master key")]
    Vault(#[from] VaultError),
    /// The database fails.
    #[error("failed to read or write the database")]
    Store(#[from] StoreError),
}

impl ReplicaError {
    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Instance { .. } => Some(
                "name the data directory that belongs to the database with `--data-dir DIR`, or an empty one"
                    .to_owned(),
            ),
            Self::Key { key } => Some(format!(
                "give every server the same file: `--{key}-key-file FILE`, or one shared `--data-dir`"
            )),
            Self::Installation(error) => error.hint(),
            Self::Vault(_) | Self::Store(_) => None,
        }
    }
}

/// What is kept of the signing key, to know it again.
fn signing_check(keys: &Keys) -> String {
    hex::encode(keys.derive("same-key-check"))
}

/// Checks that work beside running servers is done with their signing key.
///
/// # Errors
/// It is another one, or the database fails.
pub async fn agree_on_signing(store: &Store, keys: &Keys) -> Result<(), ReplicaError> {
    let known = settings::find(&mut store.begin_read().await?, SIGNING_KEY).await?;
    if known.is_some_and(|known| known != signing_check(keys)) {
        return Err(ReplicaError::Key { key: "signing" });
    }
    Ok(())
}

/// Checks that this server belongs to those that share the database; the first one says what holds for all. Answers the
/// installation's name.
///
/// # Errors
/// It does not belong to them.
pub async fn agree(
    installation: &Installation,
    (store, clock): (&Store, &Clock),
    (keys, vault): (&Keys, &Vault),
) -> Result<String, ReplicaError> {
    let own = installation.found_instance()?;
    let signing = signing_check(keys);
    let mut tx = store.begin().await?;
    let shared = match settings::find(&mut tx, INSTANCE).await? {
        Some(shared) => shared,
        None => {
            let name = match &own {
                Some(own) => own.clone(),
                None => installation.instance(clock)?,
            };
            settings::keep_first(&mut tx, INSTANCE, &name).await?
        }
    };
    let signing_known = settings::keep_first(&mut tx, SIGNING_KEY, &signing).await?;
    let proof = settings::find(&mut tx, MASTER_KEY).await?;
    let proof = match proof {
        Some(proof) => proof,
        None => settings::keep_first(&mut tx, MASTER_KEY, &vault.prove()?).await?,
    };
    tx.commit().await?;
    if signing_known != signing {
        return Err(ReplicaError::Key { key: "signing" });
    }
    if !vault.proves(&proof) {
        return Err(ReplicaError::Key { key: "master" });
    }
    match own {
        Some(own) if own != shared => Err(ReplicaError::Instance { shared, own }),
        Some(_) => Ok(shared),
        None => Ok(installation.adopt_instance(&shared)?),
    }
}
