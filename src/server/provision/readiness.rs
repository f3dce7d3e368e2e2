//! Whether a release is ready: it is asked until it answers, its process ends, or it took too long.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::release::Release;
use crate::server::providers::{LogQuery, MachineSpec, MachineState, ProviderError, TenantSpec};
use crate::server::provision::context::{Failure, Parts, StepContext, StepError};
use crate::server::provision::environment::PORT;
use crate::server::store::events::NewEvent;

/// How many lines of a release that failed are kept.
const TAIL: usize = 30;
/// How long reading them may take.
const TAIL_WITHIN: Duration = Duration::from_secs(3);

/// How often a release that is about to end is asked at most, each time until it was silent for long.
const LINE_ASKED: u32 = 3;
const SILENCE: Duration = Duration::from_secs(1);

/// How long a machine is asked, and how often.
pub(super) struct Patience<'a> {
    pub(super) within: Duration,
    pub(super) every: Duration,
    /// Asking ends when this is cancelled.
    pub(super) stop: &'a CancellationToken,
}

/// Asks a machine until it answers (and after how long), its process ends, or it took too long (and why it does not).
pub(super) async fn answers(
    parts: &Parts,
    spec: &MachineSpec,
    (machine, path): (&str, &str),
    patience: &Patience<'_>,
) -> Result<Result<Duration, String>, StepError> {
    let begun = Instant::now();
    loop {
        match parts
            .provider
            .probe(&spec.tenant, machine, (spec.port, path))
            .await
        {
            Ok(true) => return Ok(Ok(begun.elapsed())),
            Ok(false) | Err(ProviderError::Retry { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let why = match parts.provider.machine_state(machine).await {
            Ok(MachineState::Exited {
                exit_code,
                out_of_memory,
            }) => {
                let memory = if out_of_memory {
                    " because it ran out of memory"
                } else {
                    ""
                };
                Some(format!("its process ended with exit code {exit_code}{memory}"))
            }
            Ok(MachineState::Absent) => Some("its machine is gone".to_owned()),
            Ok(MachineState::Running) | Err(ProviderError::Retry { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let why = why.or_else(|| {
            (begun.elapsed() >= patience.within).then(|| {
                let seconds = patience.within.as_secs();
                format!("`{path}` did not answer 2xx within {seconds} s")
            })
        });
        if let Some(why) = why {
            return Ok(Err(why));
        }
        tokio::select! {
            () = tokio::time::sleep(patience.every) => {}
            () = patience.stop.cancelled() => return Err(StepError::Stopped),
        }
    }
}

/// Waits until a release that is about to end has taken everybody in who stood in line before: a process that ends
/// hangs up on those whom it has not seen yet. Who comes last is answered last, and that is the one who asks here.
pub(super) async fn takes_in(parts: &Parts, spec: &TenantSpec, (machine, path): (&str, &str)) {
    for _ in 0..LINE_ASKED {
        let begun = Instant::now();
        let answer = parts.provider.last_in_line(spec, machine, (PORT, path)).await;
        // One that says no at once has no line.
        if !matches!(answer, Ok(false)) || begun.elapsed() < SILENCE {
            return;
        }
    }
}

/// Says that a release answers, and after how long.
pub(super) fn health_passed(release: &Release, took: Duration) -> NewEvent {
    let message = format!("v{} answers `{}`", release.number, release.health_path);
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let detail = serde_json::json!({ "release": release.number, "took_ms": took });
    NewEvent::new("health_passed", message).with(detail)
}

/// Says that a release does not answer, and why.
pub(super) async fn health_failed(
    cx: &StepContext<'_>,
    release: &Release,
    machine: &str,
    why: &str,
) -> StepError {
    let message = format!("v{} is not ready: {why}", release.number);
    let detail = serde_json::json!({ "release": release.number });
    StepError::Fatal(Box::new(Failure {
        code: "health-failed".to_owned(),
        events: vec![NewEvent::new("health_failed", message.clone()).with(detail)],
        message,
        hint: Some("see the last lines it printed; mend it and `systemprompt deploy` again".to_owned()),
        log_tail: log_tail(cx, machine).await,
        source: None,
    }))
}

/// The last lines of a machine; none rather than a failure.
async fn log_tail(cx: &StepContext<'_>, machine: &str) -> Vec<String> {
    let query = LogQuery {
        follow: false,
        since_seconds: None,
        tail: u32::try_from(TAIL).ok(),
    };
    let read = async {
        let lines = cx.parts.provider.logs(machine, &query).await.ok()?;
        let lines: Vec<String> = lines
            .filter_map(|line| std::future::ready(line.ok().map(|line| line.line)))
            .collect()
            .await;
        Some(lines)
    };
    let mut lines = tokio::time::timeout(TAIL_WITHIN, read)
        .await
        .ok()
        .flatten()
        .unwrap_or_default();
    lines.drain(..lines.len().saturating_sub(TAIL));
    lines
}

/// Keeps the end of a command's output.
pub(super) fn tail_of(mut lines: Vec<String>) -> Vec<String> {
    lines.drain(..lines.len().saturating_sub(TAIL));
    lines
}
