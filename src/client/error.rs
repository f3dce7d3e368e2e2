//! What can go wrong between us and a server.

use std::error::Error;
use std::time::Duration;

use crate::api::id::OperationId;
use crate::api::problem::Problem;

/// Why a call did not give what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client could not even be made.
    #[error("failed to set up the connection to a server: {what}")]
    Setup {
        /// Which setting.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing listens there, the name is unknown, the network is down.
    #[error("failed to reach the server at {server}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server shows a certificate that this machine does not trust.
    #[error("the certificate of {server} is not trusted")]
    Untrusted {
        /// Its URL.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server took too long.
    #[error("the server at {server} did not answer in time")]
    TimedOut {
        /// Its URL.
        server: String,
    },
    /// The connection was lost in the middle.
    #[error("the connection to {server} was lost before the answer was complete")]
    Broken {
        /// Its URL.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server refused and said why.
    #[error("{}", if .problem.detail.is_empty() { &.problem.title } else { &.problem.detail })]
    Problem {
        /// What it said.
        problem: Box<Problem>,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// A sign-in route refused (RFC 6749 section 5.2).
    #[error("{}", .description.as_deref().unwrap_or(.code))]
    OAuth {
        /// `authorization_pending`, `access_denied` …
        code: String,
        /// For people.
        description: Option<String>,
    },
    /// The answer is not what this server should say: most likely it is not our server.
    #[error("the answer of {url} is not one of a systemprompt server: {what}")]
    Unexpected {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// The server sends us elsewhere; we do not take tokens there unasked.
    #[error("{server} redirects to {location}")]
    Redirected {
        /// Its URL.
        server: String,
        /// Where to.
        location: String,
    },
    /// There is no session with this server.
    #[error("not signed in to {server}")]
    SignedOut {
        /// Its URL.
        server: String,
    },
    /// A token that was given from outside is refused, and there is no way to get another.
    #[error("{server} refuses the token")]
    TokenRefused {
        /// Its URL.
        server: String,
    },
    /// The session has ended on the server.
    #[error("the session with {server} has ended")]
    SessionEnded {
        /// Its URL.
        server: String,
    },
    /// The tokens could not be read or kept.
    #[error("failed to use the stored session")]
    Store(#[source] Box<dyn Error + Send + Sync>),
    /// An operation did not end in the time that it was given.
    #[error("operation {operation} has not ended after {} s", .waited.as_secs())]
    StillRunning {
        /// Which.
        operation: OperationId,
        /// How long we waited.
        waited: Duration,
    },
}

impl ClientError {
    /// Whether the same call may succeed in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            // The last is said of a request whose first try is still at work: its answer comes in a moment.
            Self::Problem { problem, .. } => {
                matches!(problem.status, 429 | 502..=504) || problem.code == "still-running"
            }
            _ => false,
        }
    }

    /// Whether the access token was refused.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Problem { problem, .. } if problem.status == 401)
    }

    /// The server's stable word for it, if the server refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem { problem, .. } => Some(&problem.code),
            Self::OAuth { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The status of the server's refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem { problem, .. } => Some(problem.status),
            _ => None,
        }
    }

    /// From what the HTTP client says, as the person needs to hear it.
    pub(super) fn from_reqwest(server: &str, error: reqwest::Error) -> Self {
        let server = server.to_owned();
        let error = error.without_url();
        if is_certificate(&error) {
            return Self::Untrusted {
                server,
                source: Box::new(error),
            };
        }
        if error.is_connect() {
            return Self::Unreachable {
                server,
                source: Box::new(error),
            };
        }
        if error.is_timeout() {
            return Self::TimedOut { server };
        }
        Self::Broken {
            server,
            source: Box::new(error),
        }
    }
}

/// Looks for a refused certificate among the causes; an `io::Error` hides the one it wraps.
fn is_certificate(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref::<rustls::Error>() {
            return true;
        }
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}
