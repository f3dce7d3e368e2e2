//! Plans and purchases.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::checkout::{Checkout, CheckoutRequest, Plan};
use crate::api::id::CheckoutId;
use crate::api::oauth::Scope;
use crate::api::page::Page;
use crate::server::billing::Buyer;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson};
use crate::server::http::idempotency::commit;
use crate::server::store::{acts, checkouts};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_plans))
        .routes(routes!(list_checkout_plans))
        .routes(routes!(create_checkout))
        .routes(routes!(get_checkout))
}

/// What can be bought.
#[utoipa::path(get, path = "/api/v1/plans", tag = "Plans", responses((status = 200, body = Page<Plan>)))]
async fn list_plans(State(app): State<App>) -> Json<Page<Plan>> {
    Json(Page {
        data: app.billing.plans().to_vec(),
        next_cursor: None,
    })
}

/// What can be bought: the same as `/api/v1/plans`.
#[utoipa::path(
    get, path = "/api/v1/checkout/plans", tag = "Plans",
    responses((status = 200, body = Page<Plan>))
)]
async fn list_checkout_plans(app: State<App>) -> Json<Page<Plan>> {
    list_plans(app).await
}

/// Buy a tenant. A free plan completes at once; any other answers where it is paid.
#[utoipa::path(
    post, path = "/api/v1/checkout", tag = "Plans", request_body = CheckoutRequest,
    responses((status = 201, body = Checkout))
)]
async fn create_checkout(
    State(app): State<App>,
    Caller(caller): Caller,
    StrictJson(request): StrictJson<CheckoutRequest>,
) -> Answer<Response> {
    caller.require_account(Scope::Admin)?;
    let buyer = Buyer {
        account_id: caller.account_id,
        email: caller.email,
    };
    let mut tx = app.store.begin().await?;
    let row = app.billing.begin(&mut tx, &buyer, &request).await?;
    acts::about(row.id.as_str());
    if let Some(made) = &row.made {
        acts::on_tenant(&made.tenant_id, Some("owner"));
    }
    let checkout = app.billing.shown(&row, &app.public_url);
    let location = HeaderValue::from_str(&format!("/api/v1/checkout/{}", checkout.checkout_id));
    let mut response = (StatusCode::CREATED, Json(checkout)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    let response = commit(&app, tx, response).await?;
    app.provision.wake();
    Ok(response)
}

/// How a purchase stands.
#[utoipa::path(
    get, path = "/api/v1/checkout/{checkout_id}", tag = "Plans",
    responses((status = 200, body = Checkout))
)]
async fn get_checkout(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<CheckoutId>,
) -> Answer<Json<Checkout>> {
    caller.require_account(Scope::Read)?;
    let mut tx = app.store.begin_read().await?;
    let row = checkouts::find(&mut tx, &id)
        .await?
        .filter(|row| row.account_id == caller.account_id)
        .ok_or_else(|| ApiError::not_found("checkout"))?;
    Ok(Json(app.billing.shown(&row, &app.public_url)))
}
