//! Serves connections: nobody holds one by saying nothing, or by saying it slowly.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use axum::serve::Listener as _;
use axum::{BoxError, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceExt as _, service_fn};

use crate::server::front::{Door, Peer, Stream};

/// For how long a connection may stand without a whole request head: the one that is being sent, or the next one. As
/// long as other servers wait, so that proxies in front do not reuse a connection that is just being closed.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// How often the other end of an HTTP/2 connection is asked whether it is there, and for how long its answer is awaited.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How many requests one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 256;

/// Serves until `stopping`, and then until what was begun is answered.
pub async fn serve(door: Door, router: Router, stopping: CancellationToken, tasks: TaskTracker) {
    serve_within(door, router, (stopping, tasks), HEAD_WITHIN).await;
}

async fn serve_within(
    mut door: Door,
    router: Router,
    (stopping, tasks): (CancellationToken, TaskTracker),
    head_within: Duration,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, address) = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            accepted = door.accept() => accepted,
        };
        let builder = protocol(is_http2(&stream), head_within);
        let service = TowerToHyperService::new(introduced(router.clone(), address));
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection has ended early");
            }
        });
    }
    // No new ones from here on.
    drop(door);
    graceful.shutdown().await;
}

/// The other end of the connection goes with every request.
fn introduced<B>(
    router: Router,
    address: SocketAddr,
) -> impl tower::Service<Request<B>, Response = Response, Error = Infallible, Future: Send> + Clone
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    service_fn(move |request: Request<B>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(Peer(address)));
        router.clone().oneshot(request)
    })
}

/// What both ends have agreed on in their handshake; without one it is HTTP/1.1.
fn is_http2(stream: &Stream) -> bool {
    match stream {
        Either::Left(_) => false,
        Either::Right(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
    }
}

fn protocol(http2: bool, head_within: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_within);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .max_concurrent_streams(MAX_STREAMS);
    if http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::serve_within;
    use crate::server::front::{Door, Peer};

    struct Served {
        address: std::net::SocketAddr,
        stopping: CancellationToken,
        tasks: TaskTracker,
    }

    async fn served(head_within: Duration) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route(
                "/",
                get(|ConnectInfo(Peer(peer))| async move { peer.ip().to_string() }),
            )
            .route(
                "/slow",
                get(|| async {
                    tokio::time::sleep(Duration::from_millis(600)).await;
                    "late"
                }),
            );
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let running = (stopping.clone(), tasks.clone());
        tasks.spawn(serve_within(
            Door::new(listener, None),
            router,
            running,
            head_within,
        ));
        Served {
            address,
            stopping,
            tasks,
        }
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.expect("read");
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_too_slowly_is_let_go() {
        let served = served(Duration::from_millis(300)).await;
        for begin in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let mut stream = TcpStream::connect(served.address).await.expect("connected");
            let began = Instant::now();
            stream.write_all(begin.as_bytes()).await.expect("written");
            assert!(!rest(&mut stream).await.contains("200 OK"), "{begin:?}");
            assert!(began.elapsed() >= Duration::from_millis(250), "{begin:?}");
        }
        // A handler may take longer than that, and the next request of the connection is waited for again.
        let mut stream = TcpStream::connect(served.address).await.expect("connected");
        stream
            .write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("written");
        let answer = rest(&mut stream).await;
        assert!(answer.contains("200 OK") && answer.ends_with("late"), "{answer}");
    }

    #[tokio::test]
    async fn what_was_begun_is_answered_and_idle_connections_end() {
        let served = served(Duration::from_secs(60)).await;
        let mut idle = TcpStream::connect(served.address).await.expect("connected");
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("written");
        let mut first = [0; 15];
        idle.read_exact(&mut first).await.expect("answered");
        let mut busy = TcpStream::connect(served.address).await.expect("connected");
        busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("written");
        tokio::time::sleep(Duration::from_millis(100)).await;
        served.stopping.cancel();
        served.tasks.close();
        assert!(rest(&mut idle).await.ends_with("127.0.0.1"));
        assert!(rest(&mut busy).await.ends_with("late"));
        tokio::time::timeout(Duration::from_secs(5), served.tasks.wait())
            .await
            .expect("everything has ended");
        TcpStream::connect(served.address).await.expect_err("closed");
    }
}
