//! `systemprompt tenant status`: how every part of a tenant is.

use serde_json::json;

use crate::api::operation::{OperationStatus, OperationSummary};
use crate::api::tenant::{Part, TenantReport};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::operation::status_word as status_word_of;
use crate::cli::tenant::pick::{Picked, pick};
use crate::cli::tenant::show::{Lines, shown, status_word};
use crate::cli::tenant::{TenantArg, local};

/// Shows the parts of a tenant.
pub(super) async fn run(context: &Context, tenant: TenantArg) -> Result<(), CliError> {
    let id = match pick(context, tenant.text()).await? {
        Picked::Cloud(id) => id,
        Picked::Local(entry) => return local::status(context, &entry).await,
    };
    let mut report = context.client()?.tenant_status(&id).await?;
    report.tenant = shown(&report.tenant);
    context.ui().result(&json!(report), || text(&report))
}

fn text(report: &TenantReport) -> String {
    let mut lines = Lines::default();
    lines.add("tenant", report.tenant.name.as_str());
    lines.add("status", status_word(report.tenant.status));
    lines.add("url", &report.tenant.url);
    match &report.release {
        Some(release) => lines.add("release", &format!("v{} {}", release.number, release.digest)),
        None => lines.add("release", "none yet"),
    }
    lines.add("machine", &part(&report.machine));
    lines.add("database", &part(&report.database));
    lines.add("edge", &part(&report.edge));
    lines.add("certificate", &part(&report.certificate));
    if let Some(operation) = &report.current_operation {
        lines.add("operation", &standing(operation));
        if let Some(worker) = &operation.worker {
            lines.add("held by", &format!("{}, since {}", worker.name, worker.since));
        }
        if operation.status == OperationStatus::Stuck {
            let id = &operation.id;
            lines.add(
                "way out",
                &format!("`systemprompt operation retry {id}` or `systemprompt operation abandon {id}`"),
            );
        }
    }
    lines.text
}

fn standing(operation: &OperationSummary) -> String {
    format!(
        "{} {} ({}), asked for by {} at {}",
        operation.kind,
        status_word_of(operation.status),
        operation.id,
        operation.requested_by,
        operation.created_at,
    )
}

fn part(part: &Part) -> String {
    if part.detail.is_empty() || part.detail == part.state {
        part.state.clone()
    } else {
        format!("{} ({})", part.state, part.detail)
    }
}
