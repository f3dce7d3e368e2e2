//! `Idempotency-Key`: a request that is sent again is answered again and not done again.
//!
//! A keyed request is done to its end even when the caller has gone, so that the answer is there when they ask again.
//! Handlers that begin work keep their answer in the transaction that begins it ([`commit`]): whatever ends the server
//! after that, a repeated request is answered and does not begin the work twice.
//! Stored answers are sealed: some hold a token that is stored nowhere else.

use std::time::Duration;

use axum::body::{Body, Bytes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{FromRequest as _, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::problem::Problem;
use crate::server::auth::Principal;
use crate::server::failpoint;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError, chain};
use crate::server::http::extract::unread;
use crate::server::http::problem;
use crate::server::store::idempotency_keys::{KeyedRow, RequestKey, StoredAnswer};
use crate::server::store::{StoreError, Tx, idempotency_keys};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer is kept, in seconds.
const KEPT_SECONDS: i64 = 24 * 3600;
/// A claim that was not renewed for so long belongs to a server that has died over it, in seconds.
pub const STALE_SECONDS: i64 = 20;
/// How often a server says that it is still at a claimed request.
const RENEW_EVERY: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: usize = 1 << 20;
const PURPOSE: &str = "idempotency";
const KEPT_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::LINK];

tokio::task_local! {
    /// The keyed request that is being done.
    static KEYED: Keyed;
}

#[derive(Clone)]
struct Keyed {
    key: RequestKey,
    /// Whether its answer lasts already.
    kept: Arc<AtomicBool>,
}

/// Commits a handler's work, with its answer in the same transaction where the request has a key.
///
/// # Errors
/// The store fails; then neither the work nor the answer lasts.
pub async fn commit(app: &App, mut tx: Tx, answer: impl IntoResponse) -> Answer<Response> {
    let (parts, body) = answer.into_response().into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER_BYTES)
        .await
        .map_err(|error| ApiError::internal(&error))?;
    let keyed = KEYED.try_with(Clone::clone).ok();
    if let Some(keyed) = &keyed {
        let sealed = app.auth.keys().seal(PURPOSE, &app.clock, &body)?;
        let stored = StoredAnswer {
            status: u32::from(parts.status.as_u16()),
            headers: kept_headers(&parts.headers),
            body: sealed,
        };
        if !idempotency_keys::finish(&mut tx, &keyed.key, &stored).await? {
            return Err(still_running());
        }
    }
    failpoint::pass("committing");
    tx.commit().await?;
    failpoint::pass("committed");
    if let Some(keyed) = &keyed {
        keyed.kept.store(true, Ordering::Relaxed);
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Answers a keyed request that was answered before; does every other one.
pub async fn replay_or_do(State(app): State<App>, request: Request, next: Next) -> Answer<Response> {
    let mutating = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let key = match request.headers().get(KEY) {
        Some(key) if mutating => parse_key(key)?,
        _ => return Ok(next.run(request).await),
    };
    // By itself: every request that waits in here, a stream's too, would hold the room that this needs.
    Box::pin(answer_keyed(app, key, request, next)).await
}

async fn answer_keyed(app: App, key: String, request: Request, next: Next) -> Answer<Response> {
    let principal = request
        .extensions()
        .get::<Principal>()
        .map(|principal| principal.credential.id().to_owned())
        .unwrap_or_default();
    let key = RequestKey {
        principal,
        route: format!("{} {}", request.method(), request.uri().path()),
        key,
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::new(body), &())
        .await
        .map_err(|rejection| unread(&rejection))?;
    // Keyed, so that the table does not tell whether a guessed body (a secret) was sent.
    let fingerprint = hex::encode(app.auth.keys().mac(PURPOSE, &[query.as_bytes(), &body]));
    if let Some(answer) = claim(&app, &key, &fingerprint).await? {
        return Ok(answer);
    }
    let route = parts
        .extensions
        .get::<MatchedPath>()
        .map(|path| format!("{} {}", parts.method, path.as_str()));
    let request = Request::from_parts(parts, Body::from(body));
    let worker = app.clone();
    let keyed = Keyed {
        key,
        kept: Arc::default(),
    };
    let work = async move {
        failpoint::pass("claimed");
        let response = renewed(&worker, &keyed.key, KEYED.scope(keyed.clone(), next.run(request))).await;
        keep(&worker, &keyed, response).await
    };
    let done = app
        .tasks
        .spawn(failpoint::within(|| route.unwrap_or_default(), work));
    match done.await {
        Ok(response) => Ok(response),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

/// Does the work; its claim is renewed meanwhile, so that nobody takes it for that of a dead server.
async fn renewed(app: &App, key: &RequestKey, work: impl Future<Output = Response>) -> Response {
    let renewing = async {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            if let Err(error) = renew(app, key).await {
                tracing::warn!(
                    error = chain(&error),
                    "failed to renew the claim of a keyed request"
                );
            }
        }
    };
    tokio::select! {
        response = work => response,
        response = renewing => response,
    }
}

async fn renew(app: &App, key: &RequestKey) -> Result<(), StoreError> {
    let mut tx = app.store.begin().await?;
    idempotency_keys::renew(&mut tx, key, app.clock.now()).await?;
    tx.commit().await
}

/// The key's text. The draft has a quoted string; bare words are taken too.
fn parse_key(value: &HeaderValue) -> Answer<String> {
    let text = value.to_str().unwrap_or_default().trim();
    let bare = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(text);
    if bare.is_empty() || bare.len() > 255 {
        return Err(ApiError::new(
            &problem::INVALID_REQUEST,
            "`Idempotency-Key` holds 1 to 255 printable ASCII characters",
        ));
    }
    Ok(bare.to_owned())
}

/// Claims the key (`None`), or answers what is known under it.
async fn claim(app: &App, key: &RequestKey, fingerprint: &str) -> Answer<Option<Response>> {
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    if let Some(row) = idempotency_keys::find(&mut tx, key, now).await? {
        let abandoned = row.answer.is_none() && now.seconds_since(row.created_at) >= STALE_SECONDS;
        if !abandoned {
            return known(app, &row, fingerprint).map(Some);
        }
    }
    // Looked at again by the statement itself: another replica may have claimed it a moment ago.
    let stale = now.plus_seconds(-STALE_SECONDS);
    idempotency_keys::release_dead(&mut tx, key, now, stale).await?;
    let ends = now.plus_seconds(KEPT_SECONDS);
    match idempotency_keys::claim(&mut tx, key, fingerprint, now, ends).await {
        Ok(()) => {}
        // Another replica was faster by a moment.
        Err(StoreError::Duplicate(_)) => return Err(still_running()),
        Err(error) => return Err(error.into()),
    }
    tx.commit().await?;
    Ok(None)
}

fn known(app: &App, row: &KeyedRow, fingerprint: &str) -> Answer<Response> {
    if row.fingerprint != fingerprint {
        return Err(ApiError::new(
            &problem::KEY_REUSED,
            "this `Idempotency-Key` was sent with another body before",
        )
        .hint("use a new key for a new request"));
    }
    match &row.answer {
        Some(answer) => replay(app, answer),
        None => Err(still_running()),
    }
}

fn still_running() -> ApiError {
    ApiError::new(
        &problem::STILL_RUNNING,
        "the first request with this `Idempotency-Key` has no answer yet",
    )
    .hint("send it again in a second")
    .header(header::RETRY_AFTER, "1")
}

fn replay(app: &App, answer: &StoredAnswer) -> Answer<Response> {
    let status = u16::try_from(answer.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok());
    let body = app.auth.keys().open_sealed(PURPOSE, &answer.body);
    let (Some(status), Some(body)) = (status, body) else {
        return Err(ApiError::new(
            &problem::INTERNAL,
            "the stored answer cannot be read",
        ));
    };
    let mut response = if status.is_success() {
        Response::new(Body::from(body))
    } else {
        let mut refused = Response::new(Body::empty());
        if let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
            refused.extensions_mut().insert(problem);
        }
        refused
    };
    *response.status_mut() = status;
    let kept: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&answer.headers).unwrap_or_default();
    for name in KEPT_HEADERS {
        let value = kept.get(name.as_str()).and_then(|value| value.as_str());
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Keeps a final answer under its key; gives the key back where the request may be made again.
async fn keep(app: &App, keyed: &Keyed, response: Response) -> Response {
    if keyed.kept.load(Ordering::Relaxed) {
        return response;
    }
    let problem = response.extensions().get::<Problem>().cloned();
    let worth_keeping =
        response.status().is_success() || problem.as_ref().is_some_and(|problem| !problem.retryable);
    let (parts, body) = response.into_parts();
    let body = match axum::body::to_bytes(body, MAX_ANSWER_BYTES).await {
        Ok(body) => body,
        Err(error) => return ApiError::internal(&error).into_response(),
    };
    let plain = match &problem {
        Some(problem) => serde_json::to_vec(problem).unwrap_or_default(),
        None => body.to_vec(),
    };
    let stored = match app.auth.keys().seal(PURPOSE, &app.clock, &plain) {
        Ok(sealed) if worth_keeping => Some(StoredAnswer {
            status: u32::from(parts.status.as_u16()),
            headers: kept_headers(&parts.headers),
            body: sealed,
        }),
        _ => None,
    };
    // The work is done: when its answer cannot be kept, the caller gets it all the same.
    failpoint::pass("done");
    if let Err(error) = write_down(app, &keyed.key, stored).await {
        tracing::error!(
            error = chain(&error),
            "failed to keep the answer to a keyed request"
        );
    }
    Response::from_parts(parts, Body::from(body))
}

async fn write_down(app: &App, key: &RequestKey, answer: Option<StoredAnswer>) -> Result<(), StoreError> {
    let mut tx = app.store.begin().await?;
    match answer {
        Some(answer) => idempotency_keys::finish(&mut tx, key, &answer).await.map(drop)?,
        None => idempotency_keys::release(&mut tx, key).await?,
    }
    tx.commit().await
}

fn kept_headers(headers: &HeaderMap) -> String {
    let kept: serde_json::Map<String, serde_json::Value> = KEPT_HEADERS
        .iter()
        .filter_map(|name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.into()))
        })
        .collect();
    serde_json::Value::Object(kept).to_string()
}

#[cfg(test)]
mod tests {
    use super::parse_key;
    use axum::http::HeaderValue;

    #[test]
    fn keys_are_quoted_or_bare() {
        let key = |text: &'static str| parse_key(&HeaderValue::from_static(text)).ok();
        assert_eq!(key("\"8e03978e-40d5\""), Some("8e03978e-40d5".to_owned()));
        assert_eq!(key("8e03978e-40d5"), Some("8e03978e-40d5".to_owned()));
        assert_eq!(key("\"\""), None);
        assert_eq!(key(""), None);
    }
}
