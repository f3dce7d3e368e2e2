//! Sends one call: authorization, idempotency key, retries, and the server's refusals as errors.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::header::{ACCEPT, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::api::oauth::OAuthError;
use crate::api::problem::Problem;
use crate::api::secret::SecretText;
use crate::client::Client;
use crate::client::error::ClientError;

/// Tries on a server that never answered: it is most likely not there.
const PATIENCE_FIRST: Duration = Duration::from_secs(2);
/// Tries to learn what became of a change that a server took before it was gone.
const PATIENCE_TAKEN: Duration = Duration::from_secs(20);
/// Tries on a server that answered before: it is most likely being restarted.
const PATIENCE_LATER: Duration = Duration::from_secs(60);
/// Nobody waits longer than this because a server said so.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);

/// One call.
pub(super) struct Call<'a> {
    method: Method,
    pub(super) path: &'a str,
    query: Option<String>,
    body: Body,
    authorized: bool,
    /// Sent with every try of a mutating call, so that a lost answer does not do the work twice.
    key: Option<String>,
    retried: bool,
}

enum Body {
    None,
    Json(Vec<u8>),
    Form(String),
}

impl<'a> Call<'a> {
    /// A call that only looks.
    pub(super) const fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            query: None,
            body: Body::None,
            authorized: true,
            key: None,
            retried: true,
        }
    }

    /// A call that changes something; it gets its key when it is sent.
    pub(super) fn change(method: Method, path: &'a str) -> Self {
        Self {
            method,
            ..Self::get(path)
        }
    }

    /// A call of the OAuth routes: a form, without a token.
    pub(super) fn form<T: Serialize>(path: &'a str, form: &T) -> Result<Self, ClientError> {
        let body = serde_urlencoded(form, path)?;
        Ok(Self {
            method: Method::POST,
            body: Body::Form(body),
            authorized: false,
            ..Self::get(path)
        })
    }

    pub(super) fn query<T: Serialize>(mut self, query: &T) -> Result<Self, ClientError> {
        let text = serde_urlencoded(query, self.path)?;
        self.query = Some(text).filter(|text| !text.is_empty());
        Ok(self)
    }

    pub(super) fn json<T: Serialize>(mut self, body: &T) -> Result<Self, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(|error| ClientError::Setup {
            what: format!("the body of a call to `{}`", self.path),
            source: Box::new(error),
        })?;
        self.body = Body::Json(bytes);
        Ok(self)
    }

    /// A call that needs no token.
    pub(super) const fn open(mut self) -> Self {
        self.authorized = false;
        self
    }

    /// Tried once; the caller has its own way of trying again.
    pub(super) const fn once(mut self) -> Self {
        self.retried = false;
        self
    }

    /// Whether doing it twice is the same as doing it once.
    fn is_repeatable(&self) -> bool {
        self.retried && (self.method == Method::GET || self.key.is_some())
    }
}

fn serde_urlencoded<T: Serialize>(value: &T, path: &str) -> Result<String, ClientError> {
    let setup = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Setup {
        what: format!("the parameters of a call to `{path}`"),
        source,
    };
    let value = serde_json::to_value(value).map_err(|error| setup(Box::new(error)))?;
    let mut text = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::String(value) => {
                text.append_pair(name, value);
            }
            other => {
                text.append_pair(name, &other.to_string());
            }
        }
    }
    Ok(text.finish())
}

impl Client {
    /// Sends a call and reads its JSON answer.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ClientError> {
        let path = call.path;
        let bytes = self.call_bytes(call).await?;
        self.read(path, &bytes)
    }

    pub(super) fn read<T: DeserializeOwned>(&self, path: &str, bytes: &[u8]) -> Result<T, ClientError> {
        // An answer without content stands for `null`, so that nothing can be asked for too.
        let json = if bytes.is_empty() { b"null" } else { bytes };
        serde_json::from_slice(json).map_err(|error| ClientError::Unexpected {
            url: format!("{}{path}", self.inner.name),
            what: error.to_string(),
        })
    }

    async fn call_bytes(&self, mut call: Call<'_>) -> Result<bytes::Bytes, ClientError> {
        if call.method != Method::GET && call.authorized {
            call.key = Some(self.inner.clock.uuid().to_string());
        }
        let call = &call;
        let began = Instant::now();
        let backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(3))
            .with_max_times(100);
        (|| self.call_once(call))
            .retry(backoff)
            .when(|error: &ClientError| {
                call.is_repeatable() && error.is_passing() && began.elapsed() < self.patience(error)
            })
            .adjust(|error: &ClientError, pause| match error {
                ClientError::Problem {
                    retry_after: Some(wanted),
                    ..
                } => Some(*wanted),
                _ => pause,
            })
            .notify(|error: &ClientError, _| {
                if began.elapsed() >= PATIENCE_FIRST {
                    (self.inner.notice)(&format!("{error}; trying again"));
                }
            })
            .await
    }

    fn patience(&self, error: &ClientError) -> Duration {
        match error {
            ClientError::Problem { .. } => PATIENCE_LATER,
            _ if self.inner.answered.load(Ordering::Relaxed) => PATIENCE_LATER,
            _ if self.inner.taken.load(Ordering::Relaxed) => PATIENCE_TAKEN,
            _ => PATIENCE_FIRST,
        }
    }

    /// One try; a refused access token is renewed once, silently.
    async fn call_once(&self, call: &Call<'_>) -> Result<bytes::Bytes, ClientError> {
        let token = if call.authorized {
            Some(self.access_token().await?)
        } else {
            None
        };
        match self.exchange(call, token.as_ref()).await {
            Err(error) if error.is_unauthorized() => {
                let Some(token) = token else { return Err(error) };
                match self.renewed(&token).await? {
                    Some(token) => self.exchange(call, Some(&token)).await,
                    None => Err(ClientError::TokenRefused {
                        server: self.inner.name.clone(),
                    }),
                }
            }
            answer => answer,
        }
    }

    pub(super) async fn exchange(
        &self,
        call: &Call<'_>,
        token: Option<&SecretText>,
    ) -> Result<bytes::Bytes, ClientError> {
        let url = self.url(call.path, call.query.as_deref());
        let request = self
            .inner
            .http
            .request(call.method.clone(), url)
            .header(ACCEPT, "application/json");
        let request = match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let request = match &call.body {
            Body::None => request,
            Body::Json(bytes) => request
                .header("content-type", "application/json")
                .body(bytes.clone()),
            Body::Form(text) => request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(text.clone()),
        };
        let request = match &call.key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let response = request.send().await.map_err(|error| {
            if call.key.is_some() && !error.is_connect() {
                self.inner.taken.store(true, Ordering::Relaxed);
            }
            self.lost(error)
        })?;
        let response = self.accepted(response).await?;
        response.bytes().await.map_err(|error| self.lost(error))
    }

    /// The URL of a route; the server may live below a path.
    pub(super) fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.inner.server.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url.set_query(query);
        url
    }

    /// The connection failed under a call.
    pub(super) fn lost(&self, error: reqwest::Error) -> ClientError {
        ClientError::from_reqwest(&self.inner.name, error)
    }

    /// Lets a good answer through and makes an error of every other.
    pub(super) async fn accepted(&self, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            self.inner.answered.store(true, Ordering::Relaxed);
            return Ok(response);
        }
        let url = response.url().to_string();
        if status.is_redirection() {
            let location = header(&response, LOCATION).unwrap_or_else(|| "nowhere".to_owned());
            return Err(ClientError::Redirected {
                server: self.inner.name.clone(),
                location,
            });
        }
        let retry_after = header(&response, RETRY_AFTER)
            .and_then(|text| text.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
        let body = response.bytes().await.map_err(|error| self.lost(error))?;
        Err(refusal(&url, status, &body, retry_after))
    }
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn refusal(url: &str, status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> ClientError {
    if let Ok(OAuthError {
        error,
        error_description,
    }) = serde_json::from_slice(body)
    {
        return ClientError::OAuth {
            code: error,
            description: error_description,
        };
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => ClientError::Problem {
            problem: Box::new(problem),
            retry_after,
        },
        // A proxy in between does not speak our language; what it means is in its status.
        Err(_) if matches!(status.as_u16(), 401 | 429 | 502..=504) => ClientError::Problem {
            problem: Box::new(Problem {
                kind: "about:blank".to_owned(),
                title: status.canonical_reason().unwrap_or("refused").to_owned(),
                status: status.as_u16(),
                detail: format!("{url} answered {status}"),
                code: String::new(),
                hint: None,
                request_id: String::new(),
                retryable: true,
                errors: Vec::new(),
            }),
            retry_after,
        },
        Err(_) => ClientError::Unexpected {
            url: url.to_owned(),
            what: format!("it says {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{refusal, serde_urlencoded};
    use crate::client::error::ClientError;
    use reqwest::StatusCode;

    #[test]
    fn parameters_that_are_absent_are_left_out() {
        let query = serde_json::json!({"since": 4, "limit": null, "source": "a b"});
        assert_eq!(
            serde_urlencoded(&query, "/x").expect("encodes"),
            "since=4&source=a+b"
        );
    }

    #[test]
    fn a_proxy_that_is_down_is_a_passing_problem() {
        let error = refusal("http://x/y", StatusCode::BAD_GATEWAY, b"<html>", None);
        assert!(error.is_passing());
        let error = refusal("http://x/y", StatusCode::IM_A_TEAPOT, b"<html>", None);
        assert!(matches!(error, ClientError::Unexpected { .. }));
    }

    #[test]
    fn refusals_of_both_kinds_are_told_apart() {
        let error = refusal(
            "http://x",
            StatusCode::BAD_REQUEST,
            br#"{"error":"slow_down"}"#,
            None,
        );
        assert_eq!(error.code(), Some("slow_down"));
        let body = br#"{"type":"about:blank","title":"Not found","status":404,"code":"not-found"}"#;
        let error = refusal("http://x", StatusCode::NOT_FOUND, body, None);
        assert_eq!((error.status(), error.code()), (Some(404), Some("not-found")));
    }
}
