//! The edge as a Caddy container with a static configuration. It outlives this process and every deploy.

mod access;
mod config;
mod known;
mod pages;
mod reach;
mod ready;
mod render;
mod sessions;
mod signs;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use std::io::Read as _;
use tokio::sync::Mutex;

use crate::api::time::Time;
use crate::server::containers::{Engine, EngineError, edge_network, route};
use crate::server::edge::caddy::known::Known;
use crate::server::edge::caddy::reach::client;
use crate::server::edge::caddy::render::{ROLE, ROOT_CERTIFICATE};
use crate::server::edge::caddy::signs::Place;
use crate::server::edge::{AccessQuery, AccessStream, Edge, EdgeError, EdgeSettings, Traffic, Waited};

/// A look at the files that began before they changed has ended after this time.
const LOOK: Duration = Duration::from_millis(100);
/// A request for which the former release was chosen has reached it after this time.
const DIAL: Duration = Duration::from_millis(300);
/// The same while others wait already.
const DIAL_BEFORE_HOLD: Duration = Duration::from_millis(100);
/// The same where the write itself takes twice as long to return.
const DIAL_AFTER_WRITE: Duration = Duration::from_millis(40);
/// What the edge says of requests is written a moment after they were let go.
const WRITTEN: Duration = Duration::from_millis(300);

/// Caddy in front of tenants. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CaddyEdge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    settings: EdgeSettings,
    http: reqwest::Client,
    known: Known,
    /// Where the signs are put, once the container was seen to run as it shall.
    ready: Mutex<Option<Place>>,
    /// The certificate of its authority, once it was read.
    root: Mutex<Option<String>>,
}

impl CaddyEdge {
    /// An edge on `engine`. Nothing is started yet; the first call does, and `ping` is one.
    ///
    /// # Errors
    /// The client that looks at it cannot be made.
    pub fn new(engine: Engine, settings: EdgeSettings) -> Result<Self, EdgeError> {
        let http = client().build().map_err(|source| EdgeError::Fatal {
            code: "edge-client",
            what: "failed to make the client that looks at the edge".to_owned(),
            hint: None,
            source: Some(Box::new(source)),
        })?;
        Ok(Self(Arc::new(Inner {
            engine,
            settings,
            http,
            known: Known::default(),
            ready: Mutex::new(None),
            root: Mutex::new(None),
        })))
    }

    /// The certificate (PEM) of the authority that signs tenants' certificates here.
    ///
    /// # Errors
    /// The edge does not run, or has none yet.
    pub async fn root_certificate(&self) -> Result<String, EdgeError> {
        let mut root = self.0.root.lock().await;
        if let Some(root) = &*root {
            return Ok(root.clone());
        }
        let read = self.read_root_certificate().await?;
        Ok(root.insert(read).clone())
    }

    async fn read_root_certificate(&self) -> Result<String, EdgeError> {
        self.ensure().await?;
        let action = || "read the certificate of the edge's authority".to_owned();
        let bytes = self.take_out(ROOT_CERTIFICATE, &action()).await?;
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut text = String::new();
        let read = match archive.entries().map(|mut entries| entries.next()) {
            Ok(Some(Ok(mut entry))) => entry.read_to_string(&mut text).is_ok(),
            _ => false,
        };
        if read {
            return Ok(text);
        }
        Err(EngineError::busy(action()).into())
    }

    fn name(&self) -> String {
        self.0.engine.name(ROLE)
    }

    /// Where a release of the tenant is found.
    async fn address(&self, label: &str, release: u32) -> Result<Ipv4Addr, EdgeError> {
        let network = edge_network(self.0.engine.instance(), label);
        Ok(route(self.0.engine.first_address(&network).await?, release))
    }
}

impl From<EngineError> for EdgeError {
    fn from(error: EngineError) -> Self {
        let what = error.to_string();
        if error.is_retry() {
            return Self::Retry {
                what,
                source: error.source,
            };
        }
        Self::Fatal {
            code: error.code(),
            what,
            hint: error.hint(),
            source: error.source,
        }
    }
}

#[async_trait]
impl Edge for CaddyEdge {
    async fn ping(&self) -> Result<String, EdgeError> {
        self.ensure().await?;
        if self.ask().await.is_err() {
            *self.0.ready.lock().await = None;
            self.ensure().await?;
        }
        let EdgeSettings {
            http_port,
            https_port,
            ..
        } = self.0.settings;
        Ok(format!(
            "Caddy on 127.0.0.1:{http_port} (http) and 127.0.0.1:{https_port} (https)"
        ))
    }

    fn hostname(&self, label: &str) -> String {
        self.0.settings.hostname(label)
    }

    fn url(&self, label: &str) -> String {
        self.0.settings.url(label)
    }

    fn secure_url(&self, label: &str) -> String {
        self.0.settings.secure_url(label)
    }

    async fn know(&self, label: &str) -> Result<(), EdgeError> {
        let place = self.ensure().await?;
        let write = async |labels: &BTreeSet<String>| {
            let signs = labels.iter().flat_map(|label| render::known(label)).collect();
            self.write(&place, signs).await
        };
        self.0.known.add(label, write).await
    }

    async fn join(&self, _label: &str, network: Option<&str>) -> Result<(), EdgeError> {
        self.ensure().await?;
        let Some(network) = network else { return Ok(()) };
        let connected = self.0.engine.connect(network, &self.name(), &[]).await;
        self.checked(connected).await
    }

    async fn attach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError> {
        self.join(label, network).await?;
        self.know(label).await
    }

    async fn switch(&self, label: &str, traffic: Traffic) -> Result<(), EdgeError> {
        let place = self.ensure().await?;
        match traffic {
            // Where they go afterwards is said when they are let go.
            Traffic::Held => {
                self.write(&place, render::held(label)).await?;
                let dialled = match place {
                    Place::Folder(_) => DIAL_BEFORE_HOLD,
                    Place::Volume => DIAL_AFTER_WRITE,
                };
                self.dialled(dialled).await;
                return Ok(());
            }
            Traffic::To(release) => {
                // Both serve for a moment: a look at the files while they change finds one of them in any case.
                // One that serves already, as when a step is done twice, is not written again.
                let address = self.address(label, release).await?;
                if !self.is_up(&place, &render::serving(label, address)).await? {
                    self.write(&place, render::also_serving(label, address)).await?;
                    tokio::time::sleep(LOOK).await;
                }
                self.write(&place, render::others_ended(label, address)).await?;
            }
            Traffic::Suspended => self.write(&place, render::nobody(label, true)).await?,
            Traffic::Nobody => self.write(&place, render::nobody(label, false)).await?,
        }
        self.dialled(DIAL).await;
        Ok(())
    }

    async fn ask_first(&self, label: &str, asks: bool) -> Result<(), EdgeError> {
        let place = self.ensure().await?;
        // Through the engine a file is removed before it is written: nobody shall come in meanwhile because it is said
        // again.
        if asks && self.is_up(&place, &render::asking(label)).await? {
            return Ok(());
        }
        self.write(&place, render::asked(label, asks)).await?;
        // From here on nobody has looked before it was written.
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    async fn let_go(&self, label: &str, release: u32) -> Result<(), EdgeError> {
        let place = self.ensure().await?;
        let address = self.address(label, release).await?;
        let signs = if self.is_up(&place, &render::serving(label, address)).await? {
            render::others_ended(label, address)
        } else {
            render::serves_alone(label, address)
        };
        self.write(&place, signs).await
    }

    async fn waited(&self, label: &str, since: Time) -> Result<Waited, EdgeError> {
        self.ensure().await?;
        tokio::time::sleep(WRITTEN).await;
        access::waited(&self.0.engine, &self.name(), &self.hostname(label), since).await
    }

    async fn access(&self, query: AccessQuery) -> Result<AccessStream, EdgeError> {
        self.ensure().await?;
        let domain = &self.0.settings.domain;
        access::stream(&self.0.engine, &self.name(), domain, query).await
    }

    async fn attached(&self, label: &str, network: Option<&str>) -> Result<bool, EdgeError> {
        // The folder may have been lost, which the container does not tell.
        if let Place::Folder(folder) = self.ensure().await?
            && !signs::is_known(&folder, label)
        {
            return Ok(false);
        }
        let Some(network) = network else { return Ok(true) };
        let found = self.0.engine.find_container(&self.name()).await?;
        Ok(found
            .and_then(|container| container.network_settings?.networks)
            .is_some_and(|networks| networks.contains_key(network)))
    }

    async fn detach(&self, label: &str, network: Option<&str>) -> Result<(), EdgeError> {
        let place = self.ensure().await?;
        self.write(&place, render::unknown(label)).await?;
        if let Some(network) = network {
            let disconnected = self.0.engine.disconnect(network, &self.name()).await;
            self.checked(disconnected).await?;
        }
        Ok(())
    }

    async fn certificate(&self, label: &str) -> Result<String, EdgeError> {
        self.ensure().await?;
        if let Err(error) = self.shake_hands(label).await {
            // The edge may have got a new volume, and with it a new authority.
            *self.0.root.lock().await = None;
            return Err(error);
        }
        Ok("ready".to_owned())
    }
}
