//! Things on a Docker Engine: images, networks, volumes and containers that are there after the call, whether they
//! were before or not.
//!
//! Everything carries labels that say to which installation, tenant and role it belongs; something of the same name
//! without them is never touched.

mod container;
mod error;
mod files;
mod fingerprint;
mod image;
mod label;
mod network;
mod owner;
mod parts;
mod route;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use tokio::sync::OnceCell;

pub use crate::server::containers::container::{ContainerSpec, Ensured, JoinedNetwork, labels_of};
pub use crate::server::containers::error::{EngineError, EngineFault};
pub use crate::server::containers::files::ContainerFile;
pub use crate::server::containers::image::ImageChoice;
pub use crate::server::containers::label::{Labels, key};
pub use crate::server::containers::network::NetworkSpec;
pub use crate::server::containers::parts::{restarts, rotated_logs, texts, volume_at};
pub use crate::server::containers::route::{ROUTES, edge_network, route};

/// Where the engine is, and whose things are made on it.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// `unix:///…`, `tcp://…`, `http://…`; the usual socket when absent.
    pub endpoint: Option<String>,
    /// The installation: six characters that every name begins with.
    pub instance: String,
}

/// A Docker Engine. It is connected at the first call, so that a server starts without it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: EngineSettings,
    docker: OnceCell<Docker>,
}

/// Covers a call until its answer begins: an image may take long to be pulled, a container to be stopped.
const TIMEOUT: Duration = Duration::from_secs(150);
const USUAL_ENDPOINT: &str = "unix:///var/run/docker.sock";

impl Engine {
    /// The engine that `settings` name. Nothing is connected yet.
    #[must_use]
    pub fn new(settings: EngineSettings) -> Self {
        Self(Arc::new(Inner {
            settings,
            docker: OnceCell::new(),
        }))
    }

    /// The installation whose things are made here.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.0.settings.instance
    }

    /// The name of one of this installation's things: `sp-<instance>-<rest>`.
    #[must_use]
    pub fn name(&self, rest: &str) -> String {
        format!("sp-{}-{rest}", self.instance())
    }

    /// The connection, with the API version that both sides speak.
    ///
    /// # Errors
    /// The engine does not answer, or not to us.
    pub async fn docker(&self) -> Result<&Docker, EngineError> {
        self.0
            .docker
            .get_or_try_init(|| connect(self.0.settings.endpoint.as_deref().unwrap_or(USUAL_ENDPOINT)))
            .await
            .map_err(|source| EngineError::engine("reach the Docker Engine", source))
    }

    /// Whether the engine answers; text for `/health`.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<String, EngineError> {
        let version = self
            .docker()
            .await?
            .version()
            .await
            .map_err(|source| EngineError::engine("ask the Docker Engine for its version", source))?;
        let text = |part: Option<String>| part.unwrap_or_else(|| "?".to_owned());
        Ok(format!(
            "Docker Engine {}, API {}",
            text(version.version),
            text(version.api_version)
        ))
    }
}

async fn connect(endpoint: &str) -> Result<Docker, bollard::errors::Error> {
    let docker = Docker::connect_with_host(endpoint)?.with_timeout(TIMEOUT);
    // bollard writes this header in the plain alphabet, the engine reads the URL-safe one and silently takes a
    // credential that it cannot read for none (bollard#169).
    let docker = docker.with_request_modifier(|mut request| {
        if let Some(fixed) = request.headers().get(REGISTRY_AUTH).and_then(url_safe) {
            request.headers_mut().insert(REGISTRY_AUTH, fixed);
        }
        request
    });
    docker.negotiate_version().await
}

const REGISTRY_AUTH: &str = "x-registry-auth";

fn url_safe(value: &http::HeaderValue) -> Option<http::HeaderValue> {
    let text = value.to_str().ok()?.replace('+', "-").replace('/', "_");
    let mut fixed = http::HeaderValue::from_str(&text).ok()?;
    fixed.set_sensitive(true);
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::{Engine, EngineSettings, url_safe};
    use crate::server::containers::EngineFault;

    #[test]
    fn credentials_are_written_in_the_alphabet_that_the_engine_reads() {
        let plain = http::HeaderValue::from_static("ab+/cd==");
        assert_eq!(url_safe(&plain), Some(http::HeaderValue::from_static("ab-_cd==")));
    }

    #[tokio::test]
    async fn an_absent_engine_is_worth_another_try() {
        let engine = Engine::new(EngineSettings {
            endpoint: Some("unix:///nonexistent/docker.sock".to_owned()),
            instance: "abc123".to_owned(),
        });
        let error = engine.ping().await.expect_err("nobody listens there");
        assert_eq!(error.fault, EngineFault::Unreachable);
        assert_eq!(error.to_string(), "failed to reach the Docker Engine");
        assert!(error.is_retry());
    }
}
