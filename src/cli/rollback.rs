//! `systemprompt rollback`: an earlier release whole, as a new one.

use serde_json::json;

use crate::api::id::TenantId;
use crate::api::release::{Refusal, Release, ReleaseStatus, RollbackPlan, RollbackRequest};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::releases::{self, ReleaseNumber, short};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Prompt;

/// Flags of `systemprompt rollback`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The release to restore: `v3` or `3` [default: the newest that served before and differs]
    release: Option<ReleaseNumber>,
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only show what would change and what is against it
    #[arg(long)]
    plan: bool,
    /// Why, for the list of releases
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Go back even past migrations that cannot be taken back
    #[arg(long)]
    allow_irreversible: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Asks for a release, then goes back to it: the menu's way in.
pub(in crate::cli) async fn run_asked(context: &Context, id: &TenantId) -> Result<(), CliError> {
    let could =
        |release: &Release| release.status == ReleaseStatus::Superseded && release.collected_at.is_none();
    let number = releases::ask(context, id, could).await?;
    let args = Args {
        release: Some(ReleaseNumber(number)),
        tenant: Some(id.to_string()),
        ..Args::default()
    };
    run(context, args).await
}

/// Goes back to an earlier release.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let client = context.client()?;
    let wanted = args.release.map(|release| release.0);
    let plan = client.rollback_plan(&id, wanted).await?;
    if args.plan {
        return context.ui().result(&plan, || text(&plan));
    }
    let against = plan
        .refusals
        .iter()
        .find(|refusal| !(args.allow_irreversible && refusal.code == IRREVERSIBLE));
    if let Some(refusal) = against {
        return Err(refused(refusal));
    }
    confirm(context, &args, &plan).await?;
    let request = RollbackRequest {
        release: Some(plan.to),
        message: args.message.clone(),
        allow_irreversible: args.allow_irreversible,
    };
    let operation = client.rollback(&id, &request).await?;
    let title = format!("Rolling back to v{}", plan.to);
    let ended = wait(context, operation, &title, &args.wait).await;
    let Some(operation) = ended.map_err(|error| serves_on(error, &plan))? else {
        return Ok(());
    };
    let number = operation
        .result
        .get("release")
        .and_then(serde_json::Value::as_u64);
    let document = json!({
        "tenant_id": id,
        "release": number,
        "restores": plan.to,
        "digest": operation.result.get("digest"),
        "url": operation.result.get("url"),
        "operation_id": operation.id,
    });
    let which = number.map_or_else(|| "a new release".to_owned(), |number| format!("v{number}"));
    context
        .ui()
        .done(&document, format!("{which} serves: v{} restored", plan.to))
}

/// The one refusal that a flag overrides.
const IRREVERSIBLE: &str = "irreversible-migration";

fn refused(refusal: &Refusal) -> CliError {
    let kind = if refusal.code == "plan-limit" {
        Kind::Payment
    } else {
        Kind::Conflict
    };
    CliError::new(kind, refusal.detail.as_str())
        .code(refusal.code.as_str())
        .hint(refusal.hint.as_str())
}

fn serves_on(error: CliError, plan: &RollbackPlan) -> CliError {
    match error.kind {
        Kind::DeployFailed => error.hint(format!("v{} serves on", plan.from)),
        _ => error,
    }
}

async fn confirm(context: &Context, args: &Args, plan: &RollbackPlan) -> Result<(), CliError> {
    let ui = context.ui();
    if args.yes {
        for warning in &plan.warnings {
            ui.warning(warning);
        }
        return Ok(());
    }
    if ui.interactive() {
        ui.notice(text(plan).trim_end());
    }
    let question = format!("Go back from v{} to v{}?", plan.from, plan.to);
    if ui.ask_confirm(Prompt::new(&question, "--yes"), false).await? {
        return Ok(());
    }
    Err(CliError::failed("nothing was changed"))
}

fn text(plan: &RollbackPlan) -> String {
    let mut text = format!(
        "v{} serves; a rollback restores v{} as a new release\n",
        plan.from, plan.to
    );
    let width = plan
        .differences
        .iter()
        .map(|difference| difference.what.chars().count())
        .max()
        .unwrap_or_default();
    for difference in &plan.differences {
        let show = |side: &Option<String>| match side {
            Some(value) if value.starts_with("sha256:") => short(value),
            Some(value) => value.clone(),
            None => "(none)".to_owned(),
        };
        let (from, to) = (show(&difference.from), show(&difference.to));
        text.push_str(&format!("  {:<width$}  {from} -> {to}\n", difference.what));
    }
    if plan.differences.is_empty() {
        text.push_str("  nothing differs\n");
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for refusal in &plan.refusals {
        text.push_str(&format!("refused: {}\nhint: {}\n", refusal.detail, refusal.hint));
    }
    text
}
