//! A tenant's history: a page of JSON, or a stream (SSE) that replays the table and goes on with it.
//!
//! The stream carries nothing of its own: a signal says look, the table says what. So a cut stream, a restarted
//! server and a second replica are all the same to whoever reads it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::event::{Event, EventQuery};
use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::page::{DEFAULT_LIMIT, MAX_LIMIT, Page};
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError, chain};
use crate::server::http::extract::{Caller, Ids, Params};
use crate::server::http::limits::sit;
use crate::server::seats::Seat;
use crate::server::store::{StoreError, events};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const HEARTBEAT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(1000);
/// The table is looked at this often without a signal while signals of other servers may go unheard…
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// …and this often while they are heard: one that was killed between its commit and its signal has given none.
const LOOK_NOW_AND_THEN: Duration = Duration::from_secs(5);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// The tenant's history: with `Accept: text/event-stream` as a stream that goes on, else one page.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/events", tag = "Tenants",
    params(EventQuery, ("Last-Event-ID" = Option<u64>, Header, description = "Only events after this number")),
    responses((status = 200, content((Page<Event> = "application/json"), (String = "text/event-stream"))))
)]
async fn list_events(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> Answer<Response> {
    let since = match last_event_id(&headers)? {
        Some(seen) => seen,
        None => query.since.unwrap_or(0),
    };
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let last = tenant.last_event_seq;
    if since > last {
        // Waiting for it would be waiting for ever, or skipping what happens until then.
        return Err(ApiError::invalid(
            "since",
            format!("is later than the last event, which is {last}"),
        ));
    }
    if wants_stream(&headers) {
        drop(tx);
        let seat = sit(&app.limits.streams, caller.account_id.as_str())?;
        return Ok(stream_events(app, caller, id, (since, seat)));
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(
            "limit",
            format!("must be 1 to {MAX_LIMIT}, not {limit}"),
        ));
    }
    let mut data = events::list_after(&mut tx, &id, since, limit + 1).await?;
    let more = data.len() > limit as usize;
    data.truncate(limit as usize);
    let next = data.last().map(|event| event.seq).filter(|_| more);
    let link =
        next.map(|seq| format!("</api/v1/tenants/{id}/events?since={seq}&limit={limit}>; rel=\"next\""));
    let page = Page {
        data,
        next_cursor: next.map(|seq| seq.to_string()),
    };
    let mut response = axum::Json(page).into_response();
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// Whether the caller asks for a stream.
#[must_use]
pub fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|accepted| accepted.contains("text/event-stream"))
}

/// The number that the reader of a stream has seen last.
///
/// # Errors
/// It is no number.
pub fn last_event_id(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(None);
    }
    let refused = || ApiError::invalid("Last-Event-ID", "is not the number of an event");
    text.parse().map(Some).map_err(|_| refused())
}

fn stream_events(app: App, caller: Principal, tenant: TenantId, (since, seat): (u64, Seat)) -> Response {
    let stopping = app.stopping.clone().cancelled_owned();
    let shut_out = app.clone().until_shut_out(caller, tenant.clone());
    let hello = stream::once(async { Ok::<_, Infallible>(SseEvent::default().retry(RETRY)) });
    let events = hello
        .chain(follow(app, tenant, since).map(|event| Ok(frame(&event))))
        .take_until(stopping)
        // The reader comes back, with a fresh credential if need be, and misses nothing.
        .take_until(Box::pin(shut_out));
    let mut response = Sse::new(held(events, seat))
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// A stream that keeps its seat, where it has one, until it has ended or nobody reads it any more.
pub fn held<S: Stream + Send>(
    stream: S,
    seat: impl Into<Option<Seat>>,
) -> impl Stream<Item = S::Item> + Send {
    let seat = seat.into();
    stream.map(move |item| {
        let _kept = &seat;
        item
    })
}

fn frame(event: &Event) -> SseEvent {
    let data = serde_json::to_string(event).unwrap_or_default();
    SseEvent::default()
        .id(event.seq.to_string())
        .event(&event.event)
        .data(data)
}

struct Following {
    app: App,
    tenant: TenantId,
    since: u64,
    read: VecDeque<Event>,
    changes: watch::Receiver<u64>,
}

/// Every event after `since`, for ever; ends when the table cannot be read.
fn follow(app: App, tenant: TenantId, since: u64) -> impl Stream<Item = Event> + Send {
    // Subscribed before the first look, so that nothing written in between goes unnoticed.
    let changes = app.provision.changes(&tenant);
    let following = Following {
        app,
        tenant,
        since,
        read: VecDeque::new(),
        changes,
    };
    stream::unfold(following, |mut following| async move {
        loop {
            if let Some(event) = following.read.pop_front() {
                following.since = event.seq;
                return Some((event, following));
            }
            match following.look().await {
                Ok(true) => {}
                Ok(false) => following.wait().await,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "an event stream ends: the table cannot be read"
                    );
                    return None;
                }
            }
        }
    })
}

impl Following {
    /// Reads what is new; `false` when nothing is.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let mut tx = self.app.store.begin_read().await?;
        self.read = events::list_after(&mut tx, &self.tenant, self.since, MAX_LIMIT)
            .await?
            .into();
        Ok(!self.read.is_empty())
    }

    /// Waits for a signal, but not for long.
    async fn wait(&mut self) {
        let patience = if self.app.provision.hears_everything() {
            LOOK_NOW_AND_THEN
        } else {
            LOOK_ANYWAY
        };
        if let Ok(Err(_)) = tokio::time::timeout(patience, self.changes.changed()).await {
            // Nobody signals any more: only the clock is left.
            tokio::time::sleep(LOOK_ANYWAY).await;
        }
    }
}
