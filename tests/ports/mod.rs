//! Ports for what a test starts itself: given to one process only, until that process ends.
//!
//! A port that the kernel chose and that was let go again may be given to somebody else before the test's own program
//! listens there, or while that program is stopped for a moment; it happened, once in some thousand tests.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the ports that Linux gives to outgoing connections and to listeners that ask for any
/// (`net.ipv4.ip_local_port_range`, 32768 by default), above what is well known.
const RANGE: Range<u16> = 10_240..32_768;

/// A port where nobody listens and that no other test is given while this process lives.
///
/// The claim is a name in Linux's abstract socket namespace: it goes with the process, however that ends.
pub(crate) fn free_port() -> u16 {
    let length = u32::from(RANGE.end - RANGE.start);
    // Tests that run side by side have neighbouring process ids: they begin far apart.
    let begin = std::process::id().wrapping_mul(97) % length;
    (0..length)
        .map(|step| RANGE.start + u16::try_from((begin + step) % length).expect("within the range"))
        .find(|port| claim(*port))
        .expect("a free port")
}

fn claim(port: u16) -> bool {
    let name = format!("systemprompt-test-port-{port}");
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let Ok(claim) = UnixListener::bind_addr(&address) else {
        return false;
    };
    // On every address, as an edge listens.
    let free = TcpListener::bind(("0.0.0.0", port)).is_ok();
    if free {
        std::mem::forget(claim);
    }
    free
}
