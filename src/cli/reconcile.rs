//! `systemprompt server reconcile`: compares the ledger of a running server with what its provider has.

use serde_json::json;

use crate::api::drift::{Drift, ReconcileReport};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{self, WaitArgs};
use crate::cli::ui::Table;

/// Flags of `systemprompt server reconcile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look and report, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Asks a running server, as one of its operators.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let mut report = context.client()?.reconcile(args.dry_run).await?;
    if !args.wait.detach {
        for operation in &mut report.operations {
            *operation = follow::watch(context, operation, "Mending", args.wait.timeout).await?;
        }
        for operation in &report.operations {
            follow::concluded(operation.clone())?;
        }
    }
    context.ui().result(&json!(report), || text(&report))
}

fn text(report: &ReconcileReport) -> String {
    let tenants = match report.tenants {
        1 => "1 tenant".to_owned(),
        count => format!("{count} tenants"),
    };
    if report.drift.is_empty() {
        return format!("{tenants} looked at; the ledger and the provider agree");
    }
    let mut table = Table::new(&["TENANT", "KIND", "NAME", "FOUND", "DONE"]);
    for one in &report.drift {
        let tenant = one.tenant.clone().unwrap_or_else(|| one.tenant_id.clone());
        table.row([
            tenant,
            one.kind.clone(),
            one.external_id.clone(),
            one.found.clone(),
            done(report, one),
        ]);
    }
    format!("{}\n{tenants} looked at", table.render().trim_end())
}

fn done(report: &ReconcileReport, one: &Drift) -> String {
    let word = match (one.action.as_str(), report.dry_run) {
        ("mend", true) => "would be mended",
        ("mend", false) => "mended",
        _ => "nothing",
    };
    if one.detail.is_empty() {
        return word.to_owned();
    }
    format!("{word}: {}", one.detail)
}
