//! The least that a stream of events can be: axum, one channel, every line to everybody. And those who listen to it.
//!
//! `streams serve` prints where it answers: `GET /events` streams, `POST /events` sends a line to all.
//! `streams listen ADDRESS PATH COUNT TOKENS` opens so many streams as the owners of so many tokens, says `open`, and from
//! then on `all` whenever everybody has had another event.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a floor of benches")]

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_stream::wrappers::BroadcastStream;

type Line = Arc<str>;

async fn stream(
    State(sender): State<broadcast::Sender<Line>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let hello = futures::stream::once(async { Ok(Event::default().retry(Duration::from_secs(1))) });
    let lines = BroadcastStream::new(sender.subscribe()).filter_map(|line| async move {
        let line = line.ok()?;
        Some(Ok(Event::default().id("1").event("secret_set").data(&*line)))
    });
    Sse::new(hello.chain(lines)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

async fn send(State(sender): State<broadcast::Sender<Line>>, line: String) {
    let _ = sender.send(line.into());
}

async fn serve() {
    let (sender, _) = broadcast::channel::<Line>(16);
    let router = Router::new()
        .route("/events", get(stream).post(send))
        .with_state(sender);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    say(&format!("http://{}", listener.local_addr().expect("an address")));
    axum::serve(listener, router).await.expect("served");
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("said");
}

/// What all who listen have counted together.
#[derive(Default)]
struct Heard {
    open: AtomicUsize,
    events: AtomicUsize,
}

async fn listen(address: String, path: String, count: usize, tokens: usize) {
    let heard = Arc::new(Heard::default());
    let mut listeners = JoinSet::new();
    for number in 0..count {
        let (heard, address) = (heard.clone(), address.clone());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nAuthorization: Bearer spt_{:043}\r\n\r\n",
            number % tokens.max(1) + 1
        );
        // Not all at once: a server has a line of a few thousand for those who knock.
        if number % 200 == 199 {
            while heard.open.load(Ordering::Relaxed) + 200 < number {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        listeners.spawn(async move {
            let mut stream = TcpStream::connect(&*address).await.expect("connected");
            stream.write_all(request.as_bytes()).await.expect("asked");
            let mut buffer = [0; 1024];
            let mut open = false;
            loop {
                let read = stream.read(&mut buffer).await.expect("read");
                assert!(read > 0, "a stream has ended");
                let text = String::from_utf8_lossy(&buffer[..read]);
                if !open && text.contains("retry:") {
                    open = true;
                    heard.open.fetch_add(1, Ordering::Relaxed);
                } else if !open && !text.starts_with("HTTP/1.1 200") {
                    panic!("{text}");
                }
                if text.contains("event:")
                    && (heard.events.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(count)
                {
                    say("all");
                }
            }
        });
    }
    while heard.open.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    say("open");
    listeners
        .join_next()
        .await
        .expect("somebody listens")
        .expect("listens on");
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("an argument");
    match &*next() {
        "serve" => serve().await,
        _ => {
            let (address, path) = (next(), next());
            let (count, tokens) = (
                next().parse().expect("a number"),
                next().parse().expect("a number"),
            );
            listen(address, path, count, tokens).await;
        }
    }
}
