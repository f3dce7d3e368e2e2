//! Releases: what ran, which of them are kept, and the way back to one.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::api::page::{Page, PageQuery};
use crate::api::release::{Refusal, Release, RollbackPlan, RollbackQuery, RollbackRequest};
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::http::problem;
use crate::server::http::tenants::begin;
use crate::server::provision::{RollbackParams, Work};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, acts, releases, tenants};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_releases))
        .routes(routes!(get_release))
        .routes(routes!(pin_release))
        .routes(routes!(unpin_release))
        .routes(routes!(plan_rollback, rollback_tenant))
}

/// The tenant's releases, newest first.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/releases", tag = "Deploying", params(PageQuery),
    responses((status = 200, body = Page<Release>))
)]
async fn list_releases(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Release>> {
    let wanted = Wanted::new(&query)?;
    let before: Option<u32> = wanted.after()?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let rows = releases::list(&mut tx, &id, before, wanted.rows()).await?;
    let path = format!("/api/v1/tenants/{id}/releases");
    Ok(wanted
        .page(&path, rows, |row| row.release.number.to_string())
        .map(|row| row.release))
}

/// One release.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/releases/{number}", tag = "Deploying",
    responses((status = 200, body = Release))
)]
async fn get_release(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, number)): Ids<(TenantId, u32)>,
) -> Answer<Json<Release>> {
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    releases::find(&mut tx, &id, number)
        .await?
        .map(|row| Json(row.release))
        .ok_or_else(|| ApiError::not_found("release"))
}

/// Keep the image of a release whatever its age.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/releases/{number}/pin", tag = "Deploying",
    responses((status = 200, body = Release))
)]
async fn pin_release(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, number)): Ids<(TenantId, u32)>,
) -> Answer<Json<Release>> {
    set_pinned(&app, &caller, (&id, number), true).await.map(Json)
}

/// Keep the image of a release only as long as it is one of the last.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/releases/{number}/unpin", tag = "Deploying",
    responses((status = 200, body = Release))
)]
async fn unpin_release(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, number)): Ids<(TenantId, u32)>,
) -> Answer<Json<Release>> {
    set_pinned(&app, &caller, (&id, number), false).await.map(Json)
}

async fn set_pinned(
    app: &App,
    caller: &Principal,
    (id, number): (&TenantId, u32),
    pinned: bool,
) -> Answer<Release> {
    let (mut tx, _) = app.write_tenant(caller, id, Scope::Deploy).await?;
    // The collector holds the same row: what is pinned here is either kept or known to be gone.
    tenants::get_locked(&mut tx, id).await?;
    let found = releases::find(&mut tx, id, number).await?;
    let mut release = found.ok_or_else(|| ApiError::not_found("release"))?.release;
    if let Some(at) = release.collected_at.filter(|_| pinned) {
        let detail = format!("the image of v{number} was removed from the registry at {at}");
        return Err(ApiError::new(&problem::RELEASE_COLLECTED, detail)
            .hint("see which releases can be kept with `systemprompt releases`"));
    }
    releases::set_pinned(&mut tx, id, number, pinned).await?;
    tx.commit().await?;
    release.pinned = pinned;
    Ok(release)
}

/// What going back would change, which migrations ran since, and what is against it. Changes nothing.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/rollback", tag = "Deploying", params(RollbackQuery),
    responses((status = 200, body = RollbackPlan))
)]
async fn plan_rollback(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<RollbackQuery>,
) -> Answer<Json<RollbackPlan>> {
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    plan(&app, &mut tx, &tenant, query.release).await.map(Json)
}

/// Restore an earlier release whole, as a new one: image, variables, secrets, memory. The database stays as it is.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/rollback", tag = "Deploying", request_body = RollbackRequest,
    responses((status = 202, body = Operation))
)]
async fn rollback_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(request): StrictJson<RollbackRequest>,
) -> Answer<Response> {
    if request
        .message
        .as_ref()
        .is_some_and(|message| message.chars().count() > 500)
    {
        return Err(ApiError::invalid("message", "has at most 500 characters"));
    }
    let (mut tx, _) = app.write_tenant(&caller, &id, Scope::Deploy).await?;
    let tenant = tenants::get_locked(&mut tx, &id).await?;
    let plan = plan(&app, &mut tx, &tenant, request.release).await?;
    acts::about(&format!("v{}", plan.to));
    let refused = plan.refusals.iter().find(|refusal| {
        !(request.allow_irreversible && refusal.code == problem::IRREVERSIBLE_MIGRATION.code)
    });
    if let Some(refusal) = refused {
        return Err(refused_by(refusal));
    }
    let params = RollbackParams {
        release: plan.to,
        message: request.message,
    };
    let accepted = begin(&mut tx, &app, &caller, (&id, Work::Rollback(params))).await?;
    let answer = commit(&app, tx, accepted).await?;
    app.provision.wake();
    Ok(answer)
}

/// The plan of provisioning, and what the tenant's plan allows.
async fn plan(app: &App, tx: &mut Tx, tenant: &TenantRow, wanted: Option<u32>) -> Answer<RollbackPlan> {
    let mut plan = app.provision.rollback_plan(tx, tenant, wanted).await?;
    if let Err(error) = app.billing.check_memory(&tenant.plan, plan.release.memory_mb) {
        plan.refusals.push(Refusal {
            code: problem::PLAN_LIMIT.code.to_owned(),
            detail: format!("v{} ran with {} MB: {error}", plan.to, plan.release.memory_mb),
            hint: "choose a larger plan, or go back to another release".to_owned(),
        });
    }
    Ok(plan)
}

fn refused_by(refusal: &Refusal) -> ApiError {
    let kinds = [
        &problem::RELEASE_COLLECTED,
        &problem::SECRETS_MISSING,
        &problem::IRREVERSIBLE_MIGRATION,
        &problem::PLAN_LIMIT,
    ];
    let kind = kinds.into_iter().find(|kind| kind.code == refusal.code);
    ApiError::new(kind.unwrap_or(&problem::RELEASE_STATE), refusal.detail.as_str())
        .hint(refusal.hint.as_str())
}
