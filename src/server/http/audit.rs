//! The audit: of one tenant for its owner, of everything for operators, and whether its chain is whole.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::audit::{AuditEntry, AuditQuery, AuditVerdict, VerifyQuery};
use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::page::{Page, PageQuery};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Params};
use crate::server::http::page::{Paged, Wanted};
use crate::server::store::{StoreError, audit};

const AUDIT: &str = "/api/v1/audit";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_audit))
        .routes(routes!(verify_audit))
        .routes(routes!(list_tenant_audit))
}

/// Every act on the installation, oldest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "Audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>))
)]
async fn list_audit(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<AuditQuery>,
) -> Answer<Paged<AuditEntry>> {
    caller.require_operator()?;
    let (wanted, after) = wanted(&query)?;
    let mut tx = app.store.begin_read().await?;
    let entries = audit::list(&mut tx, None, (after, query.since), wanted.rows()).await?;
    Ok(wanted.page(&path(AUDIT, &query), entries, |entry| entry.seq.to_string()))
}

/// Every act on a tenant, oldest first.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/audit", tag = "Audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditEntry>))
)]
async fn list_tenant_audit(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<AuditQuery>,
) -> Answer<Paged<AuditEntry>> {
    let (wanted, after) = wanted(&query)?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Admin).await?;
    let entries = audit::list(&mut tx, Some(&id), (after, query.since), wanted.rows()).await?;
    let path = path(&format!("/api/v1/tenants/{id}/audit"), &query);
    Ok(wanted.page(&path, entries, |entry| entry.seq.to_string()))
}

/// Verify a stretch of the chain: whether a row was changed, removed or put elsewhere. Ask again until it is finished.
#[utoipa::path(
    get, path = "/api/v1/audit/verify", tag = "Audit", params(VerifyQuery),
    responses((status = 200, body = AuditVerdict))
)]
async fn verify_audit(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<VerifyQuery>,
) -> Answer<Json<AuditVerdict>> {
    caller.require_operator()?;
    let mut tx = app.store.begin_read().await?;
    match audit::verify(&mut tx, query.after.unwrap_or(0)).await {
        Ok(verdict) => Ok(Json(verdict)),
        Err(StoreError::Missing { .. }) => Err(ApiError::invalid("after", "there is no such row")),
        Err(error) => Err(error.into()),
    }
}

fn wanted(query: &AuditQuery) -> Answer<(Wanted, u64)> {
    let wanted = Wanted::new(&PageQuery {
        limit: query.limit,
        cursor: query.cursor.clone(),
    })?;
    // Both databases count in 63 bits.
    let after: Option<i64> = wanted.after()?;
    Ok((wanted, after.map_or(0, |seq| seq.max(0).unsigned_abs())))
}

/// The list's own address, for the link to its next page.
fn path(list: &str, query: &AuditQuery) -> String {
    match query.since {
        Some(since) => format!("{list}?since={since}"),
        None => list.to_owned(),
    }
}
