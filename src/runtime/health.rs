//! `services health`: asks the service on this machine whether it lives, so that an image needs no HTTP client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::runtime::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(3);

/// Why the service does not count as alive.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody answers.
    #[error("failed to reach the service on `{address}`")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answers something else than 200.
    #[error("the service on `{address}` answers `{answer}`")]
    Unwell {
        /// Where.
        address: SocketAddr,
        /// The status line.
        answer: String,
    },
}

/// Asks `/livez` of the service that these settings start.
///
/// # Errors
/// It does not answer 200.
pub async fn check(settings: &Settings) -> Result<SocketAddr, HealthError> {
    let host = if settings.host.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        settings.host
    };
    let address = SocketAddr::new(host, settings.port);
    let answer = match tokio::time::timeout(PATIENCE, ask(address)).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    let answer = answer.map_err(|source| HealthError::Silent { address, source })?;
    if answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200") {
        return Ok(address);
    }
    let answer = answer.lines().next().unwrap_or_default().to_owned();
    Err(HealthError::Unwell { address, answer })
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
