//! The edge: the always-on proxy in front of tenants. Its configuration is static; a tenant comes and goes by
//! networks and names alone, so that nothing one tenant does can break another's connections.

pub mod caddy;
pub mod fake;

use async_trait::async_trait;

/// Why a call failed, and whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// It may work later. The effect may have happened.
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
        /// Stable, kebab-case: `network-not-found`, `port-taken` …
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

/// How the edge is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeSettings {
    /// Host port of plain HTTP, on the loopback address.
    pub http_port: u16,
    /// Host port of HTTPS, on the loopback address.
    pub https_port: u16,
    /// The image to run.
    pub image: String,
    /// Name under which tenants are found: `localhost` gives `<label>.localhost`.
    pub domain: String,
}

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            http_port: 8080,
            https_port: 8443,
            image: "caddy:2".to_owned(),
            domain: "localhost".to_owned(),
        }
    }
}

impl EdgeSettings {
    /// The name under which a tenant answers.
    #[must_use]
    pub fn hostname(&self, label: &str) -> String {
        format!("{label}.{}", self.domain)
    }

    /// Where a tenant answers.
    #[must_use]
    pub fn url(&self, label: &str) -> String {
        let hostname = self.hostname(label);
        match self.http_port {
            80 => format!("http://{hostname}"),
            port => format!("http://{hostname}:{port}"),
        }
    }
}

/// The proxy in front of all tenants.
#[async_trait]
pub trait Edge: Send + Sync {
    /// Whether the edge answers; text for `/health`.
    async fn ping(&self) -> Result<String, EdgeError>;
    /// The name under which a tenant answers.
    fn hostname(&self, label: &str) -> String;
    /// Where a tenant answers.
    fn url(&self, label: &str) -> String;
    /// Lets the edge reach the tenant's edge network. Nobody else's connections are touched.
    async fn attach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError>;
    /// Takes that way away again.
    async fn detach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError>;
    /// Asks for the tenant's certificate, so that it is ready before the first visitor. Answers its state: `ready`.
    async fn certificate(&self, label: &str) -> Result<String, EdgeError>;
}
