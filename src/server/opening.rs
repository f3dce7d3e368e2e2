//! Opens what the server's own data lies in: its database, brought up to date where that may be, and its keys.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use uuid::Uuid;

use crate::api::id::RequestId;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::FirstAccount;
use crate::server::auth::keys::{self as auth_keys, Keys};
use crate::server::auth::{Auth, AuthError};
use crate::server::clock::Clock;
use crate::server::config::{DataFlags, DataSettings, Environment, Settings};
use crate::server::error::ServerError;
use crate::server::http::error::chain;
use crate::server::http::{App, idempotency};
use crate::server::installation::Installation;
use crate::server::maintenance::{MaintenanceError, sign_in_path};
use crate::server::registry::{Gate, GateError, GateSettings};
use crate::server::replica::{self, MASTER_KEY, ReplicaError};
use crate::server::rotation;
use crate::server::store::acts::{self, Act};
use crate::server::store::{
    Store, StoreError, edge_sessions, idempotency_keys, operations, password_tries, rate_limits, settings,
    signing_keys, tenants, used_identities, web_sessions,
};
use crate::server::vault::{KeySource, Vault, VaultError};

/// How often what has expired is swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

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

/// The installation that is there; a database that several servers share needs no folder of this one's to be.
///
/// # Errors
/// There is none, or its folder cannot be used.
pub fn existing(data: &DataSettings) -> Result<Installation, ServerError> {
    Ok(match data.postgres {
        Some(_) => Installation::open(&data.directory)?,
        None => Installation::find(&data.directory)?,
    })
}

/// The database and the master key, for work on keys beside running servers.
///
/// # Errors
/// There is no installation, its database lacks migrations, or the key is not the one that sealed its secrets.
pub async fn for_keys(flags: DataFlags, clock: &Clock) -> Result<(Store, Vault), ServerError> {
    let data = DataSettings::resolve(flags, &Environment::read())?;
    let installation = existing(&data)?;
    let vault = master_key(&installation, &data, clock)?;
    let store = installation.store(data.postgres.as_ref()).await?;
    store.migrate_check().await?;
    let proof = settings::find(&mut store.begin_read().await?, MASTER_KEY).await?;
    if proof.is_some_and(|proof| !vault.proves(&proof)) {
        return Err(ReplicaError::Key { key: "master" }.into());
    }
    Ok((store, vault))
}

/// Accounts over the keys that are there, for work on the keys of access tokens beside running servers.
///
/// # Errors
/// There is no installation, its database lacks migrations, or the signing key is not the one of its servers.
pub async fn for_ring(flags: DataFlags, clock: &Clock) -> Result<Auth, ServerError> {
    let data = DataSettings::resolve(flags, &Environment::read())?;
    let installation = existing(&data)?;
    let in_folder = || installation.directory().join(auth_keys::FILE);
    let keys = Keys::open_file(&data.signing_key_file.clone().unwrap_or_else(in_folder))?;
    let store = installation.store(data.postgres.as_ref()).await?;
    store.migrate_check().await?;
    replica::agree_on_signing(&store, &keys).await?;
    Ok(Auth::new(store, clock.clone(), Arc::new(keys)))
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
    let in_folder = || KeySource::Folder(installation.directory().to_owned());
    let source = data.master_key.clone().unwrap_or_else(in_folder);
    Vault::from_source(source, clock.clone())
}

/// The gate, over the images that were pushed.
///
/// # Errors
/// Its folder cannot be used.
pub(super) async fn open_gate(
    settings: &Settings,
    public_url: &str,
    (keys, clock): (&Keys, &Clock),
) -> Result<Gate, GateError> {
    let host = public_url.split_once("://").map_or(public_url, |(_, host)| host);
    let gate = GateSettings {
        registry_host: settings.registry_host.clone().unwrap_or_else(|| host.to_owned()),
        realm: format!("{public_url}/v2/token"),
        directory: settings.registry_directory.clone(),
        signing_key: keys.derive("registry"),
    };
    Gate::open(gate, clock.clone()).await
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

/// Makes the account with which an installation begins, where there is none yet; it is the first act on record.
///
/// # Errors
/// Its password is refused, or the store fails.
pub async fn first_account(
    auth: &Auth,
    settings: &Settings,
    (public_url, clock): (&str, &Clock),
) -> Result<Option<FirstAccount>, ServerError> {
    if auth.has_accounts().await? {
        return Ok(None);
    }
    let admin = &settings.admin;
    let act = |action: &str| Act {
        actor: "server".to_owned(),
        target: Some(admin.email.trim().to_lowercase()),
        ..Act::new(action, RequestId::new(clock.uuid()).to_string(), clock.now())
    };
    let made = auth.create_account(&admin.email, admin.password.clone(), true);
    let account = match acts::perform_whole(act("create_first_account"), made).await {
        // Another server of the same database was faster.
        Err(AuthError::AccountExists(_)) => return Ok(None),
        made => made?,
    };
    let link = match &admin.password {
        Some(_) => None,
        None => {
            let link = auth.create_link(&account.email);
            let token = acts::perform_whole(act("create_sign_in_link"), link).await?;
            Some(SecretText::new(format!("{public_url}{}", sign_in_path(&token))))
        }
    };
    Ok(Some(FirstAccount {
        email: account.email,
        link,
    }))
}

/// What counts, for `/metrics`.
pub(super) fn metrics_recorder() -> Result<PrometheusHandle, ServerError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ])?
        .build_recorder();
    let handle = recorder.handle();
    // A second server in one process (tests) keeps the first one's counters.
    let _ = metrics::set_global_recorder(recorder);
    Ok(handle)
}

/// The last id that was given to something of which there are lists: they are in the order in which things were made.
///
/// # Errors
/// The store fails.
pub async fn newest_id(store: &Store) -> Result<Option<Uuid>, StoreError> {
    let mut tx = store.begin_read().await?;
    let operation = operations::find_last_id(&mut tx).await?.map(|id| id.uuid());
    let tenant = tenants::find_last_id(&mut tx).await?.map(|id| id.uuid());
    Ok(operation.max(tenant))
}

/// Sweeps out what has expired.
///
/// `alone`: no other server has requests under way, so every claim without an answer is a dead one.
pub async fn sweep_once(store: &Store, now: Time, alone: bool) -> Result<(), StoreError> {
    let stale = if alone {
        now
    } else {
        now.plus_seconds(-idempotency::STALE_SECONDS)
    };
    let mut tx = store.begin().await?;
    idempotency_keys::delete_expired(&mut tx, now, stale).await?;
    web_sessions::delete_expired(&mut tx, now).await?;
    edge_sessions::delete_expired(&mut tx, now).await?;
    used_identities::delete_expired(&mut tx, now).await?;
    signing_keys::delete_ended(&mut tx, now).await?;
    password_tries::delete_expired(&mut tx, now).await?;
    rate_limits::delete_full(&mut tx, now.as_millis()).await?;
    tx.commit().await
}

/// Sweeps out what has expired until the server stops.
pub(super) async fn sweep(app: App, signing_key_days: Option<u32>) {
    loop {
        if let Some(days) = signing_key_days
            && let Err(error) = rotation::rotate_ring_when_due(&app.auth, &app.clock, days).await
        {
            tracing::warn!(error = chain(&error), "failed to rotate the key of access tokens");
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        if let Err(error) = sweep_once(&app.store, app.clock.now(), false).await {
            tracing::warn!(error = chain(&error), "failed to sweep out what has expired");
        }
        if let Err(error) = app.gate.sweep().await {
            tracing::warn!(error = chain(&error), "failed to sweep the registry");
        }
        if let Err(error) = app.provision.end_jwt_overlaps().await {
            tracing::warn!(error = chain(&error), "failed to let former signing secrets go");
        }
        if let Err(error) = app.provision.collect_images().await {
            tracing::warn!(error = chain(&error), "failed to collect images");
        }
    }
}
