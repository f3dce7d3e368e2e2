//! What the edge says of the requests that came: its standard output, one JSON document a line.
//!
//! A line of the access log, as Caddy writes it with our filters:
//! `{"level":"info","ts":<ms>,"logger":"http.log.access.tenants","msg":"handled request",
//! "request":{"proto","method","host","uri"},"duration":<s>,"size":<bytes>,"status":<code>}`. The waiting room writes
//! one with the logger `http.log.access.waiting` for each request that it let go, with the time that it waited. The
//! engine keeps the last 30 MB.

use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;

use crate::api::time::Time;
use crate::server::containers::{Engine, EngineError};
use crate::server::edge::caddy::config::{ACCESS, WAITED, WAITED_HEADER};
use crate::server::edge::{Access, AccessQuery, AccessStream, EdgeError, Waited};

/// A longer path is cut off.
const PATH_LIMIT: usize = 1024;

#[derive(Debug, Deserialize)]
struct Line {
    ts: f64,
    logger: String,
    request: Request,
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    resp_headers: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Request {
    method: String,
    host: String,
    #[serde(default)]
    uri: String,
}

/// The access log of the edge in this container.
pub(super) async fn stream(
    engine: &Engine,
    container: &str,
    domain: &str,
    query: AccessQuery,
) -> Result<AccessStream, EdgeError> {
    let end = format!(".{domain}");
    let lines = lines(engine, container, query).await?;
    Ok(lines
        .try_filter_map(move |line| std::future::ready(Ok(access(&line, &end))))
        .try_filter(move |access| std::future::ready(query.since.is_none_or(|since| access.at > since)))
        .boxed())
}

/// What was held of this host, and let go.
pub(super) async fn waited(
    engine: &Engine,
    container: &str,
    host: &str,
    since: Time,
) -> Result<Waited, EdgeError> {
    let query = AccessQuery {
        follow: false,
        since: Some(since),
    };
    lines(engine, container, query)
        .await?
        .try_filter_map(|line| std::future::ready(Ok(wait(&line, host, since))))
        .try_fold(Waited::default(), async |all, longest_ms| {
            Ok(Waited {
                requests: all.requests + 1,
                longest_ms: all.longest_ms.max(longest_ms),
            })
        })
        .await
}

async fn lines(
    engine: &Engine,
    container: &str,
    query: AccessQuery,
) -> Result<impl Stream<Item = Result<Line, EdgeError>> + use<>, EdgeError> {
    let action = format!("read the access log of `{container}`");
    let frames = engine.docker().await?.logs(container, Some(options(query)));
    Ok(frames.filter_map(move |frame| {
        std::future::ready(match frame {
            // A line of something else is no line of the access log.
            Ok(output) => serde_json::from_slice(output.as_ref()).ok().map(Ok),
            Err(source) => Some(Err(EngineError::engine(action.clone(), source).into())),
        })
    }))
}

fn options(query: AccessQuery) -> LogsOptions {
    let since = query.since.map_or(0, |since| since.as_millis() / 1000);
    LogsOptionsBuilder::new()
        .follow(query.follow)
        .stdout(true)
        .since(i32::try_from(since).unwrap_or(i32::MAX))
        .build()
}

/// The line as we keep it, when it is one of a tenant's.
fn access(line: &Line, end: &str) -> Option<Access> {
    let host = without_port(&line.request.host);
    let label = host.strip_suffix(end)?;
    // No label begins with a hyphen but the one by which a server sees whether it is seen.
    (line.logger == ACCESS && !label.starts_with('-')).then(|| Access {
        at: at(line.ts),
        label: label.to_owned(),
        method: line.request.method.clone(),
        path: line.request.uri.chars().take(PATH_LIMIT).collect(),
        status: line.status,
        duration_ms: whole(line.duration * 1000.0),
        bytes: line.size,
    })
}

/// For how long a request of this host waited, in milliseconds, when the line says that it did.
fn wait(line: &Line, host: &str, since: Time) -> Option<u64> {
    if line.logger != WAITED || without_port(&line.request.host) != host || at(line.ts) < since {
        return None;
    }
    let waited = line.resp_headers.get(WAITED_HEADER)?.first()?;
    waited.parse().ok().map(whole)
}

fn without_port(host: &str) -> &str {
    host.split_once(':').map_or(host, |(host, _)| host)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float becomes the nearest integer there is"
)]
fn at(millis: f64) -> Time {
    Time::from_millis(millis as i64)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest integer there is"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::{Line, access, wait};
    use crate::api::time::Time;
    use crate::server::edge::Access;

    fn line(text: &str) -> Line {
        serde_json::from_str(text).expect("a line")
    }

    #[test]
    fn requests_of_tenants_are_read() {
        let text = r#"{"level":"info","ts":1795250025102.1453,"logger":"http.log.access.tenants","msg":"handled request","request":{"proto":"HTTP/1.1","method":"POST","host":"acme.localhost:8080","uri":"/p"},"duration":0.0216,"size":40,"status":200}"#;
        assert_eq!(
            access(&line(text), ".localhost"),
            Some(Access {
                at: Time::from_millis(1_795_250_025_102),
                label: "acme".to_owned(),
                method: "POST".to_owned(),
                path: "/p".to_owned(),
                status: 200,
                duration_ms: 22,
                bytes: 40,
            })
        );
        assert_eq!(access(&line(text), ".example.com"), None);
        assert_eq!(
            access(&line(&text.replace("acme", "-seen-1")), ".localhost"),
            None
        );
        assert_eq!(wait(&line(text), "acme.localhost", Time::from_millis(0)), None);
    }

    #[test]
    fn waits_are_read() {
        let text = r#"{"level":"info","ts":1795250025102.1,"logger":"http.log.access.waiting","request":{"method":"GET","host":"acme.localhost"},"duration":0,"size":0,"status":204,"resp_headers":{"Server":["Caddy"],"X-Waited-Ms":["1285.89"]}}"#;
        let since = Time::from_millis(1_795_250_025_000);
        assert_eq!(wait(&line(text), "acme.localhost", since), Some(1286));
        assert_eq!(wait(&line(text), "bolt.localhost", since), None);
        assert_eq!(wait(&line(text), "acme.localhost", since.plus_seconds(1)), None);
        assert_eq!(access(&line(text), ".localhost"), None);
    }
}
