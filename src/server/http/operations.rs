//! Operations: how they stand, and the decisions about one: go on, go back, give up.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::OperationId;
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::server::http::App;
use crate::server::http::error::Answer;
use crate::server::http::extract::{Caller, Ids};
use crate::server::http::idempotency::commit;
use crate::server::http::shown::{Accepted, shown_operation};
use crate::server::provision::Decision;
use crate::server::store::operations;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_operation))
        .routes(routes!(retry_operation))
        .routes(routes!(cancel_operation))
        .routes(routes!(abandon_operation))
}

/// How an operation stands, with its steps.
#[utoipa::path(
    get, path = "/api/v1/operations/{operation_id}", tag = "Operations",
    responses((status = 200, body = Operation))
)]
async fn get_operation(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<OperationId>,
) -> Answer<Json<Operation>> {
    let (mut tx, row) = app.read_operation(&caller, &id, Scope::Read).await?;
    Ok(Json(shown_operation(&mut tx, row).await?))
}

/// Run an operation again that failed or is stuck; its steps that are done stay done.
#[utoipa::path(
    post, path = "/api/v1/operations/{operation_id}/retry", tag = "Operations",
    responses((status = 202, body = Operation))
)]
async fn retry_operation(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<OperationId>,
) -> Answer<Response> {
    app.read_operation(&caller, &id, Scope::Admin).await?;
    decide(&app, Decision::Retry, &id).await
}

/// Take back what an operation has made so far; refused once that is not possible any more.
#[utoipa::path(
    post, path = "/api/v1/operations/{operation_id}/cancel", tag = "Operations",
    responses((status = 202, body = Operation))
)]
async fn cancel_operation(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<OperationId>,
) -> Answer<Response> {
    app.read_operation(&caller, &id, Scope::Admin).await?;
    decide(&app, Decision::Cancel, &id).await
}

/// Give an operation up; what it has left is in the ledger.
#[utoipa::path(
    post, path = "/api/v1/operations/{operation_id}/abandon", tag = "Operations",
    responses((status = 200, body = Operation))
)]
async fn abandon_operation(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<OperationId>,
) -> Answer<Response> {
    app.read_operation(&caller, &id, Scope::Admin).await?;
    decide(&app, Decision::Abandon, &id).await
}

/// Carries out a decision, with its answer in the same transaction.
///
/// # Errors
/// There is nothing to decide, or the store fails.
pub async fn decide(app: &App, decision: Decision, id: &OperationId) -> Answer<Response> {
    let mut tx = app.store.begin().await?;
    app.provision.decide(&mut tx, decision, id).await?;
    let row = operations::get(&mut tx, id).await?;
    let tenant = row.tenant_id.clone();
    let operation = shown_operation(&mut tx, row).await?;
    let answer = match decision {
        Decision::Abandon => Json(operation).into_response(),
        Decision::Retry | Decision::Cancel => Accepted(operation).into_response(),
    };
    let answer = commit(app, tx, answer).await?;
    app.provision.decided(&tenant);
    Ok(answer)
}
