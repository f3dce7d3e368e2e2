//! Constant load on a tenant through the edge; what is lost is remembered.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Clients at once: some read, some write. A read that fails may be tried again by the edge, a write may not.
const METHODS: [&str; 4] = ["GET", "GET", "POST", "POST"];
/// Enough to say that there was load before, during and after.
const AT_LEAST: usize = 100;

/// Clients that ask until they are told to stop.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts, and waits until it flows.
    pub(crate) fn start(port: u16, label: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients = METHODS
            .into_iter()
            .map(|method| {
                let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
                let host = format!("{label}.localhost:{port}");
                thread::spawn(move || client(method, port, &host, &over, &answered))
            })
            .collect();
        let load = Self {
            over,
            answered,
            clients,
        };
        load.wait_for(AT_LEAST);
        load
    }

    /// Keeps on for as many requests again, then stops; answers what was lost.
    pub(crate) fn stop(self) -> Vec<String> {
        self.wait_for(self.answered.load(Ordering::Relaxed) + AT_LEAST);
        self.over.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect()
    }

    fn wait_for(&self, requests: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.answered.load(Ordering::Relaxed) < requests {
            assert!(
                Instant::now() < deadline,
                "fewer than {requests} requests were answered in 60 s"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn client(method: &str, port: u16, host: &str, over: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut lost = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let outcome = request(method, port, host, "/");
        // The tenant refuses to be written to, and that is an answer of its own.
        match outcome.as_deref().map(status) {
            Ok("200" | "405") => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(status) => lost.push(format!("{method}: {status} after {:?}", begin.elapsed())),
            Err(error) => lost.push(format!("{method}: {error} after {:?}", begin.elapsed())),
        }
        thread::sleep(Duration::from_millis(5));
    }
    lost
}

/// One request to a tenant through the edge; the whole answer.
pub(crate) fn request(method: &str, port: u16, host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no answer")
}
