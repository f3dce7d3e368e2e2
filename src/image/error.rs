//! What can go wrong with images on this machine, and what mends it.

use std::path::PathBuf;

/// Why the work on an image failed. `hint` says the next thing to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The settings that say where the engine is contradict each other or name what is not there.
    #[error("{what}")]
    Endpoint {
        /// What is wrong, for people.
        what: String,
        /// What mends it.
        hint: String,
    },
    /// Nothing listens where the engine should be.
    #[error("no Docker Engine answers at `{host}`")]
    EngineAbsent {
        /// Where it was looked for.
        host: String,
        /// What mends it.
        hint: String,
    },
    /// The engine is there and this user may not use it.
    #[error("this user may not use the Docker Engine at `{host}`: permission denied")]
    EngineForbidden {
        /// Where it was looked for.
        host: String,
    },
    /// The engine cannot be reached, or answered something strange.
    #[error("failed to reach the Docker Engine at `{host}`")]
    EngineUnreachable {
        /// Where it was looked for.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine refused or broke off a request.
    #[error("failed to {what}")]
    Engine {
        /// What was asked, as it follows "failed to".
        what: String,
        /// Why.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// A file or folder could not be read or written.
    #[error("failed to {what} `{path}`")]
    File {
        /// What was tried, as it follows "failed to".
        what: &'static str,
        /// Of which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that people write has a mistake in it.
    #[error("{path}:{line}: {what}")]
    Mistake {
        /// Which file, relative to the project.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
        /// What mends it.
        hint: String,
    },
    /// A file of the build context is not what it was when the walk saw it.
    #[error("`{path}` changed while it was read")]
    ContextChanged {
        /// Relative to the context.
        path: String,
    },
    /// A step of the Dockerfile failed.
    #[error("the build failed at {step}: {message}")]
    BuildFailed {
        /// The step, as the Dockerfile has it.
        step: String,
        /// What the engine said.
        message: String,
        /// The last lines that were printed.
        log_tail: Vec<String>,
    },
    /// A program in the image needs more than the image has.
    #[error("{what}")]
    WrongBinary {
        /// Which program, and what it lacks.
        what: String,
        /// What mends it.
        hint: String,
    },
    /// The registry does not take the credential.
    #[error("the registry `{registry}` refuses this push: {message}")]
    PushRefused {
        /// Host and port.
        registry: String,
        /// What it said.
        message: String,
    },
    /// The push broke off, as often as it was tried.
    #[error("failed to push to `{registry}` in {attempts} attempts: {message}")]
    PushFailed {
        /// Host and port.
        registry: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        message: String,
    },
    /// The registry stored something else than the engine sent.
    #[error("the engine pushed `{pushed}`, but the registry holds `{stored}`")]
    DigestMismatch {
        /// What the engine said.
        pushed: String,
        /// What the registry says.
        stored: String,
    },
    /// A database on this machine did not come up, or is not what it should be.
    #[error("{what}")]
    Database {
        /// What is wrong, for people.
        what: String,
        /// What mends it.
        hint: String,
    },
}

impl ImageError {
    /// The next command, or what to change.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Endpoint { hint, .. }
            | Self::EngineAbsent { hint, .. }
            | Self::Mistake { hint, .. }
            | Self::WrongBinary { hint, .. }
            | Self::Database { hint, .. } => hint.clone(),
            Self::EngineForbidden { .. } => "add yourself to the group of the socket with `sudo usermod -aG docker \
                 $USER` and sign in again, or use a rootless engine"
                .to_owned(),
            Self::EngineUnreachable { .. } => {
                "check it with `docker version`; `DOCKER_HOST` and `docker context ls` say where it is looked for"
                    .to_owned()
            }
            Self::ContextChanged { .. } => "stop what writes there, or ignore it, and run the command again".to_owned(),
            Self::PushRefused { .. } => "sign in again with `systemprompt login`".to_owned(),
            Self::PushFailed { .. } => {
                "run the same command again: layers that arrived are not sent twice".to_owned()
            }
            Self::DigestMismatch { .. } => {
                "somebody else pushed this tag at the same time; run the command again".to_owned()
            }
            Self::BuildFailed { message, .. } => return build_hint(message).map(str::to_owned),
            Self::Engine { .. } | Self::File { .. } => return None,
        };
        Some(text)
    }

    /// Wraps what the engine answered to `what`, which follows "failed to".
    pub(crate) fn engine(what: impl Into<String>) -> impl FnOnce(bollard::errors::Error) -> Self {
        let what = what.into();
        move |source| Self::Engine {
            what,
            source: Box::new(source),
        }
    }

    /// Wraps a file error; `what` follows "failed to".
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Two failures of builds are never the Dockerfile's own fault, and the engine does not say so.
fn build_hint(message: &str) -> Option<&'static str> {
    const NOT_COPIED: [&str; 4] = [
        "failed to compute cache key",
        "failed to calculate checksum",
        "COPY failed",
        "ADD failed",
    ];
    const NOT_PULLED: [&str; 5] = [
        "pull access denied",
        "manifest unknown",
        "no such host",
        "dial tcp",
        "failed to resolve source metadata",
    ];
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&NOT_COPIED) {
        Some(
            "the file is not there, or the ignore file leaves it out; `systemprompt doctor` says what is not built",
        )
    } else if has(&NOT_PULLED) {
        Some(
            "the base image is not on this engine and cannot be pulled; try `docker pull`, or choose another base \
             image",
        )
    } else {
        None
    }
}
