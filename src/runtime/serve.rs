//! `services serve`: listens, answers, and stops without losing a request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::runtime::catalog::Catalog;
use crate::runtime::database::Database;
use crate::runtime::migrate::MigrateError;
use crate::runtime::routes::{Services, router};
use crate::runtime::settings::Settings;

/// The platform kills 10 s after TERM: what has not finished by then would be cut anyway.
const DRAIN: Duration = Duration::from_secs(8);
/// Who has just connected gets this long to say what it wants. The HTTP server ends a connection on which nothing has
/// been said at once; whoever was about to speak would take that for a failed request.
const SETTLE: Duration = Duration::from_millis(500);

/// Why the services could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or forbidden.
    #[error("failed to listen on `{address}`")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No signal handler could be installed.
    #[error("failed to listen for signals")]
    Signal(#[source] io::Error),
    /// The database's URL or the project's migrations cannot be used.
    #[error("failed to prepare the database")]
    Database(#[source] MigrateError),
    /// The server itself failed.
    #[error("failed to serve")]
    Serve(#[source] io::Error),
}

/// Serves until TERM or Ctrl-C, then finishes what is in flight.
///
/// # Errors
/// It cannot listen, or the settings cannot be used.
pub async fn run(settings: &Settings) -> Result<(), ServeError> {
    let stop = stop_signal().map_err(ServeError::Signal)?;
    let catalog = Catalog::read(&settings.services_path);
    for fault in &catalog.faults {
        tracing::warn!("{fault}");
    }
    let database = Database::open(settings).map_err(ServeError::Database)?;
    let address = SocketAddr::new(settings.host, settings.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    tracing::info!(
        tenant = settings.tenant_id,
        release = settings.release,
        agents = catalog.agents.len(),
        skills = catalog.skills.len(),
        "listening on {}",
        listener.local_addr().unwrap_or(address)
    );
    let stopped = CancellationToken::new();
    let gate = Gate {
        state: State::Open(listener),
        stop: stop.clone(),
        closed: stopped.clone(),
    };
    let services = Services::new(settings, catalog, database.clone());
    let server = axum::serve(gate, router(services)).with_graceful_shutdown(stopped.cancelled_owned());
    tokio::select! {
        outcome = async { server.await } => outcome.map_err(ServeError::Serve)?,
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => {
            tracing::warn!("stopping with requests in flight: they took longer than {} s", DRAIN.as_secs());
        }
    }
    // Connections that hang must not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(1), database.close()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Logs go to standard output, one line each, for the platform to collect.
pub fn start_logs(settings: &Settings) {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // A second subscriber in one process is a test's; it keeps its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

/// Turns once the process is told to stop. Installed before anything listens, so that no early TERM is lost.
fn stop_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    let wait = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop: finishing what is in flight");
        told.cancel();
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as the process and holds nothing"
    )]
    tokio::spawn(wait);
    Ok(stop)
}

/// A listener that, told to stop, first takes every connection that the kernel has accepted already and then closes.
///
/// Closing right away would reset those: the edge would have to answer 502 for requests that it had sent.
struct Gate {
    state: State,
    stop: CancellationToken,
    closed: CancellationToken,
}

enum State {
    Open(TcpListener),
    /// Out of the event loop's hands, which learns of a waiting connection only later than the kernel.
    Draining(std::net::TcpListener),
    Closed,
}

impl Gate {
    fn drain(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        if let State::Open(listener) = state
            && let Ok(listener) = listener.into_std()
        {
            self.state = State::Draining(listener);
        }
    }
}

impl Listener for Gate {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        if let State::Open(listener) = &mut self.state {
            tokio::select! {
                connection = Listener::accept(listener) => return connection,
                () = self.stop.cancelled() => self.drain(),
            }
        }
        while let State::Draining(listener) = &self.state {
            match listener.accept() {
                Ok((stream, from)) => {
                    if let Ok(stream) = into_async(stream) {
                        return (stream, from);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.state = State::Closed,
            }
        }
        tokio::time::sleep(SETTLE).await;
        self.closed.cancel();
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.state {
            State::Open(listener) => listener.local_addr(),
            State::Draining(listener) => listener.local_addr(),
            State::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn into_async(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}
