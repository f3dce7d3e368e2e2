//! Whether the edge answers, and what an answer tells.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::server::edge::EdgeError;
use crate::server::edge::caddy::CaddyEdge;
use crate::server::edge::caddy::config::OWN_PATH;

const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long a container that just started may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// For how long nobody may listen on its port while it starts.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How many requests of the edge's own must be answered until those that came before are thought to be under way.
const LATER: u32 = 3;
/// For how long those that it serves may take to end when it is started again.
const GRACE: Duration = Duration::from_secs(10);

impl CaddyEdge {
    /// Waits until the edge answers.
    pub(super) async fn wait_for_answer(&self) -> Result<(), EdgeError> {
        let step = Duration::from_millis(100);
        let mut waited = Duration::ZERO;
        let mut started_again = false;
        loop {
            match self.ask().await {
                Ok(()) => return Ok(()),
                Err(error) if waited >= START_PATIENCE => return Err(error),
                // The engine's own proxy of a port ends when it runs out of files, and nothing but this brings it back.
                Err(error) if waited >= PORT_PATIENCE && !started_again && refused(&error) => {
                    tracing::warn!(
                        "nobody listens on the edge's port while its container runs: it is started again"
                    );
                    self.0.engine.restart_container(&self.name(), GRACE).await?;
                    started_again = true;
                }
                Err(_) => tokio::time::sleep(step).await,
            }
            waited += step;
        }
    }

    /// Whether it answers.
    pub(super) async fn ask(&self) -> Result<(), EdgeError> {
        let url = format!("http://127.0.0.1:{}{OWN_PATH}", self.0.settings.http_port);
        let answer = self.0.http.get(url).send().await;
        match answer.and_then(reqwest::Response::error_for_status) {
            Ok(_) => Ok(()),
            Err(source) => Err(EdgeError::Retry {
                what: format!("failed to reach the edge on port {}", self.0.settings.http_port),
                source: Some(Box::new(source)),
            }),
        }
    }

    /// Waits until requests for which a release was chosen have reached it: so long at least, and on a busy machine
    /// until requests that came later were answered, each of which had to wait for its turn as often as those.
    pub(super) async fn dialled(&self, at_least: Duration) {
        let later = async {
            for _ in 0..LATER {
                // One that fails says nothing of the files, which are written.
                let _ = self.ask().await;
            }
        };
        tokio::join!(tokio::time::sleep(at_least), later);
    }

    /// One TLS handshake under the tenant's name, trusting nobody but the edge's own authority.
    pub(super) async fn shake_hands(&self, label: &str) -> Result<(), EdgeError> {
        let hostname = self.0.settings.hostname(label);
        let port = self.0.settings.https_port;
        let failed = |source: reqwest::Error| EdgeError::Retry {
            what: format!("failed to get the certificate of `{hostname}`"),
            source: Some(Box::new(source)),
        };
        let root = self.root_certificate().await?;
        let root = reqwest::Certificate::from_pem(root.as_bytes()).map_err(failed)?;
        let client = client()
            .tls_certs_only([root])
            .resolve(&hostname, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .build()
            .map_err(failed)?;
        let url = format!("https://{hostname}:{port}{OWN_PATH}");
        client.get(url).send().await.map(|_| ()).map_err(failed)
    }
}

/// Whether nobody listens there, which is something else than being slow.
fn refused(error: &EdgeError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Never through a proxy of the environment: the edge is on this machine.
pub(super) fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT)
}
