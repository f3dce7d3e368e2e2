//! The Docker Engine: connect, agree on a version, and tell apart absent, forbidden and unreachable.

use std::path::Path;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use http::HeaderValue;

use crate::image::endpoint::{Endpoint, EngineEnvironment};
use crate::image::error::ImageError;

/// Quick answers: inspect, create, start.
const TIMEOUT_SECONDS: u64 = 120;
/// Builds and pushes: the engine answers only once it has read the whole context.
const LONG_TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// A connection to a Docker Engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
    endpoint: Endpoint,
    info: EngineInfo,
    config_directory: Option<std::path::PathBuf>,
}

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// `20.10.24`.
    pub version: String,
    /// The newest API version that both sides know.
    pub api_version: String,
    /// `linux/amd64`: what it builds and runs without being told.
    pub platform: String,
    /// Whether it builds with BuildKit; otherwise with the classic builder.
    pub buildkit: bool,
}

impl Engine {
    /// Finds the engine and talks to it once.
    pub async fn connect(environment: &EngineEnvironment) -> Result<Self, ImageError> {
        let endpoint = Endpoint::resolve(environment)?;
        if let Some(socket) = endpoint.socket() {
            try_socket(&endpoint, socket).await?;
        }
        let docker = client(&endpoint)?
            .with_request_modifier(url_safe_credentials)
            .negotiate_version()
            .await
            .map_err(|source| unreachable(&endpoint, source))?;
        let version = docker
            .version()
            .await
            .map_err(|source| unreachable(&endpoint, source))?;
        // Podman answers the same API and speaks no BuildKit session.
        let is_podman = version
            .components
            .iter()
            .flatten()
            .any(|component| component.name.to_ascii_lowercase().contains("podman"));
        let platform = format!(
            "{}/{}",
            version.os.as_deref().unwrap_or("linux"),
            version.arch.as_deref().unwrap_or("amd64")
        );
        let client_version = docker.client_version();
        let has_buildkit = (client_version.major_version, client_version.minor_version) >= (1, 39)
            && !is_podman
            && platform.starts_with("linux/");
        let info = EngineInfo {
            version: version.version.unwrap_or_default(),
            api_version: format!(
                "{}.{}",
                client_version.major_version, client_version.minor_version
            ),
            platform,
            buildkit: has_buildkit && environment.buildkit.as_deref() != Some("0"),
        };
        Ok(Self {
            docker,
            endpoint,
            info,
            config_directory: environment.config_directory.clone(),
        })
    }

    /// What the engine said of itself.
    #[must_use]
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Where the engine is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// A client that waits as long as a build or a push may take.
    pub(crate) fn patient(&self) -> Docker {
        self.docker.clone().with_timeout(LONG_TIMEOUT)
    }

    /// The folder of the user's docker configuration, for credentials of base images.
    pub(crate) fn config_directory(&self) -> Option<&Path> {
        self.config_directory.as_deref()
    }
}

fn client(endpoint: &Endpoint) -> Result<Docker, ImageError> {
    let version = API_DEFAULT_VERSION;
    let made = match (&endpoint.tls, endpoint.socket()) {
        (_, Some(_)) => Docker::connect_with_unix(&endpoint.host, TIMEOUT_SECONDS, version),
        (Some(tls), None) => Docker::connect_with_ssl(
            &endpoint.host,
            &tls.key,
            &tls.certificate,
            &tls.ca,
            TIMEOUT_SECONDS,
            version,
        ),
        (None, None) => Docker::connect_with_http(&endpoint.host, TIMEOUT_SECONDS, version),
    };
    made.map_err(|source| unreachable(endpoint, source))
}

/// The kind of failure gets lost inside the HTTP client, so the socket is tried by hand first.
async fn try_socket(endpoint: &Endpoint, socket: &Path) -> Result<(), ImageError> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == PermissionDenied => Err(ImageError::EngineForbidden {
            host: endpoint.host.clone(),
        }),
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Err(ImageError::EngineAbsent {
            host: endpoint.host.clone(),
            hint: how_to_start(),
        }),
        Err(error) => Err(unreachable(endpoint, error)),
    }
}

fn how_to_start() -> String {
    let installed = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"]
        .iter()
        .any(|path| Path::new(path).exists());
    if cfg!(target_os = "macos") {
        "start Docker Desktop, or any other Docker Engine".to_owned()
    } else if installed {
        "start it with `sudo systemctl start docker` (or `sudo dockerd &` where there is no systemd)"
            .to_owned()
    } else {
        "install one with `sudo apt-get install docker.io`, or see https://docs.docker.com/engine/install/"
            .to_owned()
    }
}

fn unreachable(endpoint: &Endpoint, source: impl std::error::Error + Send + Sync + 'static) -> ImageError {
    ImageError::EngineUnreachable {
        host: endpoint.host.clone(),
        source: Box::new(source),
    }
}

/// The engine wants base64url; bollard writes the standard alphabet, and the engine then drops the credential silently.
pub(crate) fn url_safe_credentials(mut request: BollardRequest) -> BollardRequest {
    for name in ["x-registry-auth", "x-registry-config"] {
        let Some(value) = request.headers().get(name).and_then(|value| value.to_str().ok()) else {
            continue;
        };
        let safe = value.replace('+', "-").replace('/', "_");
        if let Ok(mut safe) = HeaderValue::from_str(&safe) {
            safe.set_sensitive(true);
            request.headers_mut().insert(name, safe);
        }
    }
    request
}
