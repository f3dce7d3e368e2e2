//! Errors on their way out: what modules report becomes one problem document (RFC 9457). Internals stay in the log.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::member::Role;
use crate::api::oauth::Scope;
use crate::api::problem::{FieldError, Problem};
use crate::server::auth::AuthError;
use crate::server::billing::BillingError;
use crate::server::http::problem::{self, Kind};
use crate::server::provision::{DecideError, EnqueueError, LogError, RollbackError, SecretError};
use crate::server::registry::GateError;
use crate::server::store::StoreError;

/// What a handler answers instead of a result.
#[derive(Debug)]
pub struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    problem: Problem,
    status: StatusCode,
    headers: HeaderMap,
}

/// What every handler answers.
pub type Answer<T> = Result<T, ApiError>;

impl ApiError {
    /// A problem of that kind; `detail` says what happened this time.
    #[must_use]
    pub fn new(kind: &Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            problem: Problem {
                kind: kind.uri(),
                title: kind.title.to_owned(),
                status: kind.status.as_u16(),
                detail: detail.into(),
                code: kind.code.to_owned(),
                hint: None,
                request_id: String::new(),
                retryable: kind.retryable,
                errors: Vec::new(),
            },
            status: kind.status,
            headers: HeaderMap::new(),
        }))
    }

    /// The same with the next command, or the field to mend.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.problem.hint = Some(hint.into());
        self
    }

    /// The same with a more exact code than its kind has.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.0.problem.code = code.into();
        self
    }

    /// The same with one refused field more; `pointer` is a JSON Pointer without its `#`.
    #[must_use]
    pub fn field(mut self, pointer: impl AsRef<str>, detail: impl Into<String>) -> Self {
        self.0.problem.errors.push(FieldError {
            pointer: format!("#{}", pointer.as_ref()),
            detail: detail.into(),
        });
        self
    }

    /// The same with one header more; a value that no header can hold is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.insert(name, value);
        }
        self
    }

    /// The document, for somebody else who is to hear the same.
    #[must_use]
    pub fn problem(&self) -> Problem {
        self.0.problem.clone()
    }

    /// The same answer once more.
    #[must_use]
    pub fn from_problem(problem: Problem) -> Self {
        Self(Box::new(Parts {
            status: StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: HeaderMap::new(),
            problem,
        }))
    }

    /// The status that it answers with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// A refused field of the body.
    #[must_use]
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self::new(&problem::INVALID_REQUEST, format!("`{field}`: {detail}"))
            .field(format!("/{field}"), detail)
    }

    /// Nothing that this caller may know of.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(&problem::NOT_FOUND, format!("no {what} of that id"))
    }

    /// Something broke that the caller can do nothing about: the chain of causes goes to the log.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = chain(error), "a request failed");
        Self::new(
            &problem::INTERNAL,
            "the server failed to answer; its log has the cause",
        )
        .hint("try again; if it stays, give the operator the request id")
    }

    /// A part that the server stands on does not answer now.
    #[must_use]
    pub fn unavailable(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error = chain(error), part = what, "a part does not answer");
        Self::new(&problem::UNAVAILABLE, format!("{what} does not answer now")).hint("try again in a moment")
    }
}

/// An error with all its causes in one line, for the log.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl IntoResponse for ApiError {
    /// The document rides along as an extension: the outermost layer adds the request's id and writes it.
    fn into_response(self) -> Response {
        let parts = *self.0;
        let mut response = parts.status.into_response();
        response.headers_mut().extend(parts.headers);
        response.extensions_mut().insert(parts.problem);
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let Some(trouble) = error.trouble() {
            tracing::warn!(error = chain(&error), "the database {trouble}");
            return Self::new(&problem::UNAVAILABLE, format!("the database {trouble}"))
                .hint("nothing was changed; tell the server's operator, and try again later");
        }
        if error.is_away() {
            return Self::unavailable("the database", &error);
        }
        Self::internal(&error)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let text = error.to_string();
        match error {
            AuthError::Unauthenticated(_) => Self::new(&problem::UNAUTHENTICATED, text)
                .hint("run `systemprompt login`")
                .header(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\""),
            AuthError::MissingScope(scope) => missing_scope(scope, text),
            AuthError::MissingRole { needs, .. } => Self::new(&problem::FORBIDDEN, text).hint(format!(
                "an owner of the tenant can give it to you: `systemprompt tenant members set-role EMAIL {needs}`"
            )),
            AuthError::BeyondSupport { needs, .. } => Self::new(&problem::FORBIDDEN, text).hint(
                if needs == Role::Owner {
                    "support never does this: it is an owner's alone"
                } else {
                    "an owner can let you in further: `systemprompt tenant support open --access full --for 2h`"
                },
            ),
            AuthError::Forbidden(_) => Self::new(&problem::FORBIDDEN, text),
            AuthError::NotFound { what } => Self::not_found(what),
            AuthError::Invalid { field, detail } => Self::invalid(field, detail),
            AuthError::AccountExists(_) => Self::new(&problem::ACCOUNT_EXISTS, text),
            AuthError::TooManyTries { wait_seconds } => Self::new(&problem::RATE_LIMITED, text)
                .hint(format!("try again in {wait_seconds} s"))
                .header(header::RETRY_AFTER, &wait_seconds.to_string()),
            AuthError::Store(error) => error.into(),
            AuthError::KeyFile { .. }
            | AuthError::Hash(_)
            | AuthError::Sign(_)
            | AuthError::RotatedElsewhere
            | AuthError::SealedElsewhere
            | AuthError::Seal => Self::internal(&error),
        }
    }
}

fn missing_scope(scope: Scope, text: String) -> ApiError {
    let scope = scope.as_str();
    ApiError::new(&problem::FORBIDDEN, text)
        .hint(format!("use a token that has `{scope}`"))
        .header(
            header::WWW_AUTHENTICATE,
            &format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
        )
}

impl From<BillingError> for ApiError {
    fn from(error: BillingError) -> Self {
        let text = error.to_string();
        match error {
            BillingError::Invalid { field, detail } => Self::invalid(field, detail),
            BillingError::PlanLimit { hint, .. } => Self::new(&problem::PLAN_LIMIT, text).hint(hint),
            BillingError::NameTaken(_) => Self::new(&problem::NAME_TAKEN, text)
                .field("/name", "is taken")
                .hint("choose another name"),
            BillingError::Closed => Self::new(&problem::CHECKOUT_CLOSED, text).hint("begin another purchase"),
            BillingError::Enqueue(error) => error.into(),
            BillingError::Store(error) => error.into(),
        }
    }
}

impl From<EnqueueError> for ApiError {
    fn from(error: EnqueueError) -> Self {
        let text = error.to_string();
        match error {
            EnqueueError::Busy(holder) => Self::new(&problem::TENANT_BUSY, text).hint(format!(
                "wait for it: `systemprompt operation show {}`",
                holder.id
            )),
            EnqueueError::NotNow { hint, .. } => Self::new(&problem::TENANT_STATE, text).hint(hint),
            EnqueueError::Store(error) => error.into(),
        }
    }
}

impl From<DecideError> for ApiError {
    fn from(error: DecideError) -> Self {
        let text = error.to_string();
        match error {
            DecideError::NotNow { hint, .. } => {
                Self::new(&problem::OPERATION_STATE, text.trim_end()).hint(hint)
            }
            DecideError::TooLate { hint, .. } => Self::new(&problem::OPERATION_STATE, text).hint(hint),
            DecideError::Busy => Self::new(&problem::TENANT_BUSY, text),
            DecideError::Store(error) => error.into(),
        }
    }
}

impl From<RollbackError> for ApiError {
    fn from(error: RollbackError) -> Self {
        let text = error.to_string();
        let state = |hint: &str| Self::new(&problem::RELEASE_STATE, text.clone()).hint(hint);
        match error {
            RollbackError::NothingServes => {
                Self::new(&problem::TENANT_STATE, text).hint("deploy an image: `systemprompt deploy`")
            }
            RollbackError::NoEarlier(_) => state("see all releases with `systemprompt releases`"),
            RollbackError::Unknown(_) => {
                Self::new(&problem::NOT_FOUND, text).hint("see all releases with `systemprompt releases`")
            }
            RollbackError::Serves(_) => {
                state("replace what runs by the same with `systemprompt tenant restart`")
            }
            RollbackError::NeverServed(_) => state("see which have served with `systemprompt releases`"),
            RollbackError::Store(error) => error.into(),
            RollbackError::Secrets(error) => error.into(),
            RollbackError::Gate(error) => error.into(),
        }
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Store(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let text = error.to_string();
        // The message carries its hint in a second line.
        let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        match error {
            LogError::NothingRan => Self::new(&problem::TENANT_STATE, what).hint(hint),
            LogError::Deleted => Self::new(&problem::NOT_FOUND, what),
            LogError::FromTheFuture { .. } => Self::invalid("after", what),
            LogError::Store(error) => error.into(),
        }
    }
}

impl From<GateError> for ApiError {
    fn from(error: GateError) -> Self {
        Self::unavailable("the registry", &error)
    }
}
