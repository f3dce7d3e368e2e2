//! Talks to the registry itself: whether it takes the credential, what it holds, and what it shall hold.

mod blobs;
mod stored;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;

use crate::api::secret::SecretText;
use crate::image::error::ImageError;
use crate::image::push::{Failure, PushRequest};

pub(super) use crate::image::push::registry::stored::{Descriptor, Layer, diff_ids};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// A registry that has let us in.
pub(super) struct Registry<'a> {
    request: &'a PushRequest,
    client: Client,
    base: Url,
    access: Access,
}

enum Access {
    Open,
    Basic,
    Bearer(SecretText),
}

impl<'a> Registry<'a> {
    /// Does what an engine does before a push, in milliseconds: `/v2/`, the challenge, the token.
    pub(super) async fn sign_in(request: &'a PushRequest) -> Result<Self, Failure> {
        let client = client(request)?;
        let (base, answer) = ping(&client, request).await?;
        let access = match answer.status() {
            StatusCode::OK => Access::Open,
            StatusCode::UNAUTHORIZED => {
                let challenge = challenge(&answer);
                match challenge.get("realm") {
                    Some(realm) => {
                        let service = challenge.get("service").map(String::as_str).unwrap_or_default();
                        let realm = allowed_realm(request, &base, realm)?;
                        Access::Bearer(token(&client, request, realm, service).await?)
                    }
                    None => {
                        let url = base
                            .join("/v2/")
                            .map_err(|error| Failure::Again(error.to_string()))?;
                        let basic = client
                            .get(url)
                            .basic_auth(&request.username, Some(request.password.expose()));
                        accepted(request, basic.send().await.map_err(again)?).await?;
                        Access::Basic
                    }
                }
            }
            status => return Err(Failure::Again(format!("`{base}v2/` answers {status}"))),
        };
        Ok(Self {
            request,
            client,
            base,
            access,
        })
    }

    /// What is pushed, and where to.
    pub(super) fn request(&self) -> &'a PushRequest {
        self.request
    }

    /// A request about the repository, with our right to make it.
    fn ask(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let path = format!("/v2/{}/{path}", self.request.repository);
        let url = self.base.join(&path);
        Ok(self.ask_at(method, url.map_err(|error| Failure::Again(error.to_string()))?))
    }

    fn ask_at(&self, method: Method, url: Url) -> RequestBuilder {
        let asked = self.client.request(method, url);
        match &self.access {
            Access::Open => asked,
            Access::Basic => asked.basic_auth(&self.request.username, Some(self.request.password.expose())),
            Access::Bearer(token) => asked.bearer_auth(token.expose()),
        }
    }

    fn get(&self, path: &str) -> Result<RequestBuilder, Failure> {
        self.ask(Method::GET, path)
    }

    async fn accepted(&self, answer: Response) -> Result<Response, Failure> {
        accepted(self.request, answer).await
    }
}

fn client(request: &PushRequest) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .redirect(reqwest::redirect::Policy::none());
    if is_loopback(&request.registry) {
        builder = builder.no_proxy();
    }
    if let Some(path) = &request.ca_file {
        let pem = std::fs::read(path)
            .map_err(ImageError::file("read", path))
            .map_err(Failure::Final)?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(again)?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(again)
}

/// Engines speak plain HTTP to registries on loopback only, and so do we.
async fn ping(client: &Client, request: &PushRequest) -> Result<(Url, Response), Failure> {
    let schemes: &[&str] = if is_loopback(&request.registry) {
        &["http", "https"]
    } else {
        &["https"]
    };
    let mut failure = Failure::Again(String::new());
    for scheme in schemes {
        let base = format!("{scheme}://{}/", request.registry);
        let base = Url::parse(&base).map_err(|error| Failure::Again(format!("`{base}`: {error}")))?;
        let url = base
            .join("v2/")
            .map_err(|error| Failure::Again(error.to_string()))?;
        match client.get(url).send().await {
            Ok(answer) if answer.status() != StatusCode::BAD_REQUEST => return Ok((base, answer)),
            Ok(answer) => failure = Failure::Again(format!("`{base}v2/` answers {}", answer.status())),
            Err(error) => failure = again(error),
        }
    }
    Err(failure)
}

/// A registry behind TLS may not send the credential over a plain connection.
fn allowed_realm(request: &PushRequest, base: &Url, realm: &str) -> Result<Url, Failure> {
    let refused = |message: String| {
        Failure::Final(ImageError::PushRefused {
            registry: request.registry.clone(),
            message,
        })
    };
    let realm = Url::parse(realm).map_err(|_| refused(format!("its sign-in address `{realm}` is no URL")))?;
    if base.scheme() == "https" && realm.scheme() != "https" {
        return Err(refused(format!(
            "it asks to send the credential to `{realm}` without TLS"
        )));
    }
    Ok(realm)
}

async fn token(
    client: &Client,
    request: &PushRequest,
    mut realm: Url,
    service: &str,
) -> Result<SecretText, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<SecretText>,
        access_token: Option<SecretText>,
    }
    realm
        .query_pairs_mut()
        .append_pair("account", &request.username)
        .append_pair("scope", &format!("repository:{}:pull,push", request.repository))
        .append_pair("service", service);
    let get = client
        .get(realm)
        .basic_auth(&request.username, Some(request.password.expose()));
    let answer = accepted(request, get.send().await.map_err(again)?).await?;
    let answer: Answer = answer.json().await.map_err(again)?;
    let token = answer
        .token
        .or(answer.access_token)
        .ok_or_else(|| Failure::Again("the registry's sign-in answers without a token".to_owned()))?;
    if grants(token.expose(), &request.repository) == Some(false) {
        return Err(Failure::Final(ImageError::PushRefused {
            registry: request.registry.clone(),
            message: format!(
                "the credential gives no right to push to `{}`",
                request.repository
            ),
        }));
    }
    Ok(token)
}

/// Whether a token says that it may push; a token that is no JWT says nothing. A registry answers a wish that it
/// does not grant with a smaller token, not with an error.
fn grants(token: &str, repository: &str) -> Option<bool> {
    #[derive(Deserialize)]
    struct Claims {
        access: Vec<Grant>,
    }
    #[derive(Deserialize)]
    struct Grant {
        name: String,
        actions: Vec<String>,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let is_push =
        |grant: &Grant| grant.name == repository && grant.actions.iter().any(|action| action == "push");
    Some(claims.access.iter().any(is_push))
}

async fn accepted(request: &PushRequest, answer: Response) -> Result<Response, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    let message = told(&text).unwrap_or_else(|| status.to_string());
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Final(ImageError::PushRefused {
            registry: request.registry.clone(),
            message,
        }),
        _ => Failure::Again(format!("the registry answers {status}: {message}")),
    })
}

/// What a registry, or an API, says in the body of an error.
fn told(text: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    let message = document
        .pointer("/errors/0/message")
        .or_else(|| document.get("detail"))
        .or_else(|| document.get("details"))?;
    message
        .as_str()
        .filter(|message| !message.is_empty())
        .map(str::to_owned)
}

/// The parameters of a `Bearer` challenge; nothing for other kinds.
fn challenge(answer: &Response) -> std::collections::BTreeMap<String, String> {
    let header = answer
        .headers()
        .get(http::header::WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok());
    parameters(header.unwrap_or_default())
}

fn parameters(header: &str) -> std::collections::BTreeMap<String, String> {
    let Some((scheme, mut rest)) = header.split_once(' ') else {
        return Default::default();
    };
    let mut parameters = std::collections::BTreeMap::new();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return parameters;
    }
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some((value, behind)) = after.split_once('"') else {
            break;
        };
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        parameters.insert(name, value.to_owned());
        rest = behind;
    }
    parameters
}

/// Whether the registry is on this machine.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.starts_with("127.") || host == "[::1]"
}

fn again(error: reqwest::Error) -> Failure {
    // The chain ends in what a person understands: connection refused, a certificate, a time-out.
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    Failure::Again(text)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{grants, is_loopback, parameters, told};

    #[test]
    fn reads_a_challenge() {
        let header = "Bearer realm=\"http://h/v2/token\",service=\"h\", scope=\"repository:a:pull,push\"";
        let parameters_read = parameters(header);
        assert_eq!(
            parameters_read.get("realm").map(String::as_str),
            Some("http://h/v2/token")
        );
        assert_eq!(
            parameters_read.get("scope").map(String::as_str),
            Some("repository:a:pull,push")
        );
        assert!(parameters("Basic realm=\"x\"").is_empty());
        assert!(parameters("Bearer realm=\"open").is_empty());
    }

    #[test]
    fn sees_what_a_token_grants() {
        let token = |access: &str| {
            format!(
                "x.{}.y",
                URL_SAFE_NO_PAD.encode(format!("{{\"access\":{access}}}"))
            )
        };
        let push = r#"[{"type":"repository","name":"a","actions":["pull","push"]}]"#;
        assert_eq!(grants(&token(push), "a"), Some(true));
        assert_eq!(grants(&token(push), "b"), Some(false));
        assert_eq!(grants(&token("[]"), "a"), Some(false));
        assert_eq!(grants("opaque", "a"), None);
    }

    #[test]
    fn tells_what_the_registry_told() {
        assert_eq!(
            told(r#"{"errors":[{"code":"DENIED","message":"no"}]}"#).as_deref(),
            Some("no")
        );
        assert_eq!(told(r#"{"detail":"gone"}"#).as_deref(), Some("gone"));
        assert_eq!(told("<html>"), None);
    }

    #[test]
    fn knows_this_machine() {
        assert!(is_loopback("127.0.0.1:8787") && is_loopback("localhost") && is_loopback("[::1]:1"));
        assert!(!is_loopback("registry.example:127") && !is_loopback("10.0.0.1:5000"));
    }
}
