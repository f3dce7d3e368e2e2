//! Waiting for an operation: its steps on the terminal, its end as the command's own.

use std::ops::ControlFlow;
use std::time::Duration;

use console::style;
use serde_json::json;

use crate::api::event::Event;
use crate::api::operation::{Operation, OperationStatus};
use crate::api::time::Time;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::progress::Reporter;
use crate::client::error::ClientError;
use crate::client::follow::Update;

/// Flags of every command that begins work on a server.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitArgs {
    /// Do not wait for the end; print the command that shows it
    #[arg(long)]
    pub detach: bool,
    /// Wait at most this long for the end: `90s`, `15m`, `1h`
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    pub timeout: Duration,
}

impl Default for WaitArgs {
    fn default() -> Self {
        Self {
            detach: false,
            timeout: Duration::from_secs(30 * 60),
        }
    }
}

/// Reads `90s`, `15m`, `1h 30m`, or a number of seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write it like `90s`, `15m` or `1h`".to_owned())
}

/// A point in time: RFC 3339, or how long ago (`15m`, `2h`, `7d`).
pub fn point_in_time(text: &str, now: Time) -> Result<Time, CliError> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok());
    let seconds = match days {
        Some(days) => days.checked_mul(24 * 3600),
        None => parse_duration(text)
            .ok()
            .and_then(|ago| i64::try_from(ago.as_secs()).ok()),
    };
    seconds.map(|seconds| now.plus_seconds(-seconds)).ok_or_else(|| {
        CliError::usage(format!("`--since {text}` is neither a time nor a duration"))
            .hint("write it like `2026-01-31T12:00:00Z`, `15m` or `7d`")
    })
}

/// The command that takes up a wait again.
#[must_use]
pub fn reattach_command(operation: &Operation) -> String {
    format!("systemprompt operation show {} --follow", operation.id)
}

/// Shows an operation's events until it ends; answers its last row, whatever that says.
///
/// Ctrl-C leaves the work going on and prints the command that takes it up again.
pub async fn watch(
    context: &Context,
    operation: &Operation,
    title: &str,
    timeout: Duration,
) -> Result<Operation, CliError> {
    // Whoever called may know a better command.
    let is_ours = context.offer_reattach(reattach_command(operation));
    let reporter = context.ui().progress();
    reporter.wait(WAIT, title);
    let id = operation.id.clone();
    let mut listener = |update: Update<'_>| {
        match update {
            Update::Event(event) if event.operation_id.as_ref() == Some(&id) => {
                reporter.line(&event_line(event));
            }
            Update::Event(_) => {}
            Update::Operation(operation) => reporter.wait(WAIT, &standing(title, operation)),
            Update::Waiting(error) => waiting(&reporter, title, &error.to_string()),
            Update::Back => reporter.line("the server answers again"),
        }
        ControlFlow::Continue(())
    };
    let ended = context
        .client()?
        .follow_operation(operation, operation.events_after, timeout, &mut listener)
        .await;
    reporter.wait_over(WAIT);
    let ended = ended.map_err(|error| unheard(error, operation))?;
    if is_ours {
        context.set_reattach(None);
    }
    Ok(ended)
}

/// Waits for an operation that was just begun, unless told to detach; answers it when it has succeeded.
///
/// `None`: detached; the document and the command that takes it up again are written already.
pub async fn wait(
    context: &Context,
    operation: Operation,
    title: &str,
    args: &WaitArgs,
) -> Result<Option<Operation>, CliError> {
    if args.detach {
        let command = reattach_command(&operation);
        context.ui().done(
            &json!({ "operation": operation }),
            format!("begun; see how it ends with `{command}`"),
        )?;
        return Ok(None);
    }
    let ended = watch(context, &operation, title, args.timeout).await?;
    concluded(ended).map(Some)
}

/// An operation that did not succeed as an error, with the way out.
pub fn concluded(operation: Operation) -> Result<Operation, CliError> {
    let status = match operation.status {
        OperationStatus::Succeeded => return Ok(operation),
        OperationStatus::Stuck => "is stuck",
        OperationStatus::Abandoned => "was abandoned",
        OperationStatus::Undone => "was undone",
        OperationStatus::Failed => "failed",
        OperationStatus::Queued | OperationStatus::Running | OperationStatus::Undoing => "has not ended",
    };
    let kind = match (operation.kind.as_str(), operation.status) {
        ("deploy" | "rollback", OperationStatus::Stuck) => Kind::DeployStuck,
        ("deploy" | "rollback", _) => Kind::DeployFailed,
        _ => Kind::Failed,
    };
    let id = &operation.id;
    let Some(error) = &operation.error else {
        return Err(
            CliError::new(kind, format!("operation {id} ({}) {status}", operation.kind))
                .hint(format!("look at it with `systemprompt operation show {id}`")),
        );
    };
    let message = format!(
        "{} {status} at step `{}`: {}",
        operation.kind, error.step, error.message
    );
    let mut failure = CliError::new(kind, message)
        .code(error.code.as_str())
        .details(error.log_tail.iter().cloned());
    if let Some(hint) = &error.hint {
        failure = failure.hint(hint.as_str());
    }
    if operation.status == OperationStatus::Stuck {
        failure = failure.hint(format!(
            "try again with `systemprompt operation retry {id}`, or give up with `systemprompt operation abandon {id}`"
        ));
    }
    Err(failure)
}

/// The server went away in the middle and did not come back: what becomes of the work, and how to see it.
fn unheard(error: ClientError, operation: &Operation) -> CliError {
    if !error.is_passing() {
        return error.into();
    }
    let reattach = reattach_command(operation);
    CliError::from(error).hint(format!(
        "the server takes the work up again when it is back; see then how it ends with `{reattach}`"
    ))
}

const WAIT: &str = "operation";

/// An event as a line of progress.
#[must_use]
pub fn event_line(event: &Event) -> String {
    let mark = if event.event.ends_with("_failed") {
        style("x").for_stderr().red()
    } else if event.event == "step_retrying" || event.event == "release_rolled_back" {
        style("!").for_stderr().yellow()
    } else {
        style("-").for_stderr().green()
    };
    format!("  {mark} {}", event.message)
}

fn standing(title: &str, operation: &Operation) -> String {
    let done = operation
        .steps
        .iter()
        .filter(|step| step.status == "done")
        .count();
    let running = operation.steps.iter().find(|step| step.status == "running");
    let all = operation.steps.len();
    match running {
        Some(step) => format!("{title}: {done} of {all} steps, now {}", step.name),
        None => format!("{title}: {done} of {all} steps"),
    }
}

fn waiting(reporter: &Reporter, title: &str, reason: &str) {
    if reporter.draws() {
        reporter.wait(WAIT, &format!("{title}: {reason}; still trying"));
    } else {
        reporter.line(&format!("{reason}; still trying"));
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_duration, point_in_time};
    use crate::api::time::Time;
    use std::time::Duration;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Time::from_millis(1_000_000_000);
        assert_eq!(point_in_time("15m", now).ok(), Some(now.plus_seconds(-900)));
        assert_eq!(point_in_time("7d", now).ok(), Some(now.plus_seconds(-7 * 86400)));
        let time = point_in_time("1970-01-01T00:00:01Z", now).expect("a time");
        assert_eq!(time, Time::from_millis(1000));
        assert!(point_in_time("yesterday", now).is_err());
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        assert_eq!(parse_duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("-5s").is_err());
    }
}
