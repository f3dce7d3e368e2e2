//! A connection whose reader has stopped reading, or has gone without a word, is ended.

use std::time::Duration;

use tokio::net::TcpStream;

/// For how long what was sent may lie unread. A reader that is slower comes back and goes on where it was.
const UNREAD_WITHIN: Duration = Duration::from_secs(30);

/// Nothing on the way to a body's end can be timed by the server itself: a stream of events may be silent for hours. So
/// the kernel is asked, which knows what was not taken.
#[cfg(target_os = "linux")]
pub fn limit(stream: &TcpStream) {
    let limited = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNREAD_WITHIN));
    if let Err(error) = limited {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "failed to limit a connection");
    }
}

/// Elsewhere the kernel has no such limit.
#[cfg(not(target_os = "linux"))]
pub fn limit(_: &TcpStream) {
    let _ = UNREAD_WITHIN;
}
