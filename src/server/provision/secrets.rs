//! A tenant's secrets and one-time credentials: sealed rows in the store, opened only here and for its machines.

use sha2::{Digest as _, Sha256};

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::secret::{Credentials, Secret, SecretText};
use crate::server::clock::Clock;
use crate::server::databases::LoginSlot as DatabaseSlot;
use crate::server::provision::Provision;
use crate::server::provision::context::Parts;
use crate::server::store::credential_grants::GrantRow;
use crate::server::store::secret_versions::{SecretRow, SecretScope};
use crate::server::store::tenant_keys::TenantKeyRow;
use crate::server::store::tenants::{LoginSlot, TenantRow};
use crate::server::store::{StoreError, Tx, credential_grants, releases, secret_versions, tenant_keys};
use crate::server::vault::{SealedKey, SecretName, Vault, VaultError};

/// Signs the tenant's own tokens; a platform secret.
pub(super) const JWT_SECRET: &str = "JWT_SECRET";
const GRANT: SecretName<'static> = SecretName {
    scope: "grant",
    key: "token",
    version: 1,
};

/// Why secrets cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The store failed.
    #[error("failed to read or write secrets")]
    Store(#[from] StoreError),
    /// A value cannot be sealed or opened.
    #[error("failed to seal or open a secret")]
    Vault(#[from] VaultError),
    /// A value that must be there is not.
    #[error("failed to find version {version} of `{key}`, which a release needs")]
    Missing {
        /// Its name.
        key: String,
        /// Which version.
        version: u32,
    },
}

/// The name under which the password of a login role is kept.
pub(super) const fn password_key(slot: LoginSlot) -> &'static str {
    match slot {
        LoginSlot::A => "DATABASE_PASSWORD_A",
        LoginSlot::B => "DATABASE_PASSWORD_B",
    }
}

/// The same slot in the words of the databases.
pub(super) const fn database_slot(slot: LoginSlot) -> DatabaseSlot {
    match slot {
        LoginSlot::A => DatabaseSlot::A,
        LoginSlot::B => DatabaseSlot::B,
    }
}

impl Provision {
    /// Writes a new version of a user's secret.
    ///
    /// # Errors
    /// The store or the vault fails.
    pub async fn set_secret(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        (key, value): (&SecretKey, &SecretText),
        set_by: &str,
    ) -> Result<Secret, SecretError> {
        let parts = &self.0.parts;
        let sealed = tenant_key(tx, parts, &tenant.id).await?;
        let last = secret_versions::find_latest(tx, &tenant.id, SecretScope::User, key.as_str()).await?;
        let version = last.map_or(1, |row| row.version + 1);
        let name = (SecretScope::User, key.as_str(), version);
        let row = sealed_row(parts, (&tenant.id, &sealed), name, value, set_by)?;
        secret_versions::insert(tx, &tenant.id, SecretScope::User, &row).await?;
        Ok(shown(key.clone(), &row, true))
    }

    /// The value that a user's secret had in a version; `None` where it had none.
    ///
    /// # Errors
    /// The store or the vault fails.
    pub async fn earlier_secret(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        (key, version): (&SecretKey, u32),
    ) -> Result<Option<SecretText>, SecretError> {
        let parts = &self.0.parts;
        let sealed = tenant_key(tx, parts, &tenant.id).await?;
        let name = (key.as_str(), version);
        match secret_versions::find_version(tx, &tenant.id, SecretScope::User, name).await? {
            Some(row) if row.sealed_value.is_some() => {
                let whose = (&tenant.id, &sealed);
                Ok(Some(opened(&parts.vault, whose, SecretScope::User, &row)?))
            }
            _ => Ok(None),
        }
    }

    /// The value that a user's secret has now, if it has one.
    ///
    /// # Errors
    /// The store or the vault fails.
    pub async fn latest_secret(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        key: &str,
    ) -> Result<Option<SecretText>, SecretError> {
        let parts = &self.0.parts;
        let last = secret_versions::find_latest(tx, &tenant.id, SecretScope::User, key).await?;
        let Some(row) = last.filter(|row| row.sealed_value.is_some()) else {
            return Ok(None);
        };
        let sealed = require_tenant_key(tx, &tenant.id).await?;
        Ok(Some(opened(
            &parts.vault,
            (&tenant.id, &sealed),
            SecretScope::User,
            &row,
        )?))
    }

    /// Writes that a user's secret is removed; `false` when there is none.
    ///
    /// # Errors
    /// The store fails.
    pub async fn unset_secret(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        key: &SecretKey,
        set_by: &str,
    ) -> Result<bool, SecretError> {
        let last = secret_versions::find_latest(tx, &tenant.id, SecretScope::User, key.as_str()).await?;
        let Some(last) = last.filter(|row| row.sealed_value.is_some()) else {
            return Ok(false);
        };
        let removal = SecretRow {
            key: last.key,
            version: last.version + 1,
            sealed_value: None,
            digest: String::new(),
            set_by: set_by.to_owned(),
            set_at: self.0.parts.clock.now(),
        };
        secret_versions::insert(tx, &tenant.id, SecretScope::User, &removal).await?;
        Ok(true)
    }

    /// The user's secrets without their values, by name.
    ///
    /// # Errors
    /// The store fails.
    pub async fn list_secrets(&self, tx: &mut Tx, tenant: &TenantRow) -> Result<Vec<Secret>, SecretError> {
        let taken = match tenant.current_release {
            None => None,
            Some(number) => releases::find(tx, &tenant.id, number).await?,
        }
        .map(|row| row.release.secret_versions)
        .unwrap_or_default();
        let rows = secret_versions::list_latest(tx, &tenant.id, SecretScope::User).await?;
        let mut secrets = Vec::with_capacity(rows.len());
        for row in rows {
            let key: SecretKey = row.key.parse().map_err(|source| StoreError::BadRow {
                column: "key",
                value: row.key.clone(),
                source: Box::new(source),
            })?;
            let staged = taken.get(&row.key) != Some(&row.version);
            secrets.push(shown(key, &row, staged));
        }
        Ok(secrets)
    }

    /// The one-time token of the tenant, while its credentials are not confirmed.
    ///
    /// # Errors
    /// The store or the vault fails.
    pub async fn credentials_token(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
    ) -> Result<Option<String>, SecretError> {
        let parts = &self.0.parts;
        let Some(grant) = credential_grants::find_open(tx, tenant, parts.clock.now()).await? else {
            return Ok(None);
        };
        let Some(key) = find_tenant_key(tx, tenant).await? else {
            return Ok(None);
        };
        let token = parts.vault.unseal(tenant, &key, GRANT, &grant.sealed_token)?;
        Ok(Some(token.expose().to_owned()))
    }

    /// The credentials that a one-time token stands for; `None` when there is no such token, or it has ended.
    ///
    /// # Errors
    /// The store or the vault fails.
    pub async fn credentials(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        token: &str,
    ) -> Result<Option<Credentials>, SecretError> {
        let parts = &self.0.parts;
        let open = credential_grants::find_open(tx, &tenant.id, parts.clock.now()).await?;
        // Compared by hash: how long it takes tells nothing about the token.
        if open.is_none_or(|grant| grant.token_hash != token_hash(token)) {
            return Ok(None);
        }
        let key = require_tenant_key(tx, &tenant.id).await?;
        let password = platform_value(tx, parts, (&tenant.id, &key), password_key(tenant.login_slot)).await?;
        let slot = database_slot(tenant.login_slot);
        Ok(Some(Credentials {
            database_url: parts.databases.url(&tenant.id, slot, &password),
            jwt_secret: platform_version(tx, parts, (&tenant.id, &key), (JWT_SECRET, tenant.jwt.version))
                .await?,
        }))
    }

    /// Ends a one-time token because its credentials are safe with their owner; `false` when it is not open.
    ///
    /// # Errors
    /// The store fails.
    pub async fn confirm_credentials(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        token: &str,
    ) -> Result<bool, SecretError> {
        let now = self.0.parts.clock.now();
        Ok(credential_grants::confirm(tx, tenant, &token_hash(token), now).await?)
    }
}

fn shown(key: SecretKey, row: &SecretRow, staged: bool) -> Secret {
    Secret {
        key,
        version: row.version,
        digest: row.digest.clone(),
        set_by: row.set_by.clone(),
        set_at: row.set_at,
        staged,
    }
}

fn token_hash(token: &str) -> String {
    hex::encode(Sha256::digest(token.as_bytes()))
}

/// `bytes` random bytes as text that needs no escaping anywhere.
pub(super) fn random_text<const N: usize>(clock: &Clock) -> SecretText {
    SecretText::new(clock.random_text::<N>())
}

/// A one-time grant with a fresh token.
pub(super) fn new_grant(parts: &Parts, tenant: &TenantId, key: &SealedKey) -> Result<GrantRow, VaultError> {
    let token = SecretText::new(format!("spc_{}", random_text::<32>(&parts.clock).expose()));
    let now = parts.clock.now();
    Ok(GrantRow {
        token_hash: token_hash(token.expose()),
        sealed_token: parts.vault.seal(tenant, key, GRANT, &token)?,
        created_at: now,
        expires_at: now.plus_seconds(parts.settings.grant_seconds),
    })
}

/// The row that keeps a value.
pub(super) fn sealed_row(
    parts: &Parts,
    (tenant, tenant_key): (&TenantId, &SealedKey),
    (scope, key, version): (SecretScope, &str, u32),
    value: &SecretText,
    set_by: &str,
) -> Result<SecretRow, VaultError> {
    let name = secret_name(scope, key, version);
    Ok(SecretRow {
        key: key.to_owned(),
        version,
        sealed_value: Some(parts.vault.seal(tenant, tenant_key, name, value)?),
        digest: parts.vault.digest(tenant, tenant_key, value)?,
        set_by: set_by.to_owned(),
        set_at: parts.clock.now(),
    })
}

const fn secret_name(scope: SecretScope, key: &str, version: u32) -> SecretName<'_> {
    let scope = match scope {
        SecretScope::User => "user",
        SecretScope::Platform => "platform",
    };
    SecretName { scope, key, version }
}

/// Opens the value of a row.
pub(super) fn opened(
    vault: &Vault,
    (tenant, tenant_key): (&TenantId, &SealedKey),
    scope: SecretScope,
    row: &SecretRow,
) -> Result<SecretText, SecretError> {
    let Some(sealed) = &row.sealed_value else {
        return Err(SecretError::Missing {
            key: row.key.clone(),
            version: row.version,
        });
    };
    let name = secret_name(scope, &row.key, row.version);
    Ok(vault.unseal(tenant, tenant_key, name, sealed)?)
}

/// The value of a platform secret as it is now.
pub(super) async fn platform_value(
    tx: &mut Tx,
    parts: &Parts,
    tenant: (&TenantId, &SealedKey),
    key: &str,
) -> Result<SecretText, SecretError> {
    let row = secret_versions::find_latest(tx, tenant.0, SecretScope::Platform, key).await?;
    let row = row.ok_or_else(|| SecretError::Missing {
        key: key.to_owned(),
        version: 1,
    })?;
    opened(&parts.vault, tenant, SecretScope::Platform, &row)
}

/// One version of a platform secret.
pub(super) async fn platform_version(
    tx: &mut Tx,
    parts: &Parts,
    tenant: (&TenantId, &SealedKey),
    (key, version): (&str, u32),
) -> Result<SecretText, SecretError> {
    let row = secret_versions::find_version(tx, tenant.0, SecretScope::Platform, (key, version)).await?;
    let row = row.ok_or_else(|| SecretError::Missing {
        key: key.to_owned(),
        version,
    })?;
    opened(&parts.vault, tenant, SecretScope::Platform, &row)
}

/// The tenant's data key, if it has one.
pub(super) async fn find_tenant_key(tx: &mut Tx, tenant: &TenantId) -> Result<Option<SealedKey>, StoreError> {
    let row = tenant_keys::find(tx, tenant).await?;
    Ok(row.map(|row| SealedKey {
        master_version: row.master_version,
        sealed_key: row.sealed_key,
    }))
}

/// The tenant's data key, which must be there.
pub(super) async fn require_tenant_key(tx: &mut Tx, tenant: &TenantId) -> Result<SealedKey, StoreError> {
    find_tenant_key(tx, tenant)
        .await?
        .ok_or_else(|| StoreError::Missing {
            what: "data key of tenant",
            id: tenant.to_string(),
        })
}

/// The tenant's data key; made and kept when it has none yet.
async fn tenant_key(tx: &mut Tx, parts: &Parts, tenant: &TenantId) -> Result<SealedKey, SecretError> {
    if let Some(key) = find_tenant_key(tx, tenant).await? {
        return Ok(key);
    }
    let key = parts.vault.new_tenant_key(tenant)?;
    let row = TenantKeyRow {
        master_version: key.master_version,
        sealed_key: key.sealed_key.clone(),
    };
    tenant_keys::insert(tx, tenant, &row, parts.clock.now()).await?;
    Ok(key)
}
