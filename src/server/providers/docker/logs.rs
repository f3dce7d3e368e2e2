//! What a container printed: frames of the engine become lines.

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::server::containers::{Engine, EngineError};
use crate::server::providers::{LogLine, LogQuery, ProviderError};

/// The lines of a container, as the query wants them.
pub(super) async fn stream(
    engine: &Engine,
    container: &str,
    query: &LogQuery,
) -> Result<BoxStream<'static, Result<LogLine, ProviderError>>, EngineError> {
    let action = format!("read what `{container}` printed");
    let frames = engine.docker().await?.logs(container, Some(options(query)));
    Ok(frames
        .map(move |frame| match frame {
            Ok(output) => Ok(line(&output)),
            Err(source) => Err(ProviderError::from(EngineError::engine(action.clone(), source))),
        })
        .boxed())
}

/// The last lines of a container that ended.
pub(super) async fn tail(engine: &Engine, container: &str, lines: u32) -> Result<Vec<String>, ProviderError> {
    let query = LogQuery {
        tail: Some(lines),
        ..LogQuery::default()
    };
    stream(engine, container, &query)
        .await?
        .map_ok(|line| line.line)
        .try_collect()
        .await
}

fn options(query: &LogQuery) -> LogsOptions {
    let tail = query
        .tail
        .map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let since = query.since_seconds.unwrap_or(0).clamp(0, i64::from(i32::MAX));
    LogsOptionsBuilder::new()
        .follow(query.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(i32::try_from(since).unwrap_or(i32::MAX))
        .tail(&tail)
        .build()
}

/// A frame is a time, a space, and a line (or 16 KiB of one).
fn line(output: &LogOutput) -> LogLine {
    let stream = match output {
        LogOutput::StdErr { .. } => "stderr",
        LogOutput::StdOut { .. } | LogOutput::StdIn { .. } | LogOutput::Console { .. } => "stdout",
    };
    let text = String::from_utf8_lossy(output.as_ref());
    let is_whole = text.ends_with('\n');
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let (at, line) = match text.split_once(' ') {
        Some((at, line)) if is_time(at) => (at, line),
        None if is_time(text) => (text, ""),
        _ => ("", text),
    };
    LogLine {
        at: at.to_owned(),
        stream,
        line: line.to_owned(),
        is_whole,
    }
}

fn is_time(text: &str) -> bool {
    text.parse::<crate::api::time::Time>().is_ok()
}

#[cfg(test)]
mod tests {
    use bollard::container::LogOutput;

    use super::line;

    #[test]
    fn frames_are_split_into_time_and_line() {
        let frame = |text: &'static str| LogOutput::StdErr {
            message: bytes::Bytes::from_static(text.as_bytes()),
        };
        let split = |text| {
            let line = line(&frame(text));
            (line.at, line.stream, line.line, line.is_whole)
        };
        let at = || "2026-11-21T05:00:00.123456789Z".to_owned();
        assert_eq!(
            split("2026-11-21T05:00:00.123456789Z panicked at 'x'\r\n"),
            (at(), "stderr", "panicked at 'x'".to_owned(), true)
        );
        assert_eq!(
            split("2026-11-21T05:00:00.123456789Z \n"),
            (at(), "stderr", String::new(), true)
        );
        assert_eq!(
            split("no time"),
            (String::new(), "stderr", "no time".to_owned(), false)
        );
    }
}
