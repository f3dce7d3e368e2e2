//! What can be seen of a tenant: its parts, environment, ledger, operations, receipt.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::{OperationId, TenantId};
use crate::api::name::{FORMER_JWT_SECRET, PLATFORM_VARIABLES};
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::api::page::{Page, PageQuery};
use crate::api::tenant::{EnvironmentEntry, Resource, TenantReport};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Params};
use crate::server::http::page::{Paged, Wanted};
use crate::server::http::shown::shown_operation;
use crate::server::store::{operations, receipts, releases, resources};

/// What stands where a value is not shown.
const MASK: &str = "••••••";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_tenant_status))
        .routes(routes!(list_environment))
        .routes(routes!(list_resources))
        .routes(routes!(list_operations))
        .routes(routes!(get_receipt))
}

/// Every part of the tenant, as it is now.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/status", tag = "Tenants",
    responses((status = 200, body = TenantReport))
)]
async fn get_tenant_status(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Json<TenantReport>> {
    let (mut tx, row) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let release = match row.current_release {
        Some(number) => releases::find(&mut tx, &id, number).await?,
        None => None,
    };
    let operation = operations::find_unfinished(&mut tx, &id).await?;
    // The parts are looked at in the world, which takes its time: not inside a transaction.
    drop(tx);
    let parts = app.provision.report(&row).await?;
    Ok(Json(TenantReport {
        tenant: app.shown_tenant(row),
        machine: parts.machine,
        database: parts.database,
        edge: parts.edge,
        certificate: parts.certificate,
        release: release.map(|row| row.summary()),
        current_operation: operation.map(|row| row.summary()),
    }))
}

/// The names of the tenant's environment and where each comes from; values are masked.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/environment", tag = "Tenants", params(PageQuery),
    responses((status = 200, body = Page<EnvironmentEntry>))
)]
async fn list_environment(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<EnvironmentEntry>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, row) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let entry = |name: &str, source: &str| EnvironmentEntry {
        name: name.to_owned(),
        source: source.to_owned(),
        value: MASK.to_owned(),
    };
    let secrets = app.provision.list_secrets(&mut tx, &row).await?;
    let former = row.jwt.former.map(|_| FORMER_JWT_SECRET);
    let entries = PLATFORM_VARIABLES
        .iter()
        .copied()
        .chain(former)
        .map(|name| entry(name, "platform"))
        .chain(secrets.iter().map(|secret| entry(secret.key.as_str(), "secret")))
        .collect();
    let path = format!("/api/v1/tenants/{id}/environment");
    Ok(wanted.window(&path, entries, |entry| entry.name.clone()))
}

/// The ledger: every external resource that the tenant owns or owned.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/resources", tag = "Tenants", params(PageQuery),
    responses((status = 200, body = Page<Resource>))
)]
async fn list_resources(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Resource>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let ledger = resources::list(&mut tx, &id).await?;
    let path = format!("/api/v1/tenants/{id}/resources");
    Ok(wanted.window(&path, ledger, |resource| resource.id.to_string()))
}

/// The tenant's operations, newest first.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/operations", tag = "Operations", params(PageQuery),
    responses((status = 200, body = Page<Operation>))
)]
async fn list_operations(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Operation>> {
    let wanted = Wanted::new(&query)?;
    let before: Option<OperationId> = wanted.after()?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let rows = operations::list_by_tenant(&mut tx, &id, before.as_ref(), wanted.rows()).await?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        shown.push(shown_operation(&mut tx, row).await?);
    }
    let path = format!("/api/v1/tenants/{id}/operations");
    Ok(wanted.page(&path, shown, |operation| operation.id.to_string()))
}

/// What was seen to be gone when the tenant was deleted.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/receipt", tag = "Tenants",
    responses((status = 200, body = serde_json::Value))
)]
async fn get_receipt(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Json<serde_json::Value>> {
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let receipt = receipts::find(&mut tx, &id).await?;
    receipt
        .map(Json)
        .ok_or_else(|| ApiError::not_found("receipt").hint("a receipt is written when a tenant is deleted"))
}
