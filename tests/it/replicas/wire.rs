//! The wire between the servers and PostgreSQL: a socket in a folder of its own, that can be cut as a network is.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

const SOCKET: &str = ".s.PGSQL.5432";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Carries what is said, or keeps it until the wire is whole again: nobody is told that it is cut.
pub(crate) struct Wire {
    folder: TempDir,
    cut: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Wire {
    /// A wire to the server whose socket lies in `target`.
    pub(crate) fn to(target: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let wire = Self {
            folder,
            cut: Arc::default(),
            ended: Arc::default(),
        };
        let (cut, ended) = (Arc::clone(&wire.cut), Arc::clone(&wire.ended));
        let target = target.join(SOCKET);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (cut, ended, target) = (Arc::clone(&cut), Arc::clone(&ended), target.clone());
                std::thread::spawn(move || {
                    while cut.load(Ordering::Relaxed) {
                        std::thread::sleep(LOOK_EVERY);
                    }
                    if let Ok(server) = UnixStream::connect(target) {
                        std::thread::scope(|scope| {
                            scope.spawn(|| carry(&client, &server, (&cut, &ended)));
                            carry(&server, &client, (&cut, &ended));
                        });
                    }
                });
            }
        });
        wire
    }

    /// The URL of a database over this wire.
    pub(crate) fn url(&self, direct: &str, target: &Path) -> String {
        let written = |path: &Path| path.display().to_string().replace('/', "%2F");
        direct.replace(&written(target), &written(self.folder.path()))
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn carry(from: &UnixStream, to: &UnixStream, (cut, ended): (&AtomicBool, &AtomicBool)) {
    let (mut from, mut to) = (from, to);
    let mut bytes = [0_u8; 16 * 1024];
    let _ = from.set_read_timeout(Some(LOOK_EVERY));
    while !ended.load(Ordering::Relaxed) {
        let count = match from.read(&mut bytes) {
            Ok(count @ 1..) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            _ => break,
        };
        while cut.load(Ordering::Relaxed) && !ended.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
