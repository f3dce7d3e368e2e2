//! Pushes an image through the engine. The credential goes in one header: never into an argument or a file.

mod lines;
mod registry;

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::BollardRequest;
use bollard::errors::Error as DockerError;
use futures::StreamExt as _;
use http::{HeaderValue, Method};
use serde_json::json;

use crate::api::secret::SecretText;
use crate::image::context::size;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};
use crate::image::push::lines::Lines;
use crate::image::push::registry::Registry;

const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
const ID: &str = "push";

/// What to push, and by what right.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Host and port of the registry.
    pub registry: String,
    /// The repository in it.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Goes with the password.
    pub username: String,
    /// What the registry minted for this push.
    pub password: SecretText,
    /// Private certificate authorities (PEM) to trust when the registry is asked.
    pub ca_file: Option<PathBuf>,
}

/// What the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:…` of the manifest, the same on both sides.
    pub digest: String,
    /// What a machine has to download: configuration and layers.
    pub size_bytes: u64,
}

/// One attempt's failure.
enum Failure {
    /// The next one may succeed.
    Again(String),
    /// None will.
    Final(ImageError),
}

/// Pushes the image that the engine knows as `registry/repository:tag`, again when the connection breaks: layers that
/// arrived are not sent twice.
pub async fn push(
    engine: &Engine,
    request: &PushRequest,
    progress: &dyn Progress,
) -> Result<Pushed, ImageError> {
    check_reach(engine, &request.registry)?;
    let label = format!("Pushing to {}", request.registry);
    progress.report(ProgressEvent::Started {
        id: ID.to_owned(),
        label,
        total_bytes: None,
    });
    let mut message = String::new();
    for attempt in 1..=ATTEMPTS {
        if attempt > 1 {
            let text = format!("the push broke off ({message}); attempt {attempt} of {ATTEMPTS}");
            progress.report(ProgressEvent::Line {
                id: ID.to_owned(),
                text,
            });
            tokio::time::sleep(PAUSE * 3_u32.pow(attempt - 2)).await;
        }
        match push_once(engine, request, progress).await {
            Ok(pushed) => {
                let summary = format!("{} as {}", size(pushed.size_bytes), pushed.digest);
                progress.report(ProgressEvent::Finished {
                    id: ID.to_owned(),
                    summary,
                });
                return Ok(pushed);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(why)) => message = why,
        }
    }
    Err(ImageError::PushFailed {
        registry: request.registry.clone(),
        attempts: ATTEMPTS,
        message,
    })
}

/// A registry on this machine's loopback is not there for an engine on another machine.
fn check_reach(engine: &Engine, registry: &str) -> Result<(), ImageError> {
    if !engine.endpoint().is_remote() || !registry::is_loopback(registry) {
        return Ok(());
    }
    Err(ImageError::Endpoint {
        what: format!(
            "the Docker Engine at `{}` runs on another machine and cannot reach the registry at `{registry}`",
            engine.endpoint().host
        ),
        hint: "use an engine on this machine, or give the server a name that both can reach (`serve --public-url`)"
            .to_owned(),
    })
}

async fn push_once(
    engine: &Engine,
    request: &PushRequest,
    progress: &dyn Progress,
) -> Result<Pushed, Failure> {
    // The engine answers a bad credential with 50 s of retries; the registry itself says so at once.
    let registry = Registry::sign_in(request).await?;
    let mut lines = Lines::new(progress);
    let mut answer = Box::pin(start(engine, request));
    while let Some(piece) = answer.next().await {
        lines.take(&piece.map_err(|error| broken(request, error))?);
    }
    if let Some(message) = lines.error() {
        return Err(refusal(request, message));
    }
    let stored = registry.manifest(request).await?;
    // Some engines do not say what they pushed; then what the registry holds is all there is to know.
    if let Some(pushed) = lines
        .digest(&request.tag)
        .filter(|pushed| *pushed != stored.digest)
    {
        return Err(Failure::Final(ImageError::DigestMismatch {
            pushed: pushed.to_owned(),
            stored: stored.digest,
        }));
    }
    Ok(stored)
}

/// Sends the push by hand: bollard's own drops the ids of layers and the digest from the answer. Its export of an
/// image is the one call that gives the raw answer over every kind of connection, so that request is rewritten.
fn start(
    engine: &Engine,
    request: &PushRequest,
) -> impl futures::Stream<Item = Result<bytes::Bytes, DockerError>> + use<> {
    let name = format!("{}/{}", request.registry, request.repository);
    let path = format!("/images/{name}/push?tag={}", request.tag);
    let credential = auth_header(request);
    let docker = engine
        .patient()
        .with_request_modifier(move |request| to_push(request, &path, &credential));
    docker.export_image(&name)
}

fn to_push(mut request: BollardRequest, path: &str, credential: &SecretText) -> BollardRequest {
    let mut uri = request.uri().clone().into_parts();
    uri.path_and_query = path.parse().ok();
    if let Ok(uri) = http::Uri::from_parts(uri) {
        *request.uri_mut() = uri;
        *request.method_mut() = Method::POST;
    }
    if let Ok(mut value) = HeaderValue::from_str(credential.expose()) {
        value.set_sensitive(true);
        request.headers_mut().insert("x-registry-auth", value);
    }
    request
}

/// base64url with padding: engines drop anything else without a word.
fn auth_header(request: &PushRequest) -> SecretText {
    let document = json!({
        "username": request.username,
        "password": request.password.expose(),
        "serveraddress": request.registry,
    });
    SecretText::new(URL_SAFE.encode(document.to_string()))
}

fn broken(request: &PushRequest, error: DockerError) -> Failure {
    match error {
        DockerError::DockerResponseServerError {
            status_code: 404,
            message,
        } => {
            let what = format!("push `{}:{}`", request.repository, request.tag);
            let source = DockerError::DockerResponseServerError {
                status_code: 404,
                message,
            };
            Failure::Final(ImageError::engine(what)(source))
        }
        error => Failure::Again(error.to_string()),
    }
}

/// What the engine says inside of its answer: a matter of rights, or of the connection.
fn refusal(request: &PushRequest, message: &str) -> Failure {
    const FINAL: [&str; 6] = [
        "unauthorized",
        "denied",
        "authentication",
        "no basic auth",
        "does not exist",
        "quota",
    ];
    let lower = message.to_ascii_lowercase();
    if FINAL.iter().any(|word| lower.contains(word)) {
        let registry = request.registry.clone();
        return Failure::Final(ImageError::PushRefused {
            registry,
            message: message.to_owned(),
        });
    }
    Failure::Again(message.to_owned())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use serde_json::Value;

    use super::{Failure, PushRequest, URL_SAFE, auth_header, refusal};
    use crate::api::secret::SecretText;

    const VECTORS: &str = include_str!("../../../tests/data/docker/x-registry-auth-vectors.json");

    fn request(password: &str) -> PushRequest {
        PushRequest {
            registry: "127.0.0.1:8787".to_owned(),
            repository: "systemprompt-images".to_owned(),
            tag: "tenant-x".to_owned(),
            username: "systemprompt".to_owned(),
            password: SecretText::new(password),
            ca_file: None,
        }
    }

    #[test]
    fn the_header_is_what_engines_read() {
        let vectors: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
        for vector in vectors["encode"].as_array().expect("vectors") {
            let header = URL_SAFE.encode(vector["input"].to_string());
            assert_eq!(Value::from(header), vector["header"]);
        }
        // A password whose JSON needs the two letters in which the alphabets differ.
        let header = auth_header(&request("pw>>>???~~~"));
        assert!(header.expose().contains(['-', '_']) && !header.expose().contains(['+', '/']));
        let back: Value =
            serde_json::from_slice(&URL_SAFE.decode(header.expose()).expect("base64url")).expect("JSON");
        assert_eq!(back["password"], "pw>>>???~~~");
    }

    #[test]
    fn only_a_broken_connection_is_tried_again() {
        let again = |message| matches!(refusal(&request(""), message), Failure::Again(_));
        assert!(again("Put \"http://127.0.0.1:8787/v2/…\": EOF"));
        assert!(again("received unexpected HTTP status: 502 Bad Gateway"));
        assert!(!again("unauthorized: authentication required"));
        assert!(!again("denied: requested access to the resource is denied"));
        assert!(!again("An image does not exist locally with the tag: x"));
    }
}
