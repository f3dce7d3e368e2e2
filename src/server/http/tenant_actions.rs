//! What can be done to a tenant by one word: suspend, activate, restart, retry, rotate.

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::api::tenant::{JWT_OVERLAP_SECONDS, LONGEST_JWT_OVERLAP_SECONDS, RotateJwtSecret};
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson};
use crate::server::http::idempotency::commit;
use crate::server::http::operations::decide;
use crate::server::http::problem;
use crate::server::http::tenants::begin;
use crate::server::provision::{Decision, Work};
use crate::server::store::operations;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(suspend_tenant))
        .routes(routes!(activate_tenant))
        .routes(routes!(restart_tenant))
        .routes(routes!(retry_provision))
        .routes(routes!(rotate_credentials, rotate_credentials_by_patch))
        .routes(routes!(rotate_jwt_secret))
}

async fn act(app: &App, caller: &Principal, id: &TenantId, (scope, work): (Scope, Work)) -> Answer<Response> {
    let (mut tx, _) = app.write_tenant(caller, id, scope).await?;
    let accepted = begin(&mut tx, app, caller, (id, work)).await?;
    let answer = commit(app, tx, accepted).await?;
    app.provision.wake();
    Ok(answer)
}

/// Stop its compute and keep its data.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/suspend", tag = "Tenants",
    responses((status = 202, body = Operation))
)]
async fn suspend_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Response> {
    act(&app, &caller, &id, (Scope::Admin, Work::Suspend)).await
}

/// Start it again.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/activate", tag = "Tenants",
    responses((status = 202, body = Operation))
)]
async fn activate_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Response> {
    act(&app, &caller, &id, (Scope::Admin, Work::Activate)).await
}

/// Replace what runs by the same release, without a gap.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/restart", tag = "Tenants",
    responses((status = 202, body = Operation))
)]
async fn restart_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Response> {
    act(&app, &caller, &id, (Scope::Deploy, Work::Restart)).await
}

/// Take up a creation that failed or is stuck.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/retry-provision", tag = "Tenants",
    responses((status = 202, body = Operation))
)]
async fn retry_provision(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Admin).await?;
    let created = operations::find_newest(&mut tx, &tenant.id, Work::CreateTenant.kind()).await?;
    drop(tx);
    let created = created.ok_or_else(|| {
        ApiError::new(
            &problem::TENANT_STATE,
            "nothing has tried to create this tenant yet",
        )
    })?;
    decide(&app, Decision::Retry, &created.id).await
}

/// Give the tenant a new database login and let the old one go, without a gap.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/rotate-credentials", tag = "Secrets",
    responses((status = 202, body = Operation))
)]
async fn rotate_credentials(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Response> {
    act(&app, &caller, &id, (Scope::Secrets, Work::RotateCredentials)).await
}

/// Give the tenant another secret to sign its own tokens with. For a time its releases know the former one too
/// (`JWT_SECRET_PREVIOUS`), so that tokens that were signed before stay good.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/rotate-jwt-secret", tag = "Secrets", request_body = RotateJwtSecret,
    responses((status = 202, body = Operation))
)]
async fn rotate_jwt_secret(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(wanted): StrictJson<RotateJwtSecret>,
) -> Answer<Response> {
    let overlap_seconds = wanted.overlap_seconds.unwrap_or(JWT_OVERLAP_SECONDS);
    if overlap_seconds > LONGEST_JWT_OVERLAP_SECONDS {
        let detail = format!("must be at most {LONGEST_JWT_OVERLAP_SECONDS}: 30 days");
        return Err(ApiError::invalid("overlap_seconds", detail));
    }
    let work = match (wanted.end_overlap, wanted.overlap_seconds) {
        (true, Some(_)) => {
            let detail = "has no meaning where the former secret goes now";
            return Err(ApiError::invalid("overlap_seconds", detail));
        }
        (true, None) => Work::EndJwtOverlap,
        (false, _) => Work::RotateJwtSecret { overlap_seconds },
    };
    act(&app, &caller, &id, (Scope::Secrets, work)).await
}

/// The same as `POST`.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant_id}/rotate-credentials", tag = "Secrets",
    responses((status = 202, body = Operation))
)]
async fn rotate_credentials_by_patch(
    state: State<App>,
    caller: Caller,
    id: Ids<TenantId>,
) -> Answer<Response> {
    rotate_credentials(state, caller, id).await
}
