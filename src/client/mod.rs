//! Talks to a management API: one typed method per endpoint, events with resume.
//!
//! Below the terminal: nothing here reads the environment or prints; what takes long is told to a callback.

pub mod error;
pub mod follow;
pub mod send;
pub mod session;
pub mod sessions;

mod audit;
mod checkout;
mod deploy;
mod events;
mod logs;
mod members;
mod metrics;
mod oauth;
mod operations;
mod reconcile;
mod secrets;
mod sse;
pub mod tenants;
mod token;
pub mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use url::Url;

use crate::client::error::ClientError;
use crate::client::session::{Credential, Tokens};
use crate::server::clock::Clock;

/// Told in a few words when a call has to wait or is tried again.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// What a client is made from.
#[derive(Clone)]
pub struct ClientSettings {
    /// The server, without `/api/v1`.
    pub server: Url,
    /// PEM file of certificate authorities to trust besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// What goes into `Authorization`.
    pub credential: Credential,
    /// Time, ids and chance.
    pub clock: Clock,
    /// Told when a call has to wait or is tried again.
    pub notice: Notice,
}

/// A connection to one server.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    streams: reqwest::Client,
    server: Url,
    name: String,
    credential: Credential,
    tokens: tokio::sync::Mutex<Option<Tokens>>,
    clock: Clock,
    notice: Notice,
    /// The server answered before: when it goes away now it is most likely being restarted.
    answered: AtomicBool,
    /// The server was there for a change and has not said what became of it.
    taken: AtomicBool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.inner.name)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client; nothing is sent yet.
    pub fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let certificates = match &settings.ca_file {
            Some(path) => read_certificates(path)?,
            None => Vec::new(),
        };
        let build = |read_timeout: Duration, timeout: Option<Duration>| {
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("systemprompt/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(5))
                .read_timeout(read_timeout)
                .redirect(reqwest::redirect::Policy::none())
                .tls_certs_merge(certificates.clone());
            builder = match timeout {
                Some(timeout) => builder.timeout(timeout),
                // A compressed stream is held back by whoever compresses it.
                None => builder.gzip(false),
            };
            if is_loopback(&settings.server) {
                // A proxy of the surroundings cannot know this machine's own server.
                builder = builder.no_proxy();
                if settings.server.scheme() == "http" {
                    // No certificate is looked at on this way, and reading the machine's takes longer than most commands.
                    builder = builder.tls_certs_only([]);
                }
            }
            builder.build().map_err(|error| ClientError::Setup {
                what: "the HTTP client".to_owned(),
                source: Box::new(error),
            })
        };
        let name = settings.server.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            inner: Arc::new(Inner {
                http: build(Duration::from_secs(30), Some(Duration::from_secs(60)))?,
                // Streams are kept alive by a comment every 15 s.
                streams: build(Duration::from_secs(45), None)?,
                server: settings.server,
                name,
                credential: settings.credential,
                tokens: tokio::sync::Mutex::new(None),
                clock: settings.clock,
                notice: settings.notice,
                answered: AtomicBool::new(false),
                taken: AtomicBool::new(false),
            }),
        })
    }

    /// The server's URL as people write it.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.inner.name
    }
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let setup = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Setup {
        what: format!("the certificate file `{}`", path.display()),
        source,
    };
    let pem = std::fs::read(path).map_err(|error| setup(Box::new(error)))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| setup(Box::new(error)))?;
    if certificates.is_empty() {
        return Err(setup("there is no certificate in it".into()));
    }
    Ok(certificates)
}

fn is_loopback(server: &Url) -> bool {
    match server.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
