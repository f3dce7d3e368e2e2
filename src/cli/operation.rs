//! `systemprompt operation`: one piece of work of a server.

use clap::Subcommand;
use serde_json::json;

use crate::api::id::OperationId;
use crate::api::operation::{Operation, OperationStatus};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{self, WaitArgs, wait};
use crate::cli::tenant::delete::forget;
use crate::cli::ui::Prompt;

/// Flags of `systemprompt operation`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show how an operation stands; with `--follow` to its end
    Show(ShowArgs),
    /// Take up an operation that failed or is stuck
    Retry(RetryArgs),
    /// Take back what an operation has made so far, while that is still possible
    Cancel(CancelArgs),
    /// Give an operation up; what it has made stays in the ledger
    Abandon(AbandonArgs),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The operation (`op_…`)
    operation: OperationId,
    /// Stay until it ends; the exit code says how it ended
    #[arg(long, short)]
    follow: bool,
    /// Wait at most this long for the end: `90s`, `15m`, `1h`
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = follow::parse_duration)]
    timeout: std::time::Duration,
}

#[derive(Debug, clap::Args)]
struct RetryArgs {
    /// The operation (`op_…`)
    operation: OperationId,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
struct CancelArgs {
    /// The operation (`op_…`)
    operation: OperationId,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, clap::Args)]
struct AbandonArgs {
    /// The operation (`op_…`)
    operation: OperationId,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A verb about one operation, as the menu chooses it.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// How it stands.
    Show,
    /// To its end.
    Follow,
    /// Go on.
    Retry,
    /// Go back.
    Cancel,
    /// Give up.
    Abandon,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub fn of(word: Word, operation: OperationId) -> Self {
        let wait = WaitArgs::default();
        let verb = match word {
            Word::Show | Word::Follow => Verb::Show(ShowArgs {
                operation,
                follow: matches!(word, Word::Follow),
                timeout: wait.timeout,
            }),
            Word::Retry => Verb::Retry(RetryArgs { operation, wait }),
            Word::Cancel => Verb::Cancel(CancelArgs { operation, wait }),
            Word::Abandon => Verb::Abandon(AbandonArgs {
                operation,
                yes: false,
            }),
        };
        Self { verb }
    }
}

/// What it is and how it stands, in a few words.
#[must_use]
pub fn heading(operation: &Operation) -> String {
    format!("{} {}", operation.kind, status_word(operation.status))
}

/// Runs the verb.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.verb {
        Verb::Show(args) => show(context, &args).await,
        Verb::Retry(args) => retry(context, &args).await,
        Verb::Cancel(args) => cancel(context, &args).await,
        Verb::Abandon(args) => abandon(context, &args).await,
    }
}

async fn show(context: &Context, args: &ShowArgs) -> Result<(), CliError> {
    let mut operation = context.client()?.get_operation(&args.operation).await?;
    if !args.follow {
        return context.ui().result(&operation, || text(&operation));
    }
    if !operation.status.is_terminal() {
        operation = follow::watch(context, &operation, &operation.kind, args.timeout).await?;
    }
    let operation = follow::concluded(operation)?;
    forget_deleted(context, &operation)?;
    context.ui().result(&operation, || text(&operation))
}

/// A deletion that has succeeded is seen to its end here instead of in the command that began it.
fn forget_deleted(context: &Context, operation: &Operation) -> Result<(), CliError> {
    if operation.kind == "delete-tenant" {
        forget(context, &operation.tenant_id)?;
    }
    Ok(())
}

async fn retry(context: &Context, args: &RetryArgs) -> Result<(), CliError> {
    let operation = context.client()?.retry_operation(&args.operation).await?;
    let title = operation.kind.clone();
    let Some(operation) = wait(context, operation, &title, &args.wait).await? else {
        return Ok(());
    };
    forget_deleted(context, &operation)?;
    context.ui().result(&operation, || text(&operation))
}

async fn cancel(context: &Context, args: &CancelArgs) -> Result<(), CliError> {
    let operation = context.client()?.cancel_operation(&args.operation).await?;
    let title = format!("Taking back {}", operation.kind);
    if args.wait.detach {
        return wait(context, operation, &title, &args.wait).await.map(drop);
    }
    let ended = follow::watch(context, &operation, &title, args.wait.timeout).await?;
    if ended.status != OperationStatus::Undone {
        follow::concluded(ended.clone())?;
        return Err(CliError::failed(format!(
            "operation {} ended before it could be taken back",
            ended.id
        )));
    }
    context.ui().done(
        &json!({ "operation": ended }),
        format!("operation {} is taken back", ended.id),
    )
}

async fn abandon(context: &Context, args: &AbandonArgs) -> Result<(), CliError> {
    let question = format!("Give up {}? What it has made stays in the ledger", args.operation);
    if !args.yes
        && !context
            .ui()
            .ask_confirm(Prompt::new(&question, "--yes"), false)
            .await?
    {
        return Err(CliError::failed("nothing was changed"));
    }
    let operation = context.client()?.abandon_operation(&args.operation).await?;
    context.ui().done(
        &json!({ "operation": operation }),
        format!("operation {} is abandoned", operation.id),
    )
}

fn text(operation: &Operation) -> String {
    let mut text = format!(
        "{} {} ({}), asked for by {} at {}\n",
        operation.kind,
        status_word(operation.status),
        operation.id,
        operation.requested_by,
        operation.created_at,
    );
    if let Some(worker) = &operation.worker {
        text.push_str(&format!("held by {} since {}\n", worker.name, worker.since));
    }
    for step in &operation.steps {
        let again = match step.attempts {
            0 | 1 => String::new(),
            attempts => format!(", {attempts} attempts"),
        };
        let why = step
            .error
            .as_deref()
            .map(|error| format!(": {error}"))
            .unwrap_or_default();
        text.push_str(&format!("  {:<8} {}{again}{why}\n", step.status, step.name));
    }
    if let Some(error) = &operation.error {
        text.push_str(&format!("why: {}\n", error.message));
        if let Some(hint) = &error.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
    }
    text
}

/// The status as people and documents write it.
#[must_use]
pub(in crate::cli) const fn status_word(status: OperationStatus) -> &'static str {
    match status {
        OperationStatus::Queued => "queued",
        OperationStatus::Running => "running",
        OperationStatus::Succeeded => "succeeded",
        OperationStatus::Failed => "failed",
        OperationStatus::Undoing => "undoing",
        OperationStatus::Undone => "undone",
        OperationStatus::Stuck => "stuck",
        OperationStatus::Abandoned => "abandoned",
    }
}
