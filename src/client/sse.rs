//! One connection of an event stream: eventsource-client over our own HTTP client.
//!
//! The crate's reconnecting is off: it tries 401 and 404 for ever, says nothing while a connection is refused,
//! and forgets the last id after an event without one. `follow` makes every connection anew from what it has.

use std::sync::Mutex;

use bytes::Bytes;
use eventsource_client::{Client as _, ClientBuilder, ReconnectOptions, SSE};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport, ResponseFuture, TransportError};

use crate::api::secret::SecretText;

/// A line of a stream that is longer than this is not one of ours.
const LONGEST_CHUNK: usize = 4 * 1024 * 1024;

/// What a connection gives.
pub(super) enum Item {
    /// It stands, or is kept alive.
    Alive,
    /// The `data:` of an event.
    Data(String),
}

/// Opens a connection that begins after event `since`. It ends at the first error, whatever the error is.
pub(super) fn open(
    http: &reqwest::Client,
    url: &str,
    token: &SecretText,
    since: u64,
) -> Option<BoxStream<'static, Item>> {
    let builder = ClientBuilder::for_url(url)
        .ok()?
        .header("authorization", &format!("Bearer {}", token.expose()))
        .ok()?
        .redirect_limit(0)
        .reconnect(ReconnectOptions::reconnect(false).retry_initial(false).build())
        .last_event_id(since.to_string());
    let client = builder.build_with_transport(Transport { http: http.clone() });
    let items = client.stream().scan((), |(), item| {
        std::future::ready(match item {
            Ok(SSE::Event(event)) => Some(Item::Data(event.data)),
            Ok(SSE::Connected(_) | SSE::Comment(_)) => Some(Item::Alive),
            Err(_) => None,
        })
    });
    Some(items.boxed())
}

#[derive(Clone)]
struct Transport {
    http: reqwest::Client,
}

impl HttpTransport for Transport {
    fn request(&self, request: http::Request<Option<Bytes>>) -> ResponseFuture {
        let http = self.http.clone();
        let (parts, body) = request.into_parts();
        let outgoing = http
            .request(parts.method, parts.uri.to_string())
            .headers(parts.headers)
            .body(body.unwrap_or_default());
        Box::pin(async move {
            let response = outgoing.send().await.map_err(TransportError::new)?;
            let is_stream = response
                .headers()
                .get(http::header::CONTENT_TYPE)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.starts_with("text/event-stream"));
            if response.status().is_success() && !is_stream {
                return Err(TransportError::new(std::io::Error::other("not an event stream")));
            }
            let mut answer = http::Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                headers.clone_from(response.headers());
            }
            let body: ByteStream = Box::pin(Shared(Mutex::new(
                response
                    .bytes_stream()
                    .map_err(TransportError::new)
                    .and_then(|chunk| std::future::ready(checked(chunk)))
                    .boxed(),
            )));
            answer.body(body).map_err(TransportError::new)
        })
    }
}

fn checked(chunk: Bytes) -> Result<Bytes, TransportError> {
    if chunk.len() > LONGEST_CHUNK {
        return Err(TransportError::new(std::io::Error::other("a line without end")));
    }
    Ok(chunk)
}

/// The trait wants `Sync`, which a body is not; it is only ever polled through `&mut`.
struct Shared(Mutex<BoxStream<'static, Result<Bytes, TransportError>>>);

impl Stream for Shared {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .poll_next_unpin(context)
    }
}
