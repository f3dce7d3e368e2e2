//! Secrets at rest: every value is sealed with its tenant's data key, every data key with a version of the master key.
//!
//! So the master key can be rotated without touching values, and destroying a tenant's key destroys what it
//! sealed, in backups too. What a value is sealed as (tenant, scope, name, version) is bound to it: a sealed value
//! moved to another row does not open.

mod cipher;
mod file_state;
mod master;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::server::clock::Clock;
use crate::server::vault::cipher::{Key, open, seal};
use crate::server::vault::file_state::FileState;
pub use crate::server::vault::master::KeySource;
use crate::server::vault::master::MasterKeys;

/// Why a value cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file cannot be read or written.
    #[error("failed to use `{path}`")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key file is not what this version writes.
    #[error("failed to read `{path}`: it is not a master key file\nhint: restore it from your backup")]
    Malformed {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Values were sealed here, and the key is gone.
    #[error(
        "failed to find the master key `{path}`, which sealed the secrets of this installation\n\
         hint: restore it from your backup; without it no secret can be read"
    )]
    KeyMissing {
        /// Which file.
        path: String,
    },
    /// The key is not the one that sealed the values here.
    #[error(
        "failed to open the canary with `{path}`: it is another master key than the one that sealed the \
         secrets of this installation\nhint: restore the right one from your backup"
    )]
    WrongKey {
        /// Which file.
        path: String,
    },
    /// The command that prints the key failed.
    #[error("failed to get the master key from `{command}`")]
    Command {
        /// Which command.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else rotates the key.
    #[error("another rotation of the master key is under way\nhint: wait for its end")]
    Rotating,
    /// A value names a version of the master key that the file does not have.
    #[error(
        "failed to open a sealed key: the master key has no version {version}\n\
         hint: give the server a master key that still has it"
    )]
    UnknownVersion {
        /// Which version.
        version: u32,
    },
    /// A sealed value does not open: it was changed, moved, or sealed with another key.
    #[error("failed to open the sealed value of {what}: it was changed, or sealed with another key")]
    Unreadable {
        /// Which value.
        what: String,
    },
    /// The cipher refused to seal.
    #[error("failed to seal a value: it is too long")]
    TooLong,
}

/// A tenant's data key, sealed with a version of the master key: what the store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKey {
    /// The version of the master key that sealed it.
    pub master_version: u32,
    /// The sealed key.
    pub sealed_key: String,
}

/// Under what a value is kept; bound to the sealed value.
#[derive(Clone, Copy, Debug)]
pub struct SecretName<'a> {
    /// `user`, `platform` …
    pub scope: &'a str,
    /// Its name.
    pub key: &'a str,
    /// Its version.
    pub version: u32,
}

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    source: KeySource,
    master: RwLock<Read>,
    clock: Clock,
}

/// The key as it was read, and which state of its file that was.
struct Read {
    keys: Arc<MasterKeys>,
    state: Option<FileState>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// Reads the master key in `directory`, or makes one when nothing was ever sealed there.
    ///
    /// # Errors
    /// The file cannot be used, is malformed, is missing though it was there, or is another one than before.
    pub fn open(directory: &Path, clock: Clock) -> Result<Self, VaultError> {
        Self::from_source(KeySource::Folder(directory.to_owned()), clock)
    }

    /// Reads the master key from where it is.
    ///
    /// # Errors
    /// It cannot be had, is malformed, or is another one than before.
    pub fn from_source(source: KeySource, clock: Clock) -> Result<Self, VaultError> {
        let state = source.file().and_then(|file| FileState::of(&file));
        let keys = Arc::new(MasterKeys::open(&source, &clock)?);
        Ok(Self(Arc::new(Inner {
            source,
            master: RwLock::new(Read { keys, state }),
            clock,
        })))
    }

    /// The key as it is now: a rotation beside a running server changes the file, and the server takes it up.
    fn master(&self) -> Arc<MasterKeys> {
        let (keys, before) = {
            let read = self.0.master.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&read.keys), read.state)
        };
        let Some(file) = self.0.source.file() else {
            return keys;
        };
        let state = FileState::of(&file);
        if state.is_none() || state == before {
            return keys;
        }
        match MasterKeys::open(&self.0.source, &self.0.clock) {
            Ok(fresh) => {
                let keys = Arc::new(fresh);
                let mut read = self.0.master.write().unwrap_or_else(PoisonError::into_inner);
                *read = Read {
                    keys: Arc::clone(&keys),
                    state,
                };
                keys
            }
            Err(error) => {
                tracing::error!(%error, "the changed master key cannot be used; the one before is used on");
                keys
            }
        }
    }

    /// The version that seals, and all versions.
    #[must_use]
    pub fn versions(&self) -> (u32, Vec<u32>) {
        let master = self.master();
        (master.current().0, master.versions())
    }

    /// Adds a version, which seals from now on; answers its number, or `None` where the key is kept elsewhere.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add_version(&self) -> Result<Option<u32>, VaultError> {
        let Some(file) = self.0.source.file() else {
            return Ok(None);
        };
        let added = self.master().add_version(&file, &self.0.clock)?;
        self.renew()?;
        Ok(Some(added))
    }

    /// Forgets every version but the one that seals; `false` where the key is kept elsewhere.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget_old_versions(&self) -> Result<bool, VaultError> {
        let Some(file) = self.0.source.file() else {
            return Ok(false);
        };
        self.master().keep_current(&file)?;
        self.renew()?;
        Ok(true)
    }

    /// Reads the file again and writes the canary anew.
    fn renew(&self) -> Result<(), VaultError> {
        let inner = &self.0;
        let state = inner.source.file().and_then(|file| FileState::of(&file));
        let keys = Arc::new(MasterKeys::open(&inner.source, &inner.clock)?);
        keys.renew_canary(&inner.source, &inner.clock)?;
        let mut read = inner.master.write().unwrap_or_else(PoisonError::into_inner);
        *read = Read { keys, state };
        Ok(())
    }

    /// Holds the key's file against another rotation until the answer is dropped.
    ///
    /// # Errors
    /// Another rotation is under way, or the lock cannot be made.
    pub fn hold(&self) -> Result<Option<std::fs::File>, VaultError> {
        let Some(file) = self.0.source.file() else {
            return Ok(None);
        };
        let path = file.with_extension("rotation");
        let failed = |source| VaultError::File {
            path: path.display().to_string(),
            source,
        };
        let lock = std::fs::File::create(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(std::fs::TryLockError::WouldBlock) => Err(VaultError::Rotating),
            Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The same data key under the version that seals now. No value needs to be touched.
    ///
    /// # Errors
    /// The data key does not open.
    pub fn rewrap(&self, tenant: &TenantId, key: &SealedKey) -> Result<SealedKey, VaultError> {
        let data_key = self.data_key(tenant, key)?;
        self.wrap(tenant, data_key.as_slice())
    }

    fn wrap(&self, tenant: &TenantId, data_key: &[u8]) -> Result<SealedKey, VaultError> {
        let master = self.master();
        let (master_version, key) = master.current();
        let sealed_key = seal(key, self.0.clock.random(), &key_name(tenant), data_key)?;
        Ok(SealedKey {
            master_version,
            sealed_key,
        })
    }

    /// A text by which another server can tell whether it has the same master key.
    ///
    /// # Errors
    /// The cipher refuses.
    pub fn prove(&self) -> Result<String, VaultError> {
        self.master().canary(&self.0.clock)
    }

    /// Whether a text was made by [`Vault::prove`] with this master key, in any of its versions.
    #[must_use]
    pub fn proves(&self, text: &str) -> bool {
        self.master().opens(text)
    }

    /// Whether the master key is none that chance has made: of 32 random bytes about 30 differ from each other.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        let master = self.master();
        let (_, key) = master.current();
        key.iter().collect::<std::collections::BTreeSet<_>>().len() < 16
    }

    /// Makes a data key for a tenant.
    ///
    /// # Errors
    /// The cipher refuses.
    pub fn new_tenant_key(&self, tenant: &TenantId) -> Result<SealedKey, VaultError> {
        let fresh = Zeroizing::new(self.0.clock.random::<32>());
        self.wrap(tenant, fresh.as_slice())
    }

    /// Seals a value as `name` of a tenant.
    ///
    /// # Errors
    /// The tenant's key does not open.
    pub fn seal(
        &self,
        tenant: &TenantId,
        key: &SealedKey,
        name: SecretName<'_>,
        value: &SecretText,
    ) -> Result<String, VaultError> {
        let data_key = self.data_key(tenant, key)?;
        let bound = value_name(tenant, name);
        seal(
            &data_key,
            self.0.clock.random(),
            &bound,
            value.expose().as_bytes(),
        )
    }

    /// Opens what [`Vault::seal`] answered for the same name. Never an empty or partial value instead of an error.
    ///
    /// # Errors
    /// The value was changed, moved, or sealed with another key.
    pub fn unseal(
        &self,
        tenant: &TenantId,
        key: &SealedKey,
        name: SecretName<'_>,
        sealed: &str,
    ) -> Result<SecretText, VaultError> {
        let data_key = self.data_key(tenant, key)?;
        let bytes = open(&data_key, &value_name(tenant, name), sealed);
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes).ok().map(SecretText::new))
            .ok_or_else(|| VaultError::Unreadable {
                what: format!("`{}` version {} of `{tenant}`", name.key, name.version),
            })
    }

    /// Twelve hex digits that are equal for equal values of one tenant, and say nothing else.
    ///
    /// # Errors
    /// The tenant's key does not open.
    pub fn digest(
        &self,
        tenant: &TenantId,
        key: &SealedKey,
        value: &SecretText,
    ) -> Result<String, VaultError> {
        let data_key = self.data_key(tenant, key)?;
        // A key of its own: the data key itself only ever goes into the cipher.
        let own = mac(&data_key, b"systemprompt:digest:v1");
        let full = mac(&own, value.expose().as_bytes());
        Ok(hex::encode(&full[..6]))
    }

    fn data_key(&self, tenant: &TenantId, key: &SealedKey) -> Result<Key, VaultError> {
        let keys = self.master();
        let master = keys.version(key.master_version)?;
        open(master, &key_name(tenant), &key.sealed_key)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
            .map(Zeroizing::new)
            .ok_or_else(|| VaultError::Unreadable {
                what: format!("the data key of `{tenant}`"),
            })
    }
}

fn key_name(tenant: &TenantId) -> String {
    format!("systemprompt:tenant-key:v1\n{tenant}")
}

fn value_name(tenant: &TenantId, name: SecretName<'_>) -> String {
    format!(
        "systemprompt:value:v1\n{tenant}\n{}\n{}\n{}",
        name.scope, name.key, name.version
    )
}

fn mac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    // A key shorter than a block is filled up with zeros (RFC 2104 section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&(*block).into());
    mac.update(text);
    mac.finalize().into_bytes().into()
}
