//! Pushes through the engine: it packs each layer on one processor, and sends only what it knows the registry to lack.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::BollardRequest;
use bollard::errors::Error as DockerError;
use futures::StreamExt as _;
use http::{HeaderValue, Method};
use serde_json::json;

use crate::api::secret::SecretText;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::Progress;
use crate::image::push::lines::Lines;
use crate::image::push::registry::Registry;
use crate::image::push::{Failure, PushRequest, Pushed};

/// Lets the engine push, and compares what it says with what the registry has then.
pub(super) async fn push(
    engine: &Engine,
    registry: &Registry<'_>,
    progress: &dyn Progress,
) -> Result<Pushed, Failure> {
    let request = registry.request();
    let mut lines = Lines::new(progress);
    let mut answer = Box::pin(start(engine, request));
    while let Some(piece) = answer.next().await {
        lines.take(&piece.map_err(|error| broken(request, error))?);
    }
    if let Some(message) = lines.error() {
        return Err(refusal(request, message));
    }
    let stored = registry.stored().await?;
    let stored = stored.ok_or_else(|| Failure::Again("the registry has nothing by that tag".to_owned()))?;
    let stored = stored.pushed();
    // Some engines do not say what they pushed; then what the registry holds is all there is to know.
    if let Some(pushed) = lines
        .digest(&request.tag)
        .filter(|pushed| *pushed != stored.digest)
    {
        return Err(Failure::mismatch(pushed.to_owned(), stored.digest));
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

    use super::{URL_SAFE, auth_header, refusal};
    use crate::api::secret::SecretText;
    use crate::image::push::{Failure, PushRequest};

    const VECTORS: &str = include_str!("../../../tests/data/docker/x-registry-auth-vectors.json");

    fn request(password: &str) -> PushRequest {
        PushRequest {
            registry: "127.0.0.1:8787".to_owned(),
            repository: "systemprompt-images".to_owned(),
            tag: "tenant-x".to_owned(),
            username: "systemprompt".to_owned(),
            password: SecretText::new(password),
            ca_file: None,
            resumes: false,
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
