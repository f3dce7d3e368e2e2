//! The front of the server: the socket, TLS on it, and who is at the other end.

pub mod proxies;
pub mod serving;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::server::front::proxies::{Network, caller};
use crate::server::front::tls::Tls;
use crate::server::listening::limit;

/// How long somebody may take to say hello.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How many may say hello at once; who comes later waits in the system's own queue.
const MAX_HANDSHAKES: usize = 512;

/// What a connection is read from and written to.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Where connections come in, with or without TLS.
pub struct Door {
    listener: TcpListener,
    tls: Option<Tls>,
    handshakes: JoinSet<io::Result<(Stream, SocketAddr)>>,
}

impl Door {
    /// Over an open socket.
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self {
            listener,
            tls,
            handshakes: JoinSet::new(),
        }
    }

    async fn next(&mut self) -> io::Result<(Stream, SocketAddr)> {
        let Some(tls) = &self.tls else {
            let (stream, address) = self.listener.accept().await?;
            limit(&stream);
            return Ok((Either::Left(stream), address));
        };
        loop {
            let room = self.handshakes.len() < MAX_HANDSHAKES;
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    // Whoever does not speak TLS is let go; the others do not wait for them.
                    if let Ok(Ok(shaken)) = done {
                        return Ok(shaken);
                    }
                }
                accepted = self.listener.accept(), if room => {
                    let (stream, address) = accepted?;
                    limit(&stream);
                    let acceptor = TlsAcceptor::from(tls.current());
                    self.handshakes.spawn(async move {
                        let shaken = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(stream));
                        let stream = shaken.await.map_err(io::Error::other)??;
                        Ok((Either::Right(stream), address))
                    });
                }
            }
        }
    }
}

impl Listener for Door {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.next().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    // Most likely there are too many open files: some connection ends soon.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What is known about who stands in front of this server.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Proxies that are believed about callers' addresses.
    pub proxies: Vec<Network>,
    /// Browsers are told to come by HTTPS only.
    pub https: bool,
}

/// Says who asks (`ConnectInfo`), which everything further in goes by, and keeps browsers on HTTPS.
pub async fn introduce(
    State(trust): State<Trust>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = caller(peer.ip(), request.headers(), &trust.proxies);
    request
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::new(address, peer.port())));
    let mut response = next.run(request).await;
    if trust.https {
        response.headers_mut().insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    response
}
