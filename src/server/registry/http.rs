//! The routes, and the one way that every request goes: authenticate, name, allow, do.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;

use crate::api::registry::REPOSITORY;
use crate::server::registry::auth::{Challenge, action, authenticate, require};
use crate::server::registry::error::RegistryError;
use crate::server::registry::grant::{Action, Grant};
use crate::server::registry::local::SILENCE;
use crate::server::registry::names::{Reference, Target, UploadId, parse_digest};
use crate::server::registry::store::ByteStream;
use crate::server::registry::{Inner, blobs, manifests, referrers, tags, token_endpoint, uploads};

/// Names the content of an answer.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// All routes of the gate.
pub(super) fn router(gate: Arc<Inner>) -> Router {
    Router::new()
        .route("/v2/token", get(token_endpoint::get).post(token_endpoint::post))
        .route("/v2", any(base))
        .route("/v2/", any(base))
        .route("/v2/{*rest}", any(below))
        .layer(map_response(with_version))
        .with_state(gate)
}

/// An answer with headers that are made of checked parts; what still cannot be a header is left out.
pub(super) fn answer(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// A body that must not be larger than `limit`; `None` when it is.
pub(super) async fn read_limited(body: Body, limit: usize) -> io::Result<Option<Bytes>> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = timeout(SILENCE, stream.next()).await? {
        let piece = piece.map_err(io::Error::other)?;
        if bytes.len() + piece.len() > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes.into()))
}

/// Values of a query, by name, as often as they stand there.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// All values of `name`.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of `name`.
    pub(super) fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }
}

/// A request that was let through.
pub(super) struct Call {
    /// Method.
    pub(super) method: Method,
    /// Headers.
    pub(super) headers: HeaderMap,
    /// Query.
    pub(super) query: Query,
    /// What its token lets it do.
    pub(super) grant: Grant,
}

impl Call {
    /// A header as text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the answer has a body.
    pub(super) fn with_body(&self) -> bool {
        self.method != Method::HEAD
    }
}

/// A body as a stream.
pub(super) fn stream(body: Body) -> ByteStream {
    body.into_data_stream().map_err(io::Error::other).boxed()
}

async fn with_version(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

async fn base(
    State(gate): State<Arc<Inner>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, RegistryError> {
    authenticate(&gate, &headers, &Challenge::none()).await?;
    match method {
        Method::GET | Method::HEAD => Ok(axum::Json(serde_json::json!({})).into_response()),
        _ => Err(RegistryError::unsupported()),
    }
}

async fn below(
    State(gate): State<Arc<Inner>>,
    rest: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, RegistryError> {
    let (parts, body) = request.into_parts();
    // What cannot be decoded names nothing, and that is only told to who may know it.
    let rest = rest.map(|Path(rest)| rest).unwrap_or_default();
    let Some((name, target)) = Target::parse(&rest).filter(|(_, target)| *target != Target::Base) else {
        authenticate(&gate, &parts.headers, &Challenge::none()).await?;
        return Err(RegistryError::name_unknown());
    };
    let challenge = Challenge::new(name, &target, &parts.method);
    let grant = authenticate(&gate, &parts.headers, &challenge).await?;
    let action = action(&target, &parts.method);
    if name != REPOSITORY {
        return Err(match action {
            Action::Pull => RegistryError::name_unknown(),
            _ => RegistryError::denied(format!("only the repository `{REPOSITORY}` can be written")),
        });
    }
    require(&gate, &grant, action, &challenge)?;
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let call = Call {
        method: parts.method,
        headers: parts.headers,
        query: Query(query.into_owned().collect()),
        grant,
    };
    serve(&gate, &target, &call, body).await
}

async fn serve(gate: &Inner, target: &Target, call: &Call, body: Body) -> Result<Response, RegistryError> {
    let method = call.method.clone();
    let reads = matches!(method, Method::GET | Method::HEAD);
    let writes = matches!(method, Method::POST | Method::PATCH | Method::PUT);
    let _seat = if writes {
        let seat = gate.writers.take(call.grant.tenant.as_str());
        Some(seat.map_err(RegistryError::crowded)?)
    } else {
        None
    };
    match (target, method) {
        (Target::Blob(digest), _) if reads => blobs::read(gate, call, &parse_digest(digest)?).await,
        (Target::Blob(digest), Method::DELETE) => blobs::remove(gate, call, &parse_digest(digest)?).await,
        (Target::Uploads, Method::POST) => uploads::begin(gate, call, body).await,
        (Target::Upload(id), Method::PATCH) => uploads::append(gate, call, &UploadId::parse(id)?, body).await,
        (Target::Upload(id), Method::PUT) => uploads::finish(gate, call, &UploadId::parse(id)?, body).await,
        (Target::Upload(id), Method::DELETE) => uploads::cancel(gate, call, &UploadId::parse(id)?).await,
        (Target::Upload(id), _) if reads => uploads::status(gate, call, &UploadId::parse(id)?).await,
        (Target::Manifest(text), Method::PUT) => {
            manifests::write(gate, call, &Reference::parse(text)?, body).await
        }
        (Target::Manifest(text), Method::DELETE) => {
            manifests::remove(gate, call, &Reference::parse(text)?).await
        }
        (Target::Manifest(text), _) if reads => manifests::read(gate, call, &Reference::parse(text)?).await,
        (Target::Tags, _) if reads => tags::list(gate, call).await,
        (Target::Referrers(digest), _) if reads => referrers::list(gate, call, &parse_digest(digest)?).await,
        _ => Err(RegistryError::unsupported()),
    }
}
