//! What every request passes through: its id, the access log, panics, time, who calls and how often.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;

use crate::api::id::RequestId;
use crate::api::problem::{CONTENT_TYPE, Problem};
use crate::api::routes;
use crate::server::auth::{AuthError, Principal};
use crate::server::http::App;
use crate::server::http::error::{ApiError, chain};
use crate::server::http::limits::{Limiter, sit};
use crate::server::http::problem;
use crate::server::seats::Seats;

/// Names the request in the log and in problems.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How long a handler may take; bodies that are streamed take as long as they take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The outermost layer: gives the request its id, notices panics, writes problems and one line of log.
///
/// The line names the route and not the path: paths of one-time links and credentials hold secrets.
pub async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = RequestId::new(app.clock.uuid());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", |path| path.as_str())
        .to_owned();
    request.extensions_mut().insert(id.clone());
    let began = Instant::now();
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            &problem::INTERNAL,
            "the server failed to answer; its log has the cause",
        )
        .into_response(),
    };
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        id.as_str().clone_into(&mut problem.request_id);
        response = write_problem(response, &problem);
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    let took = began.elapsed();
    record(&method, &route, status, took);
    let took_ms = took.as_millis() as u64;
    if matches!(route.as_str(), "/livez" | "/readyz" | "/metrics") {
        tracing::debug!(request_id = %id, %method, route, status, took_ms, "answered");
    } else {
        tracing::info!(request_id = %id, %method, route, status, took_ms, "answered");
    }
    response
}

fn record(method: &axum::http::Method, route: &str, status: u16, took: Duration) {
    let method = method.as_str().to_owned();
    let route = route.to_owned();
    metrics::histogram!("http_request_duration_seconds", "method" => method.clone(), "route" => route.clone())
        .record(took.as_secs_f64());
    metrics::counter!("http_requests_total", "method" => method, "route" => route, "status" => status.to_string())
        .increment(1);
}

fn write_problem(refused: Response, problem: &Problem) -> Response {
    let (parts, _) = refused.into_parts();
    let mut response = Json(problem).into_response();
    *response.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Ends a handler that takes too long.
pub async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            &problem::TIMEOUT,
            format!("no answer within {} s", TIME_LIMIT.as_secs()),
        )
        .hint("try again; a request with an `Idempotency-Key` is not done twice")
        .into_response(),
    }
}

/// Lets in who shows a good credential, as often as is fair, and hands the caller on.
pub async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let mut principal = match identify(&app, request.headers()).await {
        Ok(principal) => principal,
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
            // Who has no credential is counted by address: nobody tries them one after the other.
            let address = address_of(request.extensions());
            let standing = app.limits.refused.check(&address).await?;
            return Err(standing.told(error));
        }
        Err(error) => return Err(error),
    };
    if app.auth.has_used() {
        app.tasks.spawn(write_used(app.clone()));
    }
    let path = request.extensions().get::<MatchedPath>();
    if let Some(route) = path.and_then(|path| routes::find(request.method().as_str(), path.as_str())) {
        principal.needs = route.needs();
    }
    let standing = app.limits.general.check(principal.credential.id()).await?;
    request.extensions_mut().insert(principal);
    let mut response = next.run(request).await;
    standing.tell(response.headers_mut());
    Ok(response)
}

/// What cannot be written down is written down at the next use.
async fn write_used(app: App) {
    if let Err(error) = app.auth.write_used().await {
        tracing::debug!(
            error = chain(&error),
            "failed to write down the use of API tokens"
        );
    }
}

async fn identify(app: &App, headers: &HeaderMap) -> Result<Principal, ApiError> {
    let bearer = bearer_of(headers)?;
    Ok(app.auth.authenticate(&bearer).await?)
}

fn bearer_of(headers: &HeaderMap) -> Result<String, ApiError> {
    let shown = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| {
            ApiError::new(&problem::UNAUTHENTICATED, "no credential was shown")
                .hint("run `systemprompt login`, or send `Authorization: Bearer …`")
                .header(header::WWW_AUTHENTICATE, "Bearer realm=\"systemprompt\"")
        })?
        .to_str()
        .unwrap_or_default();
    match shown.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(token.trim().to_owned())
        }
        _ => Err(AuthError::Unauthenticated("the `Authorization` header is not `Bearer …`").into()),
    }
}

/// Lets an address in as often as is fair, on routes that nobody is signed in to.
pub async fn limit_by_address(
    State(limiter): State<Limiter>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let address = address_of(request.extensions());
    let standing = limiter.check(&address).await?;
    let mut response = next.run(request).await;
    standing.tell(response.headers_mut());
    Ok(response)
}

/// Lets in as many at once from an address as is fair.
pub async fn limit_at_once(
    State(seats): State<Seats>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let _seat = sit(&seats, &address_of(request.extensions()))?;
    Ok(next.run(request).await)
}

/// The address of whoever asks, as the front of the server has found it; as a limiter's key.
#[must_use]
pub fn address_of(extensions: &axum::http::Extensions) -> String {
    extensions.get::<ConnectInfo<SocketAddr>>().map_or_else(
        || "unknown".to_owned(),
        |ConnectInfo(address)| address.ip().to_string(),
    )
}

/// Refuses everybody but this machine itself; what a proxy passes on is not from this machine.
pub async fn loopback_only(request: Request, next: Next) -> Result<Response, ApiError> {
    let local = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .is_some_and(|ConnectInfo(address)| is_loopback(address.ip()));
    let passed_on = ["forwarded", "x-forwarded-for"]
        .iter()
        .any(|name| request.headers().contains_key(*name));
    if !local || passed_on {
        return Err(ApiError::new(
            &problem::FORBIDDEN,
            "only this machine itself may ask for this",
        ));
    }
    Ok(next.run(request).await)
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => {
            address.is_loopback()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|mapped| mapped.is_loopback())
        }
    }
}

/// What a path without a route is answered.
pub async fn no_route() -> ApiError {
    ApiError::new(&problem::NOT_FOUND, "there is no such route").hint("`/docs` lists every route")
}

/// What a route without that method is answered.
pub async fn no_method() -> ApiError {
    ApiError::new(
        &problem::METHOD_NOT_ALLOWED,
        "the route does not know this method",
    )
    .hint("`/docs` lists every route with its methods")
}
