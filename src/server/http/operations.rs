//! Operations: how they stand, and the two decisions about one that does not go on.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::OperationId;
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::server::http::App;
use crate::server::http::error::Answer;
use crate::server::http::extract::{Caller, Ids};
use crate::server::http::shown::{Accepted, shown_operation};
use crate::server::store::operations;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_operation))
        .routes(routes!(retry_operation))
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
) -> Answer<Accepted> {
    app.read_operation(&caller, &id, Scope::Admin).await?;
    app.provision.retry(&id).await?;
    read_again(&app, &id).await.map(Accepted)
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
) -> Answer<Json<Operation>> {
    app.read_operation(&caller, &id, Scope::Admin).await?;
    app.provision.abandon(&id).await?;
    read_again(&app, &id).await.map(Json)
}

async fn read_again(app: &App, id: &OperationId) -> Answer<Operation> {
    let mut tx = app.store.begin_read().await?;
    let row = operations::get(&mut tx, id).await?;
    Ok(shown_operation(&mut tx, row).await?)
}
