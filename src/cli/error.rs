//! What a command fails with: kind, message, causes, hints; and the table kind → exit code.

use std::error::Error;

use serde_json::{Value, json};

use crate::api::problem::Problem;
use crate::client::error::ClientError;
use crate::image::error::ImageError;
use crate::workspace::error::WorkspaceError;

/// Why a command failed, as far as scripts care: each kind has one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything that has no kind of its own.
    Failed,
    /// Wrong use, or an answer is missing and nobody can be asked.
    Usage,
    /// Not signed in, or signed in and not allowed.
    NotAllowed,
    /// What was named is not there.
    NotFound,
    /// Somebody else is at it, or the name is taken.
    Conflict,
    /// The plan or the quota does not allow it.
    Payment,
    /// The image could not be built.
    BuildFailed,
    /// The image could not be pushed.
    PushFailed,
    /// The new release failed, the old one serves on.
    DeployFailed,
    /// The deploy can go neither on nor back by itself, or failed where no release has served before.
    DeployStuck,
    /// The server cannot be reached.
    Unreachable,
    /// Ctrl-C.
    Interrupted,
    /// Whoever read our output has gone; nothing is said about it.
    BrokenPipe,
}

impl Kind {
    /// The exit code, as README's table says.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::BrokenPipe => 1,
            Self::Usage => 2,
            Self::NotAllowed => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Payment => 6,
            Self::BuildFailed => 7,
            Self::PushFailed => 8,
            Self::DeployFailed => 9,
            Self::DeployStuck => 10,
            Self::Unreachable => 11,
            Self::Interrupted => 130,
        }
    }

    /// The stable word for programs, where nothing more exact is known.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotAllowed => "not-allowed",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Payment => "payment",
            Self::BuildFailed => "build-failed",
            Self::PushFailed => "push-failed",
            Self::DeployFailed => "deploy-failed",
            Self::DeployStuck => "deploy-stuck",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
            Self::BrokenPipe => "broken-pipe",
        }
    }
}

/// The word of the error that a file of the build context changed while it was read.
pub const CONTEXT_CHANGED: &str = "context-changed";

/// What a command fails with.
#[derive(Debug)]
pub struct CliError {
    /// Decides the exit code.
    pub kind: Kind,
    report: Box<Report>,
}

#[derive(Debug)]
struct Report {
    code: Option<String>,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    details: Vec<String>,
    hints: Vec<String>,
    request_id: Option<String>,
}

impl CliError {
    /// A failure: `message` says what failed, without a final period.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            report: Box::new(Report {
                code: None,
                message: message.into(),
                source: None,
                details: Vec::new(),
                hints: Vec::new(),
                request_id: None,
            }),
        }
    }

    /// A failure without a kind of its own.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Wrong use.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Why it failed; its own sources are printed too.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.report.source = Some(source.into());
        self
    }

    /// The next thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.report.hints.push(hint.into());
        self
    }

    /// Lines that show more: refused fields, the last log lines of a release.
    #[must_use]
    pub fn details(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.report.details.extend(lines);
        self
    }

    /// A stable word that is more exact than the kind.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.report.code = Some(code.into());
        self
    }

    /// What the server calls the request, for its log.
    #[must_use]
    pub fn request(mut self, id: impl Into<String>) -> Self {
        self.report.request_id = Some(id.into());
        self
    }

    /// The stable word: its own, else that of its kind.
    #[must_use]
    pub fn word(&self) -> &str {
        self.report.code.as_deref().unwrap_or(self.kind.code())
    }

    /// What failed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.report.message
    }

    /// What to do next.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.report.hints
    }

    /// Every cause, outermost first; a cause that only repeats the one before is left out.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut last = self.report.message.clone();
        let mut next = self
            .report
            .source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static));
        while let Some(error) = next {
            let text = error.to_string();
            if !last.contains(&text) {
                causes.push(text.clone());
                last = text;
            }
            next = error.source();
        }
        causes
    }

    /// Lines that show more.
    #[must_use]
    pub fn detail_lines(&self) -> &[String] {
        &self.report.details
    }

    /// What the server calls the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.report.request_id.as_deref()
    }

    /// The error as the one document that `--json` writes on stderr.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "error": {
                "code": self.word(),
                "message": self.report.message,
                "causes": self.causes(),
                "details": self.report.details,
                "hints": self.report.hints,
                "request_id": self.report.request_id,
                "exit_code": self.kind.exit_code(),
            }
        })
    }
}

impl From<WorkspaceError> for CliError {
    fn from(error: WorkspaceError) -> Self {
        let hint = match &error {
            WorkspaceError::Syntax { .. } => Some("mend the file by hand; nothing was overwritten"),
            WorkspaceError::Full { .. } => Some("make room and run the same command again"),
            WorkspaceError::Locked { .. } => {
                Some("wait for the other command to end, then run this one again")
            }
            WorkspaceError::Keyring { .. } => Some("keep the session in a file with `--store file`"),
            _ => None,
        };
        let wrapped = Self::failed(error.to_string()).because(error);
        match hint {
            Some(hint) => wrapped.hint(hint),
            None => wrapped,
        }
    }
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> Self {
        let kind = match &error {
            ImageError::BuildFailed { .. } => Kind::BuildFailed,
            ImageError::PushRefused { .. }
            | ImageError::PushFailed { .. }
            | ImageError::DigestMismatch { .. } => Kind::PushFailed,
            _ => Kind::Failed,
        };
        let log_tail = match &error {
            ImageError::BuildFailed { log_tail, .. } => log_tail.clone(),
            _ => Vec::new(),
        };
        let hint = error.hint();
        let is_changed = matches!(error, ImageError::ContextChanged { .. });
        let failure = Self::new(kind, error.to_string())
            .because(error)
            .details(log_tail);
        let failure = if is_changed {
            failure.code(CONTEXT_CHANGED)
        } else {
            failure
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Problem { problem, .. } => Self::from_problem(&problem),
            ClientError::Unreachable { .. } => Self::new(Kind::Unreachable, text).because(error).hint(
                "start a server with `systemprompt serve`, or name another one with `--server URL`",
            ),
            ClientError::Untrusted { .. } => Self::new(Kind::Unreachable, text)
                .code("certificate-untrusted")
                .because(error)
                .hint("if the server is yours, name the authority that signed it with `--ca-file FILE`"),
            ClientError::TimedOut { .. } | ClientError::Broken { .. } => Self::new(Kind::Unreachable, text)
                .because(error)
                .hint("look at the server with `systemprompt doctor`"),
            ClientError::Redirected { ref location, .. } => {
                let hint = format!("if that is the server, name it with `--server {location}`");
                Self::failed(text).because(error).hint(hint)
            }
            ClientError::Unexpected { .. } => {
                Self::failed(text).hint("check the address that `--server` or `SYSTEMPROMPT_API_URL` names")
            }
            ClientError::SignedOut { .. } => Self::new(Kind::NotAllowed, text)
                .code("signed-out")
                .hint("sign in with `systemprompt login`"),
            ClientError::SessionEnded { .. } => Self::new(Kind::NotAllowed, text)
                .code("session-ended")
                .hint("sign in again with `systemprompt login`"),
            ClientError::TokenRefused { .. } => Self::new(Kind::NotAllowed, text)
                .code("token-refused")
                .hint("the token in `SYSTEMPROMPT_TOKEN`, or the one given to `login --with-token`, has ended or was revoked"),
            ClientError::OAuth { ref code, .. } => Self::new(Kind::NotAllowed, text).code(code.clone()),
            ClientError::StillRunning { ref operation, .. } => Self::failed(text)
                .code("still-running")
                .hint(format!("the work goes on; see how it ends with `systemprompt operation show {operation} --follow`")),
            ClientError::Setup { .. } | ClientError::Store(_) => Self::failed(text).because(error),
        }
    }
}

impl CliError {
    /// What the server refused, in its own words.
    fn from_problem(problem: &Problem) -> Self {
        let kind = match problem.status {
            401 | 403 => Kind::NotAllowed,
            402 => Kind::Payment,
            404 | 410 => Kind::NotFound,
            409 => Kind::Conflict,
            400 | 422 if !problem.errors.is_empty() => Kind::Usage,
            _ => Kind::Failed,
        };
        let message = if problem.detail.is_empty() {
            &problem.title
        } else {
            &problem.detail
        };
        let fields = problem
            .errors
            .iter()
            .map(|field| format!("{}: {}", field.pointer.trim_start_matches("#/"), field.detail))
            // A refusal of one field has said it all.
            .filter(|line| message.replace('`', "") != line.replace('`', ""));
        let mut error = Self::new(kind, message.as_str()).details(fields);
        if !problem.code.is_empty() {
            error = error.code(problem.code.as_str());
        }
        if problem.status >= 500 && !problem.request_id.is_empty() {
            error = error.request(problem.request_id.as_str());
        }
        match &problem.hint {
            Some(hint) => error.hint(hint.as_str()),
            None if problem.status == 401 => error.hint("sign in with `systemprompt login`"),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CliError, Kind};

    #[test]
    fn a_cause_that_repeats_the_message_is_left_out() {
        let cause = std::io::Error::other("disk is full");
        let error = CliError::failed("failed to write `tenants.json`").because(cause);
        assert_eq!(error.causes(), ["disk is full"]);
        let error = CliError::failed("disk is full").because(std::io::Error::other("disk is full"));
        assert!(error.causes().is_empty());
    }

    #[test]
    fn the_refusal_of_one_field_is_told_once() {
        let problem = |detail: &str| {
            serde_json::from_value(serde_json::json!({
                "type": "about:blank", "title": "refused", "status": 422, "detail": detail, "code": "invalid-request",
                "request_id": "", "retryable": false,
                "errors": [{"pointer": "#/memory_mb", "detail": "256 to 8192, as `256`"}],
            }))
            .expect("a problem")
        };
        let error = CliError::from_problem(&problem("`memory_mb`: 256 to 8192, as `256`"));
        assert!(error.detail_lines().is_empty());
        let error = CliError::from_problem(&problem("two fields are refused"));
        assert_eq!(error.detail_lines(), ["memory_mb: 256 to 8192, as `256`"]);
    }

    #[test]
    fn the_document_carries_the_exit_code() {
        let document = CliError::new(Kind::NotFound, "no tenant `x`").document();
        assert_eq!(document["error"]["exit_code"], 4);
        assert_eq!(document["error"]["code"], "not-found");
    }
}
