//! What a tenant prints: one JSON object a line, plain lines, or a stream (SSE), as the caller accepts.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::TenantId;
use crate::api::log::{CONTENT_TYPE, LogLine, LogQuery};
use crate::api::oauth::Scope;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError, chain};
use crate::server::http::events::{held, last_event_id, wants_stream};
use crate::server::http::extract::{Caller, Ids, Params};
use crate::server::http::limits::sit;
use crate::server::provision::LogLines;

const HEARTBEAT: Duration = Duration::from_secs(15);
const MAX_TAIL: u32 = 10_000;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_logs))
}

/// What the tenant prints, of the last 7 days and at most 50 MB: `application/x-ndjson` unless `text/plain` or `text/event-stream` is asked for.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/logs", tag = "Tenants",
    params(LogQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Only lines after this number")),
    responses((status = 200, content(
        (LogLine = "application/x-ndjson"), (String = "text/plain"), (String = "text/event-stream")
    )))
)]
async fn list_logs(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(mut query): Params<LogQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    query.after = last_event_id(&headers)?.or(query.after);
    if query.tail.is_some_and(|tail| tail > MAX_TAIL) {
        return Err(ApiError::invalid("tail", format!("must be 0 to {MAX_TAIL}")));
    }
    let (tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    drop(tx);
    let account = caller.account_id.clone();
    let seat = (query.follow)
        .then(|| sit(&app.limits.streams, account.as_str()))
        .transpose()?;
    let lines = app.provision.logs(&tenant, &query).await?;
    let shut_out = app.clone().until_shut_out(caller, id);
    let lines = good_lines(lines)
        .take_until(app.stopping.clone().cancelled_owned())
        .take_until(Box::pin(shut_out));
    let lines = held(lines, seat);
    let mut response = if wants_stream(&headers) {
        stream_lines(lines)
    } else if accepts(&headers, "text/plain") {
        body(lines, "text/plain; charset=utf-8", |line| {
            format!("{} {}\n", line.at, line.line)
        })
    } else {
        body(lines, CONTENT_TYPE, |line| {
            serde_json::to_string(line).map_or_else(|_| "\n".to_owned(), |json| json + "\n")
        })
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accepted| accepted.contains(media_type))
}

/// The lines up to the first one that the provider cannot deliver.
fn good_lines(lines: LogLines) -> impl Stream<Item = LogLine> + Send {
    lines
        .map(|line| {
            line.inspect_err(|error| tracing::warn!(error = chain(error), "a log stream ends"))
                .ok()
        })
        .take_while(|line| std::future::ready(line.is_some()))
        .filter_map(std::future::ready)
}

fn stream_lines(lines: impl Stream<Item = LogLine> + Send + 'static) -> Response {
    let events = lines.map(|line| {
        let data = serde_json::to_string(&line).unwrap_or_default();
        Ok::<_, Infallible>(
            SseEvent::default()
                .id(line.seq.to_string())
                .event("log")
                .data(data),
        )
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response()
}

fn body(
    lines: impl Stream<Item = LogLine> + Send + 'static,
    content_type: &'static str,
    write: fn(&LogLine) -> String,
) -> Response {
    // An empty line now and then tells a dead connection from a silent tenant.
    let chunks = stream::unfold(Box::pin(lines), move |mut lines| async move {
        match tokio::time::timeout(HEARTBEAT, lines.next()).await {
            Ok(Some(line)) => Some((write(&line), lines)),
            Ok(None) => None,
            Err(_) => Some(("\n".to_owned(), lines)),
        }
    });
    let chunks = chunks.map(|text| Ok::<_, Infallible>(Bytes::from(text)));
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(chunks)).into_response()
}
