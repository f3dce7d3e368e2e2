//! Why the engine did not do it.

use std::error::Error as _;
use std::io::ErrorKind;

use bollard::errors::Error;

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineFault {
    /// Nobody answers.
    Unreachable,
    /// It answers that something went wrong inside, or took too long.
    Busy,
    /// It does not let us, or a registry does not let it.
    Forbidden,
    /// What was named is not there.
    NotFound,
    /// The name belongs to something that is not ours.
    Conflict,
    /// Another process listens on the host port.
    PortTaken,
    /// Another network has these addresses.
    AddressInUse,
    /// Somebody is still in the network, or uses the volume.
    InUse,
    /// The disk is full.
    DiskFull,
    /// It understood, and says no.
    Refused,
}

/// A call to the engine that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}")]
pub struct EngineError {
    /// What kind of failure it was.
    pub fault: EngineFault,
    /// What was tried: "start the container `sp-…`".
    pub action: String,
    /// What the engine said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl EngineError {
    /// A call that the engine answered with an error. `action` completes "failed to …".
    pub fn engine(action: impl Into<String>, source: Error) -> Self {
        Self {
            fault: classify(&source),
            action: action.into(),
            source: Some(Box::new(source)),
        }
    }

    /// Something that was to be there is not.
    pub fn missing(action: impl Into<String>) -> Self {
        Self::plain(EngineFault::NotFound, action)
    }

    /// Something that did not come to its end, and may the next time.
    pub fn busy(action: impl Into<String>) -> Self {
        Self::plain(EngineFault::Busy, action)
    }

    pub(super) fn plain(fault: EngineFault, action: impl Into<String>) -> Self {
        Self {
            fault,
            action: action.into(),
            source: None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        matches!(self.fault, EngineFault::Unreachable | EngineFault::Busy)
    }

    /// The stable code of what will not pass by itself.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.fault {
            EngineFault::Unreachable => "engine-unreachable",
            EngineFault::Busy => "engine-busy",
            EngineFault::Forbidden => "engine-forbidden",
            EngineFault::NotFound => "not-found",
            EngineFault::Conflict => "name-taken",
            EngineFault::PortTaken => "port-taken",
            EngineFault::AddressInUse => "address-in-use",
            EngineFault::InUse => "in-use",
            EngineFault::DiskFull => "disk-full",
            EngineFault::Refused => "engine-refused",
        }
    }

    /// The whole in one text, with what the engine said: for people who see no more of it.
    #[must_use]
    pub fn told(&self) -> String {
        match self.said() {
            Some(said) => format!("{self}: {said}"),
            None => self.to_string(),
        }
    }

    fn said(&self) -> Option<&str> {
        match self.source.as_deref()?.downcast_ref()? {
            Error::DockerResponseServerError { message, .. } => {
                Some(message.trim()).filter(|it| !it.is_empty())
            }
            _ => None,
        }
    }

    /// What mends it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let network_gone = self
            .said()
            .is_some_and(|said| said.contains("network") && said.contains("not found"));
        let hint = match self.fault {
            EngineFault::NotFound if network_gone => {
                "somebody removed it: `systemprompt server reconcile` brings it back"
            }
            EngineFault::Unreachable => "start the Docker Engine, or name another with `--docker-host`",
            EngineFault::Forbidden => {
                "let this user use the Docker Engine (usually: be in the group `docker`)"
            }
            EngineFault::Conflict => {
                "remove or rename what has this name; `docker ps -a` and `docker network ls` list it"
            }
            EngineFault::PortTaken => "stop what listens on that port, or choose another one",
            EngineFault::AddressInUse => "start the server with an `--address-pool` that nobody else uses",
            EngineFault::DiskFull => "make room; `docker system df` says what takes it",
            EngineFault::Busy | EngineFault::NotFound | EngineFault::InUse | EngineFault::Refused => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

/// Texts of the engine (20.10 to 28) that say more than their status does.
const TEXTS: [(&str, EngineFault); 14] = [
    ("port is already allocated", EngineFault::PortTaken),
    ("address already in use", EngineFault::PortTaken),
    ("pool overlaps", EngineFault::AddressInUse),
    ("non-overlapping", EngineFault::AddressInUse),
    ("has active endpoints", EngineFault::InUse),
    ("volume is in use", EngineFault::InUse),
    ("no space left on device", EngineFault::DiskFull),
    ("manifest unknown", EngineFault::NotFound),
    ("manifest for", EngineFault::NotFound),
    ("no such image", EngineFault::NotFound),
    ("unauthorized", EngineFault::Forbidden),
    (
        "requested access to the resource is denied",
        EngineFault::Forbidden,
    ),
    ("pull access denied", EngineFault::Forbidden),
    ("permission denied", EngineFault::Forbidden),
];

fn classify(error: &Error) -> EngineFault {
    match error {
        Error::DockerResponseServerError { status_code, message } => by_status(*status_code, message),
        Error::DockerStreamError { error } => by_text(error).unwrap_or(EngineFault::Busy),
        Error::RequestTimeoutError => EngineFault::Busy,
        Error::SocketNotFoundError(_) => EngineFault::Unreachable,
        Error::UnsupportedURISchemeError { .. } | Error::InvalidURIError { .. } => EngineFault::Refused,
        other if is_denied(other) => EngineFault::Forbidden,
        _ => EngineFault::Unreachable,
    }
}

fn by_status(status: u16, message: &str) -> EngineFault {
    if let Some(fault) = by_text(message) {
        return fault;
    }
    match status {
        404 => EngineFault::NotFound,
        409 => EngineFault::Conflict,
        401 | 403 => EngineFault::Forbidden,
        429 | 500.. => EngineFault::Busy,
        _ => EngineFault::Refused,
    }
}

fn by_text(message: &str) -> Option<EngineFault> {
    let message = message.to_ascii_lowercase();
    TEXTS
        .iter()
        .find(|(text, _)| message.contains(text))
        .map(|(_, fault)| *fault)
}

fn is_denied(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == ErrorKind::PermissionDenied) {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{EngineError, EngineFault, Error, by_status, by_text};

    #[test]
    fn people_are_told_what_the_engine_said() {
        let gone = Error::DockerResponseServerError {
            status_code: 404,
            message: "network sp-x-acme not found\n".to_owned(),
        };
        let error = EngineError::engine("start the container `sp-x-acme-v2`", gone);
        assert_eq!(
            error.told(),
            "failed to start the container `sp-x-acme-v2`: network sp-x-acme not found"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("server reconcile")));
        let silent = EngineError::missing("find the container `sp-x-acme-v2`");
        assert_eq!((silent.told(), silent.hint()), (silent.to_string(), None));
    }

    #[test]
    fn texts_of_the_engine_say_more_than_its_status() {
        let faults = [
            (404, "No such container: sp-x", EngineFault::NotFound),
            (
                409,
                "Conflict. The container name \"/x\" is already in use",
                EngineFault::Conflict,
            ),
            (
                403,
                "Pool overlaps with other one on this address space",
                EngineFault::AddressInUse,
            ),
            (
                403,
                "error while removing network: network x id 1 has active endpoints",
                EngineFault::InUse,
            ),
            (409, "remove x: volume is in use - [1f]", EngineFault::InUse),
            (
                500,
                "Bind for 127.0.0.1:8080 failed: port is already allocated",
                EngineFault::PortTaken,
            ),
            (
                500,
                "write /var/lib/docker/tmp: no space left on device",
                EngineFault::DiskFull,
            ),
            (500, "something inside", EngineFault::Busy),
            (400, "invalid mount config", EngineFault::Refused),
        ];
        for (status, message, fault) in faults {
            assert_eq!(by_status(status, message), fault, "{message}");
        }
        assert_eq!(
            by_text("unauthorized: authentication required"),
            Some(EngineFault::Forbidden)
        );
    }
}
