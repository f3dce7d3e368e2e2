//! Listens, and answers until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::server::config::Settings;
use crate::server::error::ServerError;
use crate::server::front::serving::serve;
use crate::server::front::tls::Tls;
use crate::server::front::{Door, Trust, introduce};
use crate::server::http::App;
use crate::server::http::error::chain;

/// For how long open connections may take once the server stops; the engine has its own 8 seconds beside it.
const DRAIN_WITHIN: Duration = Duration::from_secs(8);
/// How often the certificate's files are looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(5);

/// Takes the address.
///
/// # Errors
/// It is in use, or not of this machine.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Listen { address, source })
}

/// The whole server's router behind its front.
pub fn behind_front(router: axum::Router, settings: &Settings, public_url: &str) -> axum::Router {
    let origins = &settings.exposure.allowed_origins;
    let router = if origins.is_empty() {
        router
    } else {
        router.layer(cors(origins))
    };
    let trust = Trust {
        proxies: settings.exposure.trusted_proxies.clone(),
        https: public_url.starts_with("https://"),
    };
    router.layer(from_fn_with_state(trust, introduce))
}

/// Pages of these sites may call the API with a token; cookies are never taken from there.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::from(Any)
    } else {
        let values = origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin).ok());
        AllowOrigin::list(values)
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PATCH,
            Method::PUT,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([
            header::LOCATION,
            header::LINK,
            header::RETRY_AFTER,
            HeaderName::from_static("x-request-id"),
        ])
        .max_age(Duration::from_secs(600))
}

/// What ends the server.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they do not end the process, but are waited for.
    ///
    /// # Errors
    /// Signals cannot be had.
    pub fn wait_for() -> Result<Self, ServerError> {
        let wait = |kind| signal(kind).map_err(ServerError::Serve);
        Ok(Self {
            terminate: wait(SignalKind::terminate())?,
            interrupt: wait(SignalKind::interrupt())?,
        })
    }

    /// Waits until one has come.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal comes, then ends everything within ten seconds.
pub async fn answer(
    (listener, tls): (TcpListener, Option<Tls>),
    router: axum::Router,
    app: &App,
    mut signals: Signals,
) {
    if let Some(tls) = tls.clone() {
        app.tasks.spawn(keep_fresh(tls, app.clone()));
    }
    let door = Door::new(listener, tls);
    app.tasks
        .spawn(serve(door, router, app.stopping.clone(), app.tasks.clone()));
    signals.told().await;
    tracing::info!("stopping: no new work, streams end, running steps finish or are given back");
    app.stopping.cancel();
    app.tasks.close();
    let drain = async {
        if tokio::time::timeout(DRAIN_WITHIN, app.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some connections were still open and are cut");
        }
    };
    tokio::join!(drain, app.provision.stop());
}

/// Reads the certificate again when its files change.
async fn keep_fresh(tls: Tls, app: App) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(REFRESH_EVERY) => {}
        }
        match tls.refresh() {
            Ok(true) => tracing::info!("new connections are served with the new certificate"),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                error = chain(&error),
                "the new certificate cannot be used; the one before is served on"
            ),
        }
    }
}
