//! Single requests, as a person's program makes them.

use std::sync::LazyLock;

use serde_json::Value;

use crate::harness::contest::Outcome;
use crate::harness::served::block_on;

/// One for all: making a client reads every certificate authority of the machine, which would take the processor away from
/// what is measured.
static CLIENT: LazyLock<reqwest::Result<reqwest::Client>> = LazyLock::new(|| {
    reqwest::Client::builder()
        .timeout(std::time::Duration::from_secs(30))
        .build()
});

/// Asks once; an answer other than 2xx is an error.
pub(crate) fn ask(method: &str, url: &str, token: Option<&str>, body: Option<&Value>) -> Outcome<Value> {
    let client = CLIENT.as_ref().map_err(ToString::to_string)?;
    let text = block_on(async {
        let mut request = client.request(method.parse().unwrap_or_default(), url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        Ok::<_, reqwest::Error>(if status.is_success() {
            Ok(text)
        } else {
            Err(format!("{method} {url}: {status}: {text}"))
        })
    })??;
    Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Reads a stream of events until one of that name comes.
pub(crate) fn follow(url: &str, token: &str, until: &str) -> Outcome<()> {
    let client = CLIENT.as_ref().map_err(ToString::to_string)?;
    let wanted = format!("event: {until}\n");
    block_on(async {
        let request = client
            .get(url)
            .header("accept", "text/event-stream")
            .bearer_auth(token);
        let mut answer = request.send().await?.error_for_status()?;
        let mut told = String::new();
        while let Some(chunk) = answer.chunk().await? {
            told.push_str(&String::from_utf8_lossy(&chunk));
            if told.contains(&wanted) {
                return Ok(());
            }
        }
        Err(format!("{url}: no `{until}` in {told}").into())
    })
}
