//! The gate: an OCI distribution v1.1 registry in which every tenant sees and writes only what is its own.
//!
//! Everything lives in a namespace per tenant, and which namespace a request works in, its token alone decides.
//! So there is no path, query or id by which somebody else's content could be named, and what is foreign
//! answers exactly as what is absent. Answers of the router stand for themselves: merge it outside of
//! compression (manifests are byte-exact), time-outs and body limits (layers are large and slow).

mod auth;
mod blobs;
mod collect;
mod digest;
mod document;
mod error;
mod grant;
mod http;
mod image;
mod local;
mod manifests;
mod names;
mod range;
mod referrers;
mod store;
mod tags;
mod token;
mod token_endpoint;
mod uploads;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::api::id::TenantId;
use crate::api::registry::tenant_tag;
use crate::api::release::ImageConfig;
use crate::api::secret::SecretText;
use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::registry::digest::Digest;
use crate::server::registry::local::LocalStore;
use crate::server::registry::store::ObjectStore;
use crate::server::registry::token::{LONGEST_SECONDS, Tokens};
use crate::server::seats::{Room, Seats};

/// How many requests write at once; a push of an engine has five.
const WRITERS: Room = Room {
    name: "uploads",
    each: 24,
    all: 512,
};

/// With what the gate is opened.
#[derive(Clone)]
pub struct GateSettings {
    /// Host and port, as an image reference begins.
    pub registry_host: String,
    /// URL of the token endpoint (`http://HOST/v2/token`), as clients reach it.
    pub realm: String,
    /// Folder of the object store; made when it is not there.
    pub directory: PathBuf,
    /// What the keys of all tokens are derived from.
    pub signing_key: [u8; 32],
}

impl fmt::Debug for GateSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateSettings")
            .field("registry_host", &self.registry_host)
            .field("realm", &self.realm)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// What a credential may do inside its tenant's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateAccess {
    /// Read everything.
    Pull,
    /// Read everything, add blobs and manifests, write the tenant's one tag. It removes nothing.
    Push,
    /// Read, write any tag, remove. For the server's own work; never handed to a tenant.
    Manage,
}

/// A manifest that the gate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// What a machine has to download: the manifest and everything that it names.
    pub size_bytes: u64,
    /// As it was pushed.
    pub media_type: String,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests.
    pub manifests: u64,
    /// Configurations and layers.
    pub blobs: u64,
    /// Of both together.
    pub bytes: u64,
}

/// Why the gate failed.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The object store cannot be opened or does not answer.
    #[error("failed to open the registry's object store")]
    Open(#[source] std::io::Error),
    /// The object store cannot be read.
    #[error("failed to read from the registry's object store")]
    Read(#[source] std::io::Error),
    /// The object store cannot be written.
    #[error("failed to write to the registry's object store")]
    Write(#[source] std::io::Error),
}

/// The registry of all tenants.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    settings: GateSettings,
    clock: Clock,
    tokens: Tokens,
    store: Box<dyn ObjectStore>,
    writers: Seats,
}

impl Gate {
    /// Opens the object store and derives the keys.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub async fn open(settings: GateSettings, clock: Clock) -> Result<Self, GateError> {
        let store = LocalStore::open(settings.directory.clone())
            .await
            .map_err(GateError::Open)?;
        let tokens = Tokens::new(&settings.signing_key, clock.clone());
        Ok(Self(Arc::new(Inner {
            settings,
            clock,
            tokens,
            store: Box::new(store),
            writers: Seats::new(WRITERS),
        })))
    }

    /// Makes a credential (the password for `docker login`, any user name) for one tenant.
    #[must_use]
    pub fn mint(&self, tenant: &TenantId, access: GateAccess, ttl_seconds: u32) -> (SecretText, Time) {
        self.0.tokens.mint_credential(tenant, access, ttl_seconds)
    }

    /// Host and port, as an image reference begins.
    #[must_use]
    pub fn registry_host(&self) -> &str {
        &self.0.settings.registry_host
    }

    /// What the tenant's one tag points to now.
    ///
    /// # Errors
    /// The object store cannot be read.
    pub async fn resolve_tag(&self, tenant: &TenantId) -> Result<Option<ManifestInfo>, GateError> {
        let store = &*self.0.store;
        let digest = manifests::find_tag(store, tenant, &tenant_tag(tenant))
            .await
            .map_err(GateError::Read)?;
        match digest {
            Some(digest) => manifests::info(store, tenant, &digest)
                .await
                .map_err(GateError::Read),
            None => Ok(None),
        }
    }

    /// A manifest of the tenant by its digest.
    ///
    /// # Errors
    /// The object store cannot be read.
    pub async fn manifest(&self, tenant: &TenantId, digest: &str) -> Result<Option<ManifestInfo>, GateError> {
        match digest.parse::<Digest>() {
            Ok(digest) => manifests::info(&*self.0.store, tenant, &digest)
                .await
                .map_err(GateError::Read),
            Err(_) => Ok(None),
        }
    }

    /// What an image of the tenant says of itself; `None` when there is no such manifest.
    ///
    /// # Errors
    /// The object store cannot be read.
    pub async fn describe(&self, tenant: &TenantId, digest: &str) -> Result<Option<ImageConfig>, GateError> {
        match digest.parse::<Digest>() {
            Ok(digest) => image::describe(&*self.0.store, tenant, &digest)
                .await
                .map_err(GateError::Read),
            Err(_) => Ok(None),
        }
    }

    /// Removes everything of the tenant; succeeds when there is nothing. Credentials minted before are dead.
    ///
    /// # Errors
    /// The object store cannot be written.
    pub async fn remove_tenant(&self, tenant: &TenantId) -> Result<(), GateError> {
        let now = self.0.clock.now();
        self.0
            .store
            .remove_namespace(tenant, now)
            .await
            .map_err(GateError::Write)
    }

    /// Removes what of the tenant's content is no part of the images of `keep`, of a tagged one, or of a push under way:
    /// what was written or asked for by a push in the last `unused_for_seconds` stays.
    ///
    /// # Errors
    /// The object store cannot be read or written.
    pub async fn collect(
        &self,
        tenant: &TenantId,
        keep: &BTreeSet<String>,
        unused_for_seconds: i64,
    ) -> Result<Collected, GateError> {
        let keep = keep.iter().filter_map(|digest| digest.parse().ok()).collect();
        let before = self.0.clock.now().plus_seconds(-unused_for_seconds);
        collect::collect(&*self.0.store, tenant, (&keep, before))
            .await
            .map_err(GateError::Write)
    }

    /// Whether anything of the tenant is left.
    ///
    /// # Errors
    /// The object store cannot be read.
    pub async fn has_any(&self, tenant: &TenantId) -> Result<bool, GateError> {
        self.0.store.has_namespace(tenant).await.map_err(GateError::Read)
    }

    /// Removes uploads that nobody has gone on with for 24 hours; the composition root calls it now and then.
    ///
    /// # Errors
    /// The object store cannot be read or written.
    pub async fn sweep(&self) -> Result<(), GateError> {
        // No credential lives longer, so the memory of a removed tenant need not either.
        let limit = self.0.clock.now().plus_seconds(-i64::from(LONGEST_SECONDS));
        self.0.store.sweep(limit).await.map_err(GateError::Write)
    }

    /// Whether the object store can be written.
    ///
    /// # Errors
    /// It cannot.
    pub async fn ping(&self) -> Result<(), GateError> {
        self.0.store.ping().await.map_err(GateError::Write)
    }

    /// The routes `/v2/…` and `/v2/token`.
    pub fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.0))
    }
}
