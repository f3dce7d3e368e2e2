//! Support: doors that an owner opens for the server's operators, for a time. Whatever comes in by one is in the audit.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::{SupportGrantId, TenantId};
use crate::api::member::{MAX_SUPPORT_SECONDS, MIN_SUPPORT_SECONDS, OpenSupport, SupportGrant};
use crate::api::oauth::Scope;
use crate::api::page::{Page, PageQuery};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::http::secrets::check_living;
use crate::server::store::{acts, support_grants};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_support_grants, open_support))
        .routes(routes!(close_support))
}

/// Every door that was opened for support, newest first, whether or not it is open still.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/support-grants", tag = "Members", params(PageQuery),
    responses((status = 200, body = Page<SupportGrant>))
)]
async fn list_support_grants(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<SupportGrant>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let all = support_grants::list(&mut tx, &id, app.clock.now()).await?;
    let path = format!("/api/v1/tenants/{id}/support-grants");
    Ok(wanted.window(&path, all, |grant| grant.id.to_string()))
}

/// Let the server's operators in for a time: `read` as a viewer, `full` as a developer.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/support-grants", tag = "Members", request_body = OpenSupport,
    responses((status = 201, body = SupportGrant))
)]
async fn open_support(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(wanted): StrictJson<OpenSupport>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    check_living(&tenant)?;
    let life = wanted.expires_in_seconds;
    if !(MIN_SUPPORT_SECONDS..=MAX_SUPPORT_SECONDS).contains(&life) {
        return Err(ApiError::invalid(
            "expires_in_seconds",
            format!("must be {MIN_SUPPORT_SECONDS} to {MAX_SUPPORT_SECONDS} (seven days), not {life}"),
        ));
    }
    let now = app.clock.now();
    let grant = SupportGrant {
        id: SupportGrantId::new(app.clock.uuid()),
        access: wanted.access,
        open: true,
        opened_by: caller.email,
        opened_at: now,
        expires_at: now.plus_seconds(i64::try_from(life).unwrap_or(i64::MAX)),
        closed_by: None,
        closed_at: None,
    };
    acts::about(&format!("{} {} for {life} s", grant.id, grant.access.as_str()));
    support_grants::open(&mut tx, &id, &grant).await?;
    commit(&app, tx, (StatusCode::CREATED, Json(grant))).await
}

/// Close a door before it closes by itself.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant_id}/support-grants/{grant_id}", tag = "Members",
    responses((status = 204))
)]
async fn close_support(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, grant)): Ids<(TenantId, SupportGrantId)>,
) -> Answer<Response> {
    let (mut tx, _) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    acts::about(grant.as_str());
    let by = (caller.email.as_str(), app.clock.now());
    if !support_grants::close(&mut tx, &id, &grant, by).await? {
        return Err(ApiError::not_found("open support grant"));
    }
    commit(&app, tx, StatusCode::NO_CONTENT).await
}
