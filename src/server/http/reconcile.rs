//! The reconciler on demand: what differs between the ledger and the provider, and its mending.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::drift::{ReconcileReport, ReconcileRequest};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Json as StrictJson};
use crate::server::http::shown::shown_operation;
use crate::server::provision::ReconcileError;
use crate::server::store::operations;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(reconcile))
}

/// Compare the ledger of every tenant with what the provider has, and mend what is ours; for operators.
#[utoipa::path(
    post, path = "/api/v1/reconcile", tag = "Server", request_body = ReconcileRequest,
    responses((status = 200, body = ReconcileReport))
)]
async fn reconcile(
    State(app): State<App>,
    Caller(caller): Caller,
    StrictJson(request): StrictJson<ReconcileRequest>,
) -> Answer<Json<ReconcileReport>> {
    caller.require_operator()?;
    let found = app
        .provision
        .reconcile(request.dry_run, Some(&caller.email))
        .await?;
    let mut report = found.report;
    let mut tx = app.store.begin_read().await?;
    for id in &found.operations {
        let row = operations::get(&mut tx, id).await?;
        report.operations.push(shown_operation(&mut tx, row).await?);
    }
    Ok(Json(report))
}

impl From<ReconcileError> for ApiError {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Provider(error) => Self::unavailable("the provider", &error),
            ReconcileError::Store(error) => error.into(),
        }
    }
}
