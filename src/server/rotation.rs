//! Rotation of keys beside running servers: of the master key (every tenant's key is sealed anew, no value is touched) and
//! of the keys of access tokens.
//!
//! Killed at any point, the next run goes on: what is not sealed by the newest version yet is sealed by it, and only
//! when nothing is left of the version before does a new one begin.

use std::time::Duration;

use crate::api::id::RequestId;
use crate::server::auth::signing::RingKey;
use crate::server::auth::{Auth, AuthError};
use crate::server::clock::Clock;
use crate::server::replica;
use crate::server::store::acts::{self, Act};
use crate::server::store::tenant_keys::{self, TenantKeyRow};
use crate::server::store::{Store, StoreError, settings};
use crate::server::vault::{SealedKey, Vault, VaultError};

/// How many keys are sealed in one transaction.
const BATCH: u32 = 100;
/// A server that made a tenant's key just before the version changed has written it down by then.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// Why the rotation stopped. What is done stays done.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The database.
    #[error("failed to read or write keys")]
    Store(#[from] StoreError),
    /// The keys of access tokens.
    #[error("failed to rotate the keys of access tokens")]
    Ring(#[from] AuthError),
}

/// How the key stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyStatus {
    /// The version that seals.
    pub current: u32,
    /// Every version that there is, with the number of tenants' keys that it has sealed.
    pub versions: Vec<KeyVersion>,
}

/// One version of the master key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyVersion {
    /// Its number.
    pub version: u32,
    /// Whether the master key still has it.
    pub there: bool,
    /// How many tenants' keys it has sealed.
    pub tenants: u64,
}

/// What a rotation has done.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rotated {
    /// The version that seals now.
    pub version: u32,
    /// Whether it is a new one; else a rotation that was interrupted has been finished.
    pub added: bool,
    /// How many tenants' keys were sealed anew.
    pub rewrapped: u64,
    /// Versions that are not there any more.
    pub forgotten: Vec<u32>,
}

/// How the key stands.
///
/// # Errors
/// The database fails.
pub async fn status(store: &Store, vault: &Vault) -> Result<KeyStatus, RotationError> {
    let counted = tenant_keys::count_by_version(&mut store.begin_read().await?).await?;
    let (current, there) = vault.versions();
    let mut all: Vec<u32> = there.clone();
    all.extend(counted.iter().map(|(version, _)| *version));
    all.sort_unstable();
    all.dedup();
    let versions = all.into_iter().map(|version| KeyVersion {
        version,
        there: there.contains(&version),
        tenants: counted
            .iter()
            .find(|(counted, _)| *counted == version)
            .map_or(0, |(_, tenants)| *tenants),
    });
    Ok(KeyStatus {
        current,
        versions: versions.collect(),
    })
}

/// Rotates the key, or finishes a rotation that was interrupted; `forget`: the old versions go.
///
/// # Errors
/// Another rotation is under way, a tenant's key does not open, or the database fails.
pub async fn rotate(
    store: &Store,
    (vault, clock): (&Vault, &Clock),
    forget: bool,
    told: impl Fn(u64),
) -> Result<Rotated, RotationError> {
    let _held = vault.hold()?;
    let before = status(store, vault).await?;
    let sealed = |current: bool| {
        let versions = before.versions.iter();
        let mut versions = versions.filter(|one| (one.version == before.current) == current);
        versions.any(|one| one.tenants > 0)
    };
    // Another version is there: this run finishes, or lets the old one go, unless everything is done already.
    let under_way = before.versions.len() > 1 && (forget || sealed(false) || !sealed(true));
    let added = if under_way { None } else { vault.add_version()? };
    prove(store, (vault, clock)).await?;
    let mut rewrapped = seal_anew(store, vault, &told).await?;
    let mut forgotten = Vec::new();
    if forget {
        tokio::time::sleep(SETTLED_AFTER).await;
        rewrapped += seal_anew(store, vault, &told).await?;
        let (current, there) = vault.versions();
        if vault.forget_old_versions()? {
            forgotten = there.into_iter().filter(|version| *version != current).collect();
        }
    }
    Ok(Rotated {
        version: vault.versions().0,
        added: added.is_some(),
        rewrapped,
        forgotten,
    })
}

/// Lets the next key sign access tokens; `forget`: none that was signed so far is good any more. Answers the ring.
///
/// # Errors
/// Another rotation was faster, or the database fails.
pub async fn rotate_ring(auth: &Auth, clock: &Clock, forget: bool) -> Result<Vec<RingKey>, RotationError> {
    let act = Act {
        target: forget.then(|| "every key".to_owned()),
        ..act("rotate_signing_key", clock)
    };
    acts::perform_whole(act, auth.rotate_ring(forget)).await?;
    Ok(auth.ring().await?)
}

/// Lets the next key sign where the one that does has done so for that many days: the server's own act.
///
/// # Errors
/// A key cannot be made, or the database fails.
pub async fn rotate_ring_when_due(auth: &Auth, clock: &Clock, days: u32) -> Result<bool, RotationError> {
    let act = Act {
        actor: "server".to_owned(),
        credential_id: None,
        ..act("rotate_signing_key", clock)
    };
    let seconds = i64::from(days) * 24 * 3600;
    let rotated = acts::perform_whole(act, auth.rotate_ring_after(seconds)).await?;
    if rotated {
        tracing::info!(days, "the key of access tokens was rotated");
    }
    Ok(rotated)
}

/// An act of whoever uses this machine.
fn act(action: &str, clock: &Clock) -> Act {
    Act {
        actor: "console".to_owned(),
        credential_id: Some(format!("uid {}", nix::unistd::getuid().as_raw())),
        ..Act::new(action, RequestId::new(clock.uuid()).to_string(), clock.now())
    }
}

/// Says in the database which key is the right one, and that somebody has rotated it.
async fn prove(store: &Store, (vault, clock): (&Vault, &Clock)) -> Result<(), RotationError> {
    let act = Act {
        target: Some(format!("version {}", vault.versions().0)),
        ..act("rotate_master_key", clock)
    };
    let proof = vault.prove()?;
    acts::perform_whole(act, async {
        let mut tx = store.begin().await?;
        settings::put(&mut tx, replica::MASTER_KEY, &proof).await?;
        tx.commit().await
    })
    .await?;
    Ok(())
}

async fn seal_anew(store: &Store, vault: &Vault, told: &impl Fn(u64)) -> Result<u64, RotationError> {
    let mut done = 0;
    loop {
        let mut tx = store.begin().await?;
        let waiting = tenant_keys::list_not_of(&mut tx, vault.versions().0, BATCH).await?;
        if waiting.is_empty() {
            return Ok(done);
        }
        for (tenant, row) in &waiting {
            let sealed = vault.rewrap(
                tenant,
                &SealedKey {
                    master_version: row.master_version,
                    sealed_key: row.sealed_key.clone(),
                },
            )?;
            let sealed = TenantKeyRow {
                master_version: sealed.master_version,
                sealed_key: sealed.sealed_key,
            };
            tenant_keys::reseal(&mut tx, tenant, (row, &sealed)).await?;
        }
        tx.commit().await?;
        done += waiting.len() as u64;
        told(done);
    }
}
