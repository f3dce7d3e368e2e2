//! A tenant's history: a page of JSON, or a stream (SSE) that replays the table and goes on with it.
//!
//! The stream carries nothing of its own: a signal says look, the table says what. So a cut stream, a restarted
//! server and a second replica are all the same to whoever reads it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::event::{Event, EventQuery};
use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::page::{DEFAULT_LIMIT, MAX_LIMIT, Page};
use crate::api::time::Time;
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::access::STREAM_SECONDS;
use crate::server::http::error::{Answer, ApiError, chain};
use crate::server::http::extract::{Caller, Ids, Params};
use crate::server::http::histories::{Door, Line, Recent, line};
use crate::server::http::limits::sit;
use crate::server::seats::Seat;
use crate::server::store::events;
use crate::server::store::tenants::TenantRow;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The first bytes of every stream: when to come back.
const HELLO: &str = "retry: 1000\n\n";
/// What is sent when there is nothing to send.
const STILL_HERE: &str = ":\n\n";

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
    // Each by itself: thousands may come at once to wait for a stream, and hold no more than that needs.
    if wants_stream(&headers) {
        return Box::pin(open_stream(app, caller, id, since)).await;
    }
    Box::pin(list_page(app, caller, id, (since, query.limit))).await
}

async fn open_stream(app: App, caller: Principal, id: TenantId, since: u64) -> Answer<Response> {
    let tenant = app.look_at_tenant(&caller, &id, Scope::Read).await?;
    check_since(since, &tenant)?;
    let seat = sit(&app.limits.streams, caller.account_id.as_str())?;
    Ok(stream_events(
        app,
        &caller,
        (id, tenant.last_event_seq),
        (since, seat),
    ))
}

/// Waiting for what is later than the last would be waiting for ever, or skipping what happens until then.
fn check_since(since: u64, tenant: &TenantRow) -> Answer<()> {
    let last = tenant.last_event_seq;
    if since > last {
        return Err(ApiError::invalid(
            "since",
            format!("is later than the last event, which is {last}"),
        ));
    }
    Ok(())
}

async fn list_page(
    app: App,
    caller: Principal,
    id: TenantId,
    (since, limit): (u64, Option<u32>),
) -> Answer<Response> {
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    check_since(since, &tenant)?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
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

fn stream_events(
    app: App,
    caller: &Principal,
    (tenant, last): (TenantId, u64),
    (since, seat): (u64, Seat),
) -> Response {
    let reading = Reading {
        door: app.door(caller, &tenant),
        ends: caller
            .expires_at
            .min(app.clock.now().plus_seconds(STREAM_SECONDS)),
        recent: app.history(&tenant, last),
        app,
        tenant,
        since,
        lines: VecDeque::new(),
        begun: false,
        _seat: seat,
    };
    let lines = stream::unfold(reading, |mut reading| async move {
        let text = reading.next().await?;
        Some((Ok::<_, Infallible>(text), reading))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

/// Somebody who reads a history, from after number `since` on.
struct Reading {
    app: App,
    tenant: TenantId,
    since: u64,
    lines: VecDeque<Line>,
    recent: watch::Receiver<Arc<Recent>>,
    door: Arc<Door>,
    /// When the reader has to come back and show a credential again.
    ends: Time,
    begun: bool,
    _seat: Seat,
}

impl Reading {
    /// What is sent next; `None` ends the stream. The reader comes back, with a fresh credential if need be, and misses
    /// nothing.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.begun {
            self.begun = true;
            return Some(Bytes::from_static(HELLO.as_bytes()));
        }
        loop {
            let left = self.ends.seconds_since(self.app.clock.now());
            if left <= 0 || self.app.stopping.is_cancelled() {
                return None;
            }
            if let Some(line) = self.lines.pop_front() {
                self.since = line.seq;
                return Some(line.text);
            }
            let at_hand = self.recent.borrow_and_update().since(self.since);
            match at_hand {
                None => self.read().await?,
                Some(lines) if !lines.is_empty() => self.lines = lines,
                Some(_) => {
                    let wait = HEARTBEAT.min(Duration::from_secs(u64::try_from(left).unwrap_or(1)));
                    tokio::select! {
                        changed = self.recent.changed() => changed.ok()?,
                        () = self.door.closed() => return None,
                        () = self.app.stopping.cancelled() => return None,
                        () = tokio::time::sleep(wait) => return Some(Bytes::from_static(STILL_HERE.as_bytes())),
                    }
                }
            }
        }
    }

    /// Reads what is too far back to be at hand.
    async fn read(&mut self) -> Option<()> {
        let mut tx = self.app.store.look();
        match events::list_after(&mut tx, &self.tenant, self.since, MAX_LIMIT).await {
            Ok(events) => {
                self.lines = events.iter().map(line).collect();
                if self.lines.is_empty() {
                    self.since = self.recent.borrow().after();
                }
                Some(())
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "an event stream ends: the table cannot be read"
                );
                None
            }
        }
    }
}
