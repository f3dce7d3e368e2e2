//! A proxy that cuts every connection after a time, in the middle of whatever is said.

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
