//! A session of BuildKit: a connection that the engine turns round, to call us over it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bollard::auth::DockerCredentials;
use bollard::health::health_server::{Health, HealthServer};
use bollard::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard::moby::filesync::v1::auth_server::AuthServer;
use bollard::moby::filesync::v1::file_sync_server::FileSyncServer;
use futures::stream::Empty;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::Routes;
use tonic::{Response, Status};
use uuid::Uuid;

use crate::image::build::sync::credentials::Credentials;
use crate::image::build::sync::files::{Files, Served};
use crate::image::endpoint::Endpoint;
use crate::image::engine::Engine;

/// How BuildKit calls the methods that it may call here.
const METHODS: [&str; 3] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/grpc.health.v1.Health/Check",
];

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A session, which ends when it is dropped.
pub(super) struct Session {
    id: String,
    serving: Serving,
}

/// Whether a session can be opened: over the engine's socket, or TCP as it is.
pub(super) fn is_reachable(endpoint: &Endpoint) -> bool {
    endpoint.socket().is_some() || (endpoint.tls.is_none() && endpoint.host.starts_with("tcp://"))
}

impl Session {
    /// Opens a session; the engine keeps its copy of the context under `key`.
    pub(super) async fn open(
        engine: &Engine,
        key: &str,
        files: Arc<Files>,
        credentials: HashMap<String, DockerCredentials>,
    ) -> io::Result<Self> {
        let id = Uuid::new_v4().to_string();
        let endpoint = engine.endpoint();
        let version = &engine.info().api_version;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v{version}/session"))
            .header(HOST, "docker")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "h2c")
            .header("X-Docker-Expose-Session-Uuid", &id)
            .header("X-Docker-Expose-Session-Name", "systemprompt")
            .header("X-Docker-Expose-Session-Sharedkey", key);
        for method in METHODS {
            request = request.header("X-Docker-Expose-Session-Grpc-Method", method);
        }
        let request = request.body(String::new()).map_err(io::Error::other)?;
        let upgraded = match (endpoint.socket(), endpoint.host.strip_prefix("tcp://")) {
            (Some(socket), _) => upgrade(tokio::net::UnixStream::connect(socket).await?, request).await?,
            (None, Some(address)) => upgrade(tokio::net::TcpStream::connect(address).await?, request).await?,
            (None, None) => return Err(io::ErrorKind::Unsupported.into()),
        };
        let routes = Routes::new(HealthServer::new(Alive))
            .add_service(FileSyncServer::new(Served(files)))
            .add_service(AuthServer::new(Credentials(credentials)));
        let service = TowerToHyperService::new(routes.prepare());
        let serving = Box::pin(async move {
            let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
            // However it ends: what the build says counts.
            builder.serve_connection(upgraded, service).await.ok();
        });
        Ok(Self { id, serving })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Answers the engine until it hangs up, and never ends after that: what the build says counts.
    pub(super) async fn serve(&mut self) -> Infallible {
        self.serving.as_mut().await;
        self.serving = Box::pin(std::future::pending());
        std::future::pending().await
    }
}

/// Asks the engine to turn this connection round.
async fn upgrade<S>(stream: S, request: Request<String>) -> io::Result<Upgraded>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake::<_, String>(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(io::Error::other(format!(
                "the engine answered {}",
                response.status()
            )));
        }
        hyper::upgrade::on(response).await.map_err(io::Error::other)
    };
    let (upgraded, _) = tokio::join!(asked, connection.with_upgrades());
    upgraded
}

/// Tells the engine that we are still here.
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        use bollard::health::health_check_response::ServingStatus::Serving;
        Ok(Response::new(HealthCheckResponse {
            status: Serving.into(),
        }))
    }

    async fn list(
        &self,
        _: tonic::Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("there is one service"))
    }

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask again"))
    }
}
