//! The edge: the always-on proxy in front of tenants. Its configuration is static; a tenant comes and goes, and its
//! releases take turns, by networks and files alone, so that nothing one tenant does can break another's connections.

//!
//! It keeps an access log: one [`Access`] for each request that came to a tenant.

pub mod caddy;
pub mod fake;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::api::time::Time;

/// For how long requests are held at most, before they are answered by a page.
pub const HOLD_AT_MOST: Duration = Duration::from_secs(30);

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
    /// The folder of this machine in which the server listens for the edge, which asks there who visits.
    pub door: Option<PathBuf>,
}

/// The socket in the door's folder.
pub const DOOR: &str = "authorize.sock";

impl Default for EdgeSettings {
    fn default() -> Self {
        Self {
            http_port: 8080,
            https_port: 8443,
            image: "caddy:2".to_owned(),
            domain: "localhost".to_owned(),
            door: None,
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

    /// The same with TLS.
    #[must_use]
    pub fn secure_url(&self, label: &str) -> String {
        let hostname = self.hostname(label);
        match self.https_port {
            443 => format!("https://{hostname}"),
            port => format!("https://{hostname}:{port}"),
        }
    }
}

/// What becomes of a tenant's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// They go to this release.
    To(u32),
    /// They wait, for at most [`HOLD_AT_MOST`], and then go where others go.
    Held,
    /// They are answered: the tenant is suspended.
    Suspended,
    /// They are answered: no release runs.
    Nobody,
}

/// One request that came to a tenant, and how it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// When it was answered.
    pub at: Time,
    /// Whose it was.
    pub label: String,
    /// `GET`, `POST` …
    pub method: String,
    /// The path without its query, which may hold secrets.
    pub path: String,
    /// The status of the answer; 0 when whoever asked was gone before.
    pub status: u16,
    /// From the request to the end of the answer, time in which it was held included.
    pub duration_ms: u64,
    /// Bytes of the answer's body.
    pub bytes: u64,
}

/// Which part of the access log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccessQuery {
    /// Keep the stream open for new ones.
    pub follow: bool,
    /// Only what was answered after this time.
    pub since: Option<Time>,
}

/// The access log, oldest first.
pub type AccessStream = BoxStream<'static, Result<Access, EdgeError>>;

/// What visitors noticed of a time in which their requests were held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// How many requests waited.
    pub requests: u64,
    /// How long the longest did.
    pub longest_ms: u64,
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
    /// The same with TLS.
    fn secure_url(&self, label: &str) -> String;
    /// The tenant is known from now on: its visitors are told that nothing runs yet.
    async fn know(&self, label: &str) -> Result<(), EdgeError>;
    /// Lets the edge reach the tenant's edge network. Nobody else's connections are touched.
    async fn join(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError>;
    /// Both.
    async fn attach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError>;
    /// Decides what becomes of the tenant's requests from now on. A release must have traffic attached
    /// ([`crate::server::containers::route`]); whoever served before must live until this returns.
    async fn switch(&self, label: &str, traffic: Traffic) -> Result<(), EdgeError>;
    /// Says whether the tenant's visitors are asked who they are before the tenant is asked anything.
    async fn ask_first(&self, label: &str, asks: bool) -> Result<(), EdgeError>;
    /// The same as [`Traffic::To`], quicker, for requests that are held: nobody is served meanwhile.
    async fn let_go(&self, label: &str, release: u32) -> Result<(), EdgeError>;
    /// The requests of a tenant that were held since, and went on.
    async fn waited(&self, label: &str, since: Time) -> Result<Waited, EdgeError>;
    /// The access log of all tenants. The edge keeps the last of it: whoever wants more follows it.
    async fn access(&self, query: AccessQuery) -> Result<AccessStream, EdgeError>;
    /// Whether there is a way to the tenant; for receipts and the reconciler.
    async fn attached(&self, label: &str, network: Option<&str>) -> Result<bool, EdgeError>;
    /// Takes that way away again.
    async fn detach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError>;
    /// Asks for the tenant's certificate, so that it is ready before the first visitor. Answers its state: `ready`.
    async fn certificate(&self, label: &str) -> Result<String, EdgeError>;
}
