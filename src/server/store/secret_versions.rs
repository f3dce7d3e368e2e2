//! Table `secret_versions`: every version of every value, sealed under the tenant's key. Removal is a version too.

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

/// Whose a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretScope {
    /// Set by the tenant's people.
    User,
    /// Made by the platform.
    Platform,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub key: String,
    /// From 1.
    pub version: u32,
    /// The sealed value; `None` in the version that removed it.
    pub sealed_value: Option<String>,
    /// Shows equal values as equal, within this tenant.
    pub digest: String,
    /// Who set it.
    pub set_by: String,
    /// When.
    pub set_at: Time,
}

/// Writes a version.
///
/// # Errors
/// [`StoreError::Duplicate`]: that version is there.
pub async fn insert(
    tx: &mut Tx,
    tenant: &TenantId,
    scope: SecretScope,
    row: &SecretRow,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO secret_versions (tenant_id, scope, key, version, sealed_value, digest, set_by, set_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        vec![
            tenant.as_str().into(),
            word_of(&scope).into(),
            row.key.as_str().into(),
            row.version.into(),
            row.sealed_value.as_deref().into(),
            row.digest.as_str().into(),
            row.set_by.as_str().into(),
            row.set_at.into(),
        ],
    )
    .await?;
    Ok(())
}

/// The last version of every key, removed ones left out, by name.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_latest(
    tx: &mut Tx,
    tenant: &TenantId,
    scope: SecretScope,
) -> Result<Vec<SecretRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM secret_versions AS one WHERE tenant_id = $1 AND scope = $2
             AND sealed_value IS NOT NULL
             AND version = (SELECT MAX(version) FROM secret_versions AS other
                 WHERE other.tenant_id = $1 AND other.scope = $2 AND other.key = one.key)
         ORDER BY key",
        vec![tenant.as_str().into(), word_of(&scope).into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// The last version of a key, removed or not.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_latest(
    tx: &mut Tx,
    tenant: &TenantId,
    scope: SecretScope,
    key: &str,
) -> Result<Option<SecretRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM secret_versions WHERE tenant_id = $1 AND scope = $2 AND key = $3
         ORDER BY version DESC LIMIT 1",
        vec![tenant.as_str().into(), word_of(&scope).into(), key.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// One version of a key.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_version(
    tx: &mut Tx,
    tenant: &TenantId,
    scope: SecretScope,
    (key, version): (&str, u32),
) -> Result<Option<SecretRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM secret_versions WHERE tenant_id = $1 AND scope = $2 AND key = $3 AND version = $4",
        vec![
            tenant.as_str().into(),
            word_of(&scope).into(),
            key.into(),
            version.into(),
        ],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// Every version of a key, newest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_versions(
    tx: &mut Tx,
    tenant: &TenantId,
    scope: SecretScope,
    key: &str,
) -> Result<Vec<SecretRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM secret_versions WHERE tenant_id = $1 AND scope = $2 AND key = $3
         ORDER BY version DESC",
        vec![tenant.as_str().into(), word_of(&scope).into(), key.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Removes every version of every key of a tenant.
///
/// # Errors
/// The database fails.
pub async fn remove_all(tx: &mut Tx, tenant: &TenantId) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM secret_versions WHERE tenant_id = $1",
        vec![tenant.as_str().into()],
    )
    .await?;
    Ok(())
}

fn read(row: &Row) -> Result<SecretRow, StoreError> {
    Ok(SecretRow {
        key: row.text("key")?,
        version: row.u32("version")?,
        sealed_value: row.opt_text("sealed_value")?,
        digest: row.text("digest")?,
        set_by: row.text("set_by")?,
        set_at: row.time("set_at")?,
    })
}
