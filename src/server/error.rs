//! Why the server cannot start, and what mends it.

use std::net::SocketAddr;

use crate::server::auth::AuthError;
use crate::server::billing::plans::CatalogueError;
use crate::server::config::ConfigError;
use crate::server::databases::DatabaseError;
use crate::server::edge::EdgeError;
use crate::server::front::tls::TlsError;
use crate::server::installation::InstallationError;
use crate::server::maintenance::{Class, MaintenanceError};
use crate::server::providers::ProviderError;
use crate::server::providers::docker::InvalidPool;
use crate::server::registry::GateError;
use crate::server::replica::ReplicaError;
use crate::server::rotation::RotationError;
use crate::server::safety::{Finding, Standing};
use crate::server::store::StoreError;
use crate::server::vault::VaultError;
use crate::server::world::WorldError;

/// Why the server cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Others can reach the server, and it is not fit for that.
    #[error("refused to start: a server that others can reach must not be careless ({} faults)", .0.len())]
    Careless(Vec<Finding>),
    /// The rotation of keys.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address pool.
    #[error("failed to read `--address-pool`")]
    Pool(#[from] InvalidPool),
    /// The data directory.
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// It is none of the servers that share the database.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The database.
    #[error("failed to bring the database up to date")]
    Migrate(#[source] StoreError),
    /// The database.
    #[error("failed to read or write the database")]
    Store(#[from] StoreError),
    /// The database lacks migrations and may not be changed.
    #[error(transparent)]
    Behind(MaintenanceError),
    /// The address is in use, or not ours.
    #[error("failed to listen on `{address}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Where the edge asks who visits.
    #[error("failed to make the folder in which the edge asks who visits")]
    Door(#[source] std::io::Error),
    /// Accounts and keys.
    #[error("failed to prepare accounts")]
    Auth(#[from] AuthError),
    /// Keys of secrets.
    #[error("failed to open the vault")]
    Vault(#[from] VaultError),
    /// Images.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Plans.
    #[error(transparent)]
    Plans(#[from] CatalogueError),
    /// What runs tenants.
    #[error("failed to reach what runs tenants")]
    Provider(#[from] ProviderError),
    /// Tenants' databases.
    #[error("failed to start the databases of tenants")]
    Databases(#[from] DatabaseError),
    /// The proxy in front of tenants.
    #[error("failed to start the edge")]
    Edge(#[from] EdgeError),
    /// The fakes' world.
    #[error("failed to open the pretended world")]
    World(#[from] WorldError),
    /// Counters.
    #[error("failed to set up metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// Signals, or the listener while it served.
    #[error("failed to serve")]
    Serve(#[source] std::io::Error),
}

impl ServerError {
    /// Refuses when one of these failed.
    ///
    /// # Errors
    /// One of them did.
    pub fn refuse_careless(findings: Vec<Finding>) -> Result<(), Self> {
        let failed: Vec<Finding> = findings
            .into_iter()
            .filter(|finding| finding.standing == Standing::Fail)
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        Err(Self::Careless(failed))
    }

    /// Every fault of a list, one a line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Careless(findings) => findings.iter().map(Finding::line).collect(),
            _ => Vec::new(),
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Config(_)
            | Self::Careless(_)
            | Self::Tls(_)
            | Self::Pool(_)
            | Self::Auth(AuthError::Invalid { .. }) => Class::Input,
            Self::Installation(InstallationError::Held { .. }) => Class::Conflict,
            Self::Installation(InstallationError::Absent { .. }) => Class::Absent,
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => Class::Conflict,
            Self::Replica(ReplicaError::Key { .. } | ReplicaError::Instance { .. }) => Class::Input,
            Self::Behind(error) => error.class(),
            Self::Rotation(RotationError::Ring(AuthError::RotatedElsewhere)) => Class::Conflict,
            _ => Class::Failed,
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint().map(str::to_owned),
            Self::Careless(_) => Some(
                "see the whole checklist with `systemprompt server check` and the same flags; a server for trying out \
                 listens on 127.0.0.1 and has no `ENVIRONMENT=production`"
                    .to_owned(),
            ),
            Self::Rotation(RotationError::Ring(AuthError::RotatedElsewhere)) => {
                Some("see what holds now with `systemprompt server keys status`".to_owned())
            }
            Self::Tls(_) => Some("give a certificate and its own key, both as PEM files".to_owned()),
            Self::Installation(error) => error.hint(),
            Self::Behind(error) => error.hint(),
            Self::Replica(error) => error.hint(),
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some("stop what listens there, or take another port: `--listen 127.0.0.1:8788`".to_owned())
            }
            Self::Listen { .. } => Some("name an address of this machine with `--listen ADDRESS:PORT`".to_owned()),
            Self::Provider(ProviderError::Fatal { hint, .. })
            | Self::Databases(DatabaseError::Fatal { hint, .. })
            | Self::Edge(EdgeError::Fatal { hint, .. }) => hint.clone(),
            Self::Provider(ProviderError::Retry { .. }) => Some(
                "start the Docker Engine (`scripts/setup` installs one), or say where it is with `DOCKER_HOST`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
