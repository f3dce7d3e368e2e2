//! Pages as answers: rendered, never cached, and the page that says what went wrong.

use askama::Template;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use crate::server::auth::AuthError;
use crate::server::billing::BillingError;
use crate::server::http::error::{ApiError, chain};
use crate::server::store::StoreError;

/// A page with one message and nothing to do on it.
#[derive(Template)]
#[template(path = "pages/message.html")]
pub(super) struct Message {
    /// What happened, in a few words.
    pub(super) title: String,
    /// What that means.
    pub(super) text: String,
    /// Whether it went as it should.
    pub(super) good: bool,
    /// Where the browser goes on to.
    pub(super) return_to: Option<String>,
}

/// A rendered page.
pub(super) struct Page<T>(pub(super) T);

impl<T: Template> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        match self.0.render() {
            Ok(html) => ([(header::CACHE_CONTROL, "no-store")], Html(html)).into_response(),
            Err(error) => {
                tracing::error!(error = chain(&error), "a page could not be rendered");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// Why a page could not be shown: told on a page.
pub(super) struct PageError {
    status: StatusCode,
    headers: Box<HeaderMap>,
    title: &'static str,
    text: String,
}

/// What every page answers.
pub(super) type Shown = Result<Response, PageError>;

impl PageError {
    /// A refusal in people's words.
    #[must_use]
    pub(super) fn new(status: StatusCode, title: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            headers: Box::default(),
            title,
            text: text.into(),
        }
    }

    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = chain(error), "a page could not be shown");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The server failed",
            "Try again. If it stays, the server's log has the cause.",
        )
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let page = Page(Message {
            title: self.title.to_owned(),
            text: self.text,
            good: false,
            return_to: None,
        });
        let mut response = (self.status, page).into_response();
        response.headers_mut().extend(*self.headers);
        response
    }
}

impl From<AuthError> for PageError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::TooManyTries { wait_seconds } => Self {
                text: format!(
                    "Wait {wait_seconds} s, then try again. A browser that has signed in to this account before does not \
                     wait for what others have typed elsewhere."
                ),
                ..ApiError::from(error).into()
            },
            error => Self::internal(&error),
        }
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<BillingError> for PageError {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::Store(error) => error.into(),
            refused => Self::new(
                StatusCode::CONFLICT,
                "This cannot be bought",
                sentence(&refused.to_string()),
            ),
        }
    }
}

/// Refusals of a limiter keep their headers: `Retry-After` and the rest.
impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        let response = error.into_response();
        Self {
            status: response.status(),
            headers: Box::new(response.headers().clone()),
            title: "Too many tries",
            text: "Wait a few minutes, then try again.".to_owned(),
        }
    }
}

/// A message of the code as a sentence for people: capital letter, full stop, no backticks.
fn sentence(message: &str) -> String {
    let plain = message.replace('`', "");
    let mut letters = plain.chars();
    let first = letters.next().map(char::to_uppercase);
    let mut text: String = first.into_iter().flatten().chain(letters).collect();
    if !text.ends_with('.') {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn messages_become_sentences() {
        assert_eq!(
            sentence("a tenant named `x` exists already"),
            "A tenant named x exists already."
        );
    }
}
