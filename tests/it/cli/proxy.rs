//! Proxies between a client and a server: one that cuts, one that spreads over replicas, one that holds streams back.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Cuts until it is dropped.
pub(crate) struct Chopper {
    pub(crate) port: u16,
    cuts: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Chopper {
    /// A proxy to `target` that cuts every connection after `life`.
    pub(crate) fn new(target: u16, life: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let chopper = Self {
            port,
            cuts: Arc::default(),
            stopped: Arc::default(),
        };
        let (cuts, stopped) = (Arc::clone(&chopper.cuts), Arc::clone(&chopper.stopped));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let cuts = Arc::clone(&cuts);
                std::thread::spawn(move || carry(&client, target, life, &cuts));
            }
        });
        chopper
    }

    /// How many connections were cut while they were still open.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Chopper {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Spreads connections over replicas, one after the other; a replica that is down is passed over.
pub(crate) struct Balancer {
    pub(crate) port: u16,
    stopped: Arc<AtomicBool>,
}

impl Balancer {
    pub(crate) fn new(targets: Vec<u16>) -> Self {
        let next = AtomicU64::new(0);
        Self::over(move |client| {
            let first = next.fetch_add(1, Ordering::Relaxed) as usize;
            let up = (0..targets.len()).find_map(|step| {
                TcpStream::connect(("127.0.0.1", targets[(first + step) % targets.len()])).ok()
            });
            if let Some(server) = up {
                std::thread::spawn(move || join(&client, &server, |_| true));
            }
        })
    }

    /// Passes everything on but the answers that are streams of events: those it keeps for itself.
    pub(crate) fn hoarding(target: u16) -> Self {
        Self::over(move |client| {
            if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                std::thread::spawn(move || {
                    join(&client, &server, |bytes| {
                        !String::from_utf8_lossy(bytes).contains("content-type: text/event-stream")
                    });
                });
            }
        })
    }

    fn over(mut take: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                take(client);
            }
        });
        Self { port, stopped }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Carries both ways until one side ends; what the server says is kept for ever once `passes` refuses a piece of it.
fn join(client: &TcpStream, server: &TcpStream, passes: impl Fn(&[u8]) -> bool) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pump(client, server, |_| true);
            let _ = server.shutdown(Shutdown::Both);
        });
        pump(server, client, passes);
        let _ = client.shutdown(Shutdown::Both);
    });
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, passes: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0_u8; 16 * 1024];
    let mut open = true;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        open = open && passes(&bytes[..count]);
        if open && to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

fn carry(client: &TcpStream, target: u16, life: Duration, cuts: &AtomicU64) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else {
        return;
    };
    let ended = Arc::new(AtomicBool::new(false));
    for (from, to) in [(client, &server), (&server, client)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            let mut bytes = [0_u8; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            ended.store(true, Ordering::Relaxed);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    std::thread::sleep(life);
    if !ended.load(Ordering::Relaxed) {
        cuts.fetch_add(1, Ordering::Relaxed);
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
