//! Opens what the server's own data lies in: its database, brought up to date where that may be, and its keys.

use crate::server::auth::AuthError;
use crate::server::auth::keys::Keys;
use crate::server::clock::Clock;
use crate::server::config::{DataSettings, Settings};
use crate::server::error::ServerError;
use crate::server::installation::Installation;
use crate::server::maintenance::MaintenanceError;
use crate::server::store::{Store, StoreError};
use crate::server::vault::{Vault, VaultError};

/// The database, with every migration that this program knows.
///
/// # Errors
/// It cannot be opened, or lacks migrations that this server may not apply.
pub async fn open_store(installation: &Installation, settings: &Settings) -> Result<Store, ServerError> {
    let store = installation.store(settings.data.postgres.as_ref()).await?;
    let missing = store
        .migration_history()
        .await?
        .iter()
        .filter(|one| !one.applied)
        .count();
    if missing == 0 {
        // Without a look at what it may do: the role of a server need not be one that may change tables.
        store.check_not_newer().await?;
        return Ok(store);
    }
    if !settings.migrate {
        return Err(ServerError::Behind(MaintenanceError::Behind(missing)));
    }
    match store.migrate_up().await {
        Ok(()) => Ok(store),
        Err(StoreError::MayNotMigrate(_)) => {
            Err(ServerError::Behind(MaintenanceError::MayNotMigrate(missing)))
        }
        Err(error) => Err(ServerError::Migrate(error)),
    }
}

/// The key that tokens are signed with.
///
/// # Errors
/// Its file cannot be used.
pub fn signing_key(
    installation: &Installation,
    data: &DataSettings,
    clock: &Clock,
) -> Result<Keys, AuthError> {
    match &data.signing_key_file {
        Some(file) => Keys::open_file(file),
        None => Keys::open(installation.directory(), clock),
    }
}

/// The key that tenants' secrets are sealed with.
///
/// # Errors
/// Its file cannot be used.
pub fn master_key(
    installation: &Installation,
    data: &DataSettings,
    clock: &Clock,
) -> Result<Vault, VaultError> {
    match &data.master_key_file {
        Some(file) => Vault::open_file(file, clock.clone()),
        None => Vault::open(installation.directory(), clock.clone()),
    }
}

/// Process and machine, for whoever asks who works on something.
pub(super) fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let process = format!("process {}", std::process::id());
    match host.trim() {
        "" => process,
        host => format!("{process} on {host}"),
    }
}
