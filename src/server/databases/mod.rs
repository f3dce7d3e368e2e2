//! Tenant databases: one PostgreSQL cluster, a database per tenant, two login roles that take turns.
//!
//! Every method is idempotent and adopts what an earlier call left; removing what is not there succeeds.
//! Passwords travel to PostgreSQL only as SCRAM verifiers.

pub mod fake;
pub mod postgres;

use std::path::PathBuf;

use async_trait::async_trait;

use crate::api::id::TenantId;
use crate::api::secret::SecretText;

/// Why a call failed, and whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It may work later: connection lost, too many connections, starting up. The effect may have happened.
    #[error("{what}")]
    Retry {
        /// What failed, for people; nothing secret.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It will not work until something is changed.
    #[error("{what}")]
    Fatal {
        /// Stable, kebab-case: `database-forbidden`, `network-not-found` …
        code: &'static str,
        /// What failed, for people; nothing secret.
        what: String,
        /// What mends it.
        hint: Option<String>,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// Which of a tenant's two alternating login roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginSlot {
    /// `…_app_a`.
    A,
    /// `…_app_b`.
    B,
}

impl LoginSlot {
    /// As it is stored: `a` or `b`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The one whose turn is next.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Reads what [`LoginSlot::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }
}

/// Where the tenants' database server is.
#[derive(Clone, Debug)]
pub enum DatabaseSettings {
    /// A container of this installation's own.
    Managed {
        /// The image to run.
        image: String,
        /// Where its superuser's password is kept.
        directory: PathBuf,
    },
    /// A server that somebody else runs (`--tenant-database-url`).
    External {
        /// URL of a role that may create databases and roles.
        url: SecretText,
        /// `HOST:PORT` as tenants reach it, where that is another one than in the URL.
        tenant_address: Option<String>,
    },
}

/// The databases of all tenants.
#[async_trait]
pub trait TenantDatabases: Send + Sync {
    /// Whether the database server answers; text for `/health`.
    async fn ping(&self) -> Result<String, DatabaseError>;

    /// Makes the tenant's roles, database and first login, and lets its private network reach the server.
    /// Answers what belongs to the tenant now: kind (`database`, `database-role`) and name.
    async fn create(
        &self,
        tenant: &TenantId,
        network: Option<&str>,
        login: LoginSlot,
        password: &SecretText,
    ) -> Result<Vec<(&'static str, String)>, DatabaseError>;

    /// Lets a tenant's private network reach the server.
    async fn attach(&self, network: Option<&str>) -> Result<(), DatabaseError>;
    /// Takes that way away again.
    async fn detach(&self, network: Option<&str>) -> Result<(), DatabaseError>;

    /// The connection URL as the tenant's machine needs it.
    fn url(&self, tenant: &TenantId, login: LoginSlot, password: &SecretText) -> SecretText;

    /// Makes (or opens again, with this password) the login of `login`, beside the other one.
    async fn create_login(
        &self,
        tenant: &TenantId,
        login: LoginSlot,
        password: &SecretText,
    ) -> Result<(), DatabaseError>;
    /// Refuses new sessions of that login, waits a little for those there are, and ends the rest.
    async fn lock_login(&self, tenant: &TenantId, login: LoginSlot) -> Result<(), DatabaseError>;
    /// Removes that login, with its sessions.
    async fn drop_login(&self, tenant: &TenantId, login: LoginSlot) -> Result<(), DatabaseError>;

    /// Allows or refuses connections (suspended tenants); refusing ends the sessions there are.
    async fn set_connections(&self, tenant: &TenantId, allowed: bool) -> Result<(), DatabaseError>;

    /// Removes the tenant's database with its data, its roles, and the way to its network.
    async fn drop(&self, tenant: &TenantId, network: Option<&str>) -> Result<(), DatabaseError>;
    /// Whether anything of the tenant is left, database or role; for receipts.
    async fn exists(&self, tenant: &TenantId) -> Result<bool, DatabaseError>;
}
