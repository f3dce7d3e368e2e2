//! Asking those who vouch for others: bounded in time and length, and never elsewhere than where one wanted to.

use std::time::Duration;

use reqwest::header;
use serde::de::DeserializeOwned;

use crate::api::secret::SecretText;

const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest document that is read, in bytes.
const LONGEST: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// It cannot be had, or nobody can read it.
    Unwell(String),
    /// It is a refusal, with its word (RFC 6749 section 5.2).
    Refused(String),
}

/// What is asked with.
#[derive(Clone)]
pub(super) struct Asking(Option<reqwest::Client>);

impl Asking {
    /// Follows nobody to other addresses.
    pub(super) fn new() -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("systemprompt/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .build();
        Self(http.ok())
    }

    fn http(&self) -> Result<&reqwest::Client, AskError> {
        let none = || AskError::Unwell("there is no client to ask with".to_owned());
        self.0.as_ref().ok_or_else(none)
    }

    /// Reads a document, with a token where one is needed.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        url: &str,
        bearer: Option<&SecretText>,
    ) -> Result<T, AskError> {
        let request = self.http()?.get(url).header(header::ACCEPT, "application/json");
        answer(
            url,
            match bearer {
                Some(token) => request.bearer_auth(token.expose()),
                None => request,
            },
        )
        .await
    }

    /// Sends a form.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        url: &str,
        form: &[(&str, &str)],
        authorization: Option<&SecretText>,
    ) -> Result<T, AskError> {
        let request = self
            .http()?
            .post(url)
            .form(form)
            .header(header::ACCEPT, "application/json");
        answer(
            url,
            match authorization {
                Some(authorization) => request.header(header::AUTHORIZATION, authorization.expose()),
                None => request,
            },
        )
        .await
    }
}

async fn answer<T: DeserializeOwned>(url: &str, request: reqwest::RequestBuilder) -> Result<T, AskError> {
    let unwell = |error: reqwest::Error| {
        AskError::Unwell(format!("`{url}` does not answer well: {}", error.without_url()))
    };
    let mut answer = request.send().await.map_err(unwell)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unwell)? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST {
            let why = format!("`{url}` answers with more than {LONGEST} bytes");
            return Err(AskError::Unwell(why));
        }
    }
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| AskError::Unwell(format!("`{url}` does not answer as it should: {error}")));
    }
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    match word(told["error"].as_str().unwrap_or_default()) {
        word if status.is_client_error() && !word.is_empty() => Err(AskError::Refused(word)),
        word => Err(AskError::Unwell(format!(
            "`{url}` answers {}: `{word}`",
            status.as_u16()
        ))),
    }
}

/// The word of a refusal; whatever else stands there is not for a log.
pub(super) fn word(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_lowercase() || *c == '_';
    text.chars().filter(plain).take(64).collect()
}
