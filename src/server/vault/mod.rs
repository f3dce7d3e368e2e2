//! Secrets at rest: every value is sealed with its tenant's data key, every data key with a version of the master key.
//!
//! So the master key can be rotated without touching values, and destroying a tenant's key destroys what it
//! sealed, in backups too. What a value is sealed as (tenant, scope, name, version) is bound to it: a sealed value
//! moved to another row does not open.

mod cipher;
mod master;

use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::api::id::TenantId;
use crate::api::secret::SecretText;
use crate::server::clock::Clock;
use crate::server::vault::cipher::{Key, open, seal};
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
    /// A value names a version of the master key that the file does not have.
    #[error("failed to open a sealed key: the master key has no version {version}")]
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
    master: MasterKeys,
    clock: Clock,
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
        let master = MasterKeys::open(directory, &clock)?;
        Ok(Self(Arc::new(Inner { master, clock })))
    }

    /// Reads the master key in `file`, which must be there.
    ///
    /// # Errors
    /// The file cannot be used or is malformed.
    pub fn open_file(file: &Path, clock: Clock) -> Result<Self, VaultError> {
        let master = MasterKeys::open_file(file)?;
        Ok(Self(Arc::new(Inner { master, clock })))
    }

    /// A text by which another server can tell whether it has the same master key.
    ///
    /// # Errors
    /// The cipher refuses.
    pub fn prove(&self) -> Result<String, VaultError> {
        self.0.master.canary(&self.0.clock)
    }

    /// Whether a text was made by [`Vault::prove`] with this master key, in any of its versions.
    #[must_use]
    pub fn proves(&self, text: &str) -> bool {
        self.0.master.opens(text)
    }

    /// Makes a data key for a tenant.
    ///
    /// # Errors
    /// The cipher refuses.
    pub fn new_tenant_key(&self, tenant: &TenantId) -> Result<SealedKey, VaultError> {
        let fresh = Zeroizing::new(self.0.clock.random::<32>());
        let (master_version, master) = self.0.master.current();
        let name = key_name(tenant);
        let sealed_key = seal(master, self.0.clock.random(), &name, fresh.as_slice())?;
        Ok(SealedKey {
            master_version,
            sealed_key,
        })
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
        let master = self.0.master.version(key.master_version)?;
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{SecretName, Vault, VaultError};
    use crate::api::id::TenantId;
    use crate::api::secret::SecretText;
    use crate::server::clock::Clock;

    const NAME: SecretName<'static> = SecretName {
        scope: "user",
        key: "OPENAI_API_KEY",
        version: 3,
    };

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn opens_only_under_its_own_name() {
        let directory = tempfile::tempdir().expect("directory");
        let vault = Vault::open(directory.path(), Clock::system()).expect("vault");
        let (mine, other) = (tenant(1), tenant(2));
        let key = vault.new_tenant_key(&mine).expect("key");
        let sealed = vault
            .seal(&mine, &key, NAME, &SecretText::new("sk-1"))
            .expect("sealed");
        assert!(!sealed.contains("sk-1"));
        let opened = vault.unseal(&mine, &key, NAME, &sealed).expect("opened");
        assert_eq!(opened.expose(), "sk-1");
        for name in [
            SecretName { version: 4, ..NAME },
            SecretName { key: "X", ..NAME },
            SecretName {
                scope: "platform",
                ..NAME
            },
        ] {
            assert!(matches!(
                vault.unseal(&mine, &key, name, &sealed),
                Err(VaultError::Unreadable { .. })
            ));
        }
        assert!(vault.unseal(&other, &key, NAME, &sealed).is_err());
    }

    #[test]
    fn equal_values_are_sealed_differently_and_digested_equally() {
        let directory = tempfile::tempdir().expect("directory");
        let vault = Vault::open(directory.path(), Clock::system()).expect("vault");
        let (mine, other) = (tenant(1), tenant(2));
        let (key, other_key) = (
            vault.new_tenant_key(&mine).expect("key"),
            vault.new_tenant_key(&other).expect("key"),
        );
        let value = SecretText::new("the same");
        let seal = || vault.seal(&mine, &key, NAME, &value).expect("sealed");
        assert_ne!(seal(), seal());
        let digest = vault.digest(&mine, &key, &value).expect("digest");
        assert_eq!(digest.len(), 12);
        assert_eq!(digest, vault.digest(&mine, &key, &value).expect("digest"));
        assert_ne!(digest, vault.digest(&other, &other_key, &value).expect("digest"));
    }

    #[test]
    fn the_same_folder_opens_again_and_another_key_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let elsewhere = tempfile::tempdir().expect("directory");
        let tenant = tenant(1);
        let key = Vault::open(directory.path(), Clock::system())
            .and_then(|vault| vault.new_tenant_key(&tenant))
            .expect("key");
        let again = Vault::open(directory.path(), Clock::system()).expect("again");
        assert!(again.digest(&tenant, &key, &SecretText::new("x")).is_ok());

        let file = directory.path().join("master.key");
        std::fs::remove_file(&file).expect("removed");
        assert!(matches!(
            Vault::open(directory.path(), Clock::system()),
            Err(VaultError::KeyMissing { .. })
        ));
        Vault::open(elsewhere.path(), Clock::system()).expect("another vault");
        std::fs::copy(elsewhere.path().join("master.key"), &file).expect("copied");
        assert!(matches!(
            Vault::open(directory.path(), Clock::system()),
            Err(VaultError::WrongKey { .. })
        ));
    }
}
