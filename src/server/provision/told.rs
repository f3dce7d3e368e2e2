//! What the log and the counters are told of operations. Each failure is logged once, with its causes.

use crate::api::drift::ReconcileReport;
use crate::api::time::Time;
use crate::server::provision::context::{Case, Failure};
use crate::server::provision::saga::{Ending, StepDefinition};
use crate::server::store::StoreError;
use crate::server::store::operation_steps::StepRow;
use crate::server::store::operations::OperationRow;

pub(super) fn log_unrecorded(claimed: &OperationRow, error: &StoreError) {
    let error: &dyn std::error::Error = error;
    tracing::error!(operation = %claimed.id, error, "failed to record the operation");
}

type Source = Option<Box<dyn std::error::Error + Send + Sync>>;

pub(super) fn log_retry(case: &Case, definition: &StepDefinition, (what, source): (&str, Source)) {
    let error = source.as_deref().map(|error| error as &dyn std::error::Error);
    tracing::warn!(operation = %case.operation.id, step = definition.name, error, "{what}; will retry");
}

pub(super) fn log_failure(case: &Case, row: &StepRow, failure: &Failure) {
    let source = failure
        .source
        .as_deref()
        .map(|error| error as &dyn std::error::Error);
    tracing::error!(
        operation = %case.operation.id, tenant = %case.tenant.id, step = %row.name, code = %failure.code,
        error = source, "{}", failure.message,
    );
}

pub(super) fn told_drift(report: &ReconcileReport) {
    for one in &report.drift {
        tracing::warn!(
            tenant = one.tenant_id,
            kind = one.kind,
            name = one.external_id,
            found = one.found,
            action = if report.dry_run {
                "none"
            } else {
                one.action.as_str()
            },
            "drift: {}",
            one.detail,
        );
        let labels = [("kind", one.kind.clone()), ("found", one.found.clone())];
        metrics::counter!("drift_found_total", &labels).increment(1);
    }
}

pub(super) fn tell(case: &Case, ending: Ending, now: Time) {
    let (id, tenant, kind) = (&case.operation.id, &case.tenant.id, &case.operation.kind);
    let status = match ending {
        Ending::Succeeded => "succeeded",
        Ending::Failed => "failed",
        Ending::Undone => "undone",
        Ending::Stuck => "stuck",
        Ending::Abandoned => "abandoned",
    };
    match ending {
        Ending::Succeeded => tracing::info!(operation = %id, %tenant, "`{kind}` is done"),
        Ending::Stuck => {
            tracing::error!(operation = %id, %tenant, "`{kind}` needs a decision: retry or abandon")
        }
        _ => tracing::warn!(operation = %id, %tenant, "`{kind}` is taken back"),
    }
    let took = (now.as_millis() - case.operation.created_at.as_millis()) as f64 / 1000.0;
    metrics::counter!("operations_total", "kind" => kind.clone(), "status" => status).increment(1);
    metrics::histogram!("operation_duration_seconds", "kind" => kind.clone(), "status" => status)
        .record(took);
}
