//! Tenants: list, show, change, delete.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::edge_session::EdgeSessions;
use crate::api::id::TenantId;
use crate::api::member::Role;
use crate::api::name::TenantName;
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::api::page::{Page, PageQuery};
use crate::api::tenant::{Tenant, TenantPatch, TenantStatus, WantedStatus};
use crate::server::auth::Principal;
use crate::server::auth::vouchers::SHORTEST_KEY;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::http::problem;
use crate::server::http::shown::Accepted;
use crate::server::provision::{NewOperation, Work};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx, members, tenant_lists, tenants};

const TENANTS: &str = "/api/v1/tenants";
const ALL_TENANTS: &str = "/api/v1/operator/tenants";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_tenants))
        .routes(routes!(list_all_tenants))
        .routes(routes!(get_tenant, update_tenant, delete_tenant))
}

/// The tenants of which the account is a member, oldest first; for an operator also those whose owner has let support in.
#[utoipa::path(
    get, path = "/api/v1/tenants", tag = "Tenants", params(PageQuery),
    responses((status = 200, body = Page<Tenant>))
)]
async fn list_tenants(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Tenant>> {
    caller.require(Scope::Read)?;
    let wanted = Wanted::new(&query)?;
    let after: Option<TenantId> = wanted.after()?;
    let mut tx = app.store.look();
    let rows = match &caller.tenant_id {
        Some(only) => only_tenant(&app, &mut tx, (&caller, only), after.as_ref()).await?,
        None if caller.operator => {
            let part = (after.as_ref(), wanted.rows());
            tenant_lists::list_by_operator(&mut tx, &caller.account_id, app.clock.now(), part).await?
        }
        None => {
            tenant_lists::list_by_member(&mut tx, &caller.account_id, after.as_ref(), wanted.rows()).await?
        }
    };
    Ok(wanted
        .page(TENANTS, rows, |row| row.id.to_string())
        .map(|row| app.shown_tenant(row)))
}

/// Every tenant of the installation, oldest first: what it is and how it stands, nothing of what is in it.
#[utoipa::path(
    get, path = "/api/v1/operator/tenants", tag = "Server", params(PageQuery),
    responses((status = 200, body = Page<Tenant>))
)]
async fn list_all_tenants(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Tenant>> {
    caller.require_operator()?;
    let wanted = Wanted::new(&query)?;
    let after: Option<TenantId> = wanted.after()?;
    let mut tx = app.store.look();
    let rows = tenant_lists::list_living(&mut tx, after.as_ref(), wanted.rows()).await?;
    Ok(wanted
        .page(ALL_TENANTS, rows, |row| row.id.to_string())
        .map(|row| app.shown_tenant(row)))
}

/// What a credential for one tenant sees of the list.
async fn only_tenant(
    app: &App,
    tx: &mut Tx,
    (caller, only): (&Principal, &TenantId),
    after: Option<&TenantId>,
) -> Result<Vec<TenantRow>, StoreError> {
    let row = tenants::find(tx, only).await?;
    let standing = caller.standing(tx, only, app.clock.now()).await?;
    Ok(row
        .filter(|row| standing.is_some() && row.status != TenantStatus::Deleted)
        .filter(|_| after.is_none())
        .into_iter()
        .collect())
}

/// One tenant. An owner who may read its secrets sees the one-time token of its credentials until they are confirmed.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}", tag = "Tenants",
    responses((status = 200, body = Tenant))
)]
async fn get_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Json<Tenant>> {
    let row = app.look_at_tenant(&caller, &id, Scope::Read).await?;
    let mut credentials_token = None;
    if caller.scopes.contains(&Scope::Secrets) {
        let mut tx = app.store.begin_read().await?;
        if members::role_of(&mut tx, &id, &caller.account_id).await? == Some(Role::Owner) {
            credentials_token = app.provision.credentials_token(&mut tx, &id).await?;
        }
    }
    Ok(Json(Tenant {
        credentials_token,
        ..app.shown_tenant(row)
    }))
}

/// Change a tenant: its name at once; its memory or its state by an operation (202).
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant_id}", tag = "Tenants", request_body = TenantPatch,
    responses((status = 200, body = Tenant), (status = 202, body = Operation))
)]
async fn update_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(patch): StrictJson<TenantPatch>,
) -> Answer<Response> {
    let (mut tx, row) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    if row.status == TenantStatus::Deleted {
        return Err(ApiError::new(&problem::TENANT_STATE, "the tenant is deleted"));
    }
    let sessions = match &patch.sessions {
        Some(wanted) => Some(checked_sessions(&mut tx, &app, &row, wanted).await?),
        None => None,
    };
    let work = match wanted_work(&app, &row, &patch)? {
        Some(_) if sessions.is_some() => {
            let detail = "cannot be changed together with `memory_mb` or `status`; send two requests";
            return Err(ApiError::invalid("sessions", detail));
        }
        Some(work) => Some(work),
        None => sessions
            .filter(|wanted| *wanted != row.edge_sessions)
            .map(Work::SetSessions),
    };
    if let Some(name) = patch.name.as_ref().filter(|name| **name != row.name) {
        rename(&mut tx, &app, &row, name).await?;
    }
    let resized = patch.memory_mb.filter(|memory| *memory != row.memory_mb);
    let accepted = match (work, resized) {
        (Some(work), _) => Some(begin(&mut tx, &app, &caller, (&id, work)).await?),
        // Nothing runs: the next release gets the new size.
        (None, Some(memory)) => {
            tenants::set_memory(&mut tx, &id, memory, app.clock.now()).await?;
            None
        }
        (None, None) => None,
    };
    let row = tenants::get(&mut tx, &id).await?;
    let answer = match accepted {
        Some(accepted) => accepted.into_response(),
        None => Json(app.shown_tenant(row)).into_response(),
    };
    let answer = commit(&app, tx, answer).await?;
    app.provision.wake();
    Ok(answer)
}

/// Who shall be let in by the edge, where that can be told of them.
async fn checked_sessions(
    tx: &mut Tx,
    app: &App,
    row: &TenantRow,
    wanted: &EdgeSessions,
) -> Answer<Option<EdgeSessions>> {
    let refuse = |field: &str, detail: String| Err(ApiError::invalid(&format!("sessions/{field}"), detail));
    let wanted = match wanted.clone().checked() {
        Ok(wanted) => wanted,
        Err((field, detail)) if field == "who" || field == "issuer" => return refuse(field, detail),
        Err((field, detail)) => return refuse(&format!("issuer/{field}"), detail),
    };
    let Some(issuer) = wanted.as_ref().and_then(|wanted| wanted.issuer.as_ref()) else {
        return Ok(wanted);
    };
    let Some(name) = &issuer.secret else {
        let allowed = app.issuers.allowed();
        if !allowed.contains(&issuer.issuer) {
            let detail = format!("must be one that the server allows: {}", allowed.join(", "));
            return refuse("issuer/issuer", detail);
        }
        return Ok(wanted);
    };
    match app.provision.latest_secret(tx, row, name).await? {
        Some(key) if key.expose().len() >= SHORTEST_KEY => Ok(wanted),
        Some(_) => refuse(
            "issuer/secret",
            format!("`{name}` must have at least {SHORTEST_KEY} characters: a shorter key can be guessed"),
        ),
        None => refuse(
            "issuer/secret",
            format!("the tenant has no secret `{name}`: set it with `systemprompt secrets set {name}`"),
        ),
    }
}

/// The operation that a change needs, if it needs one.
fn wanted_work(app: &App, row: &TenantRow, patch: &TenantPatch) -> Answer<Option<Work>> {
    if let Some(memory_mb) = patch.memory_mb {
        app.billing.check_memory(&row.plan, memory_mb)?;
    }
    let resized = patch.memory_mb.filter(|memory| *memory != row.memory_mb);
    let is_suspended = row.status == TenantStatus::Suspended;
    match (patch.status, resized) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "status",
            "cannot be changed together with `memory_mb`; send two requests",
        )),
        (Some(WantedStatus::Suspended), None) if !is_suspended => Ok(Some(Work::Suspend)),
        (Some(WantedStatus::Active), None) if is_suspended => Ok(Some(Work::Activate)),
        (None, Some(memory_mb)) if row.current_release.is_some() && !is_suspended => {
            Ok(Some(Work::ChangeMemory { memory_mb }))
        }
        _ => Ok(None),
    }
}

async fn rename(tx: &mut Tx, app: &App, row: &TenantRow, name: &TenantName) -> Answer<()> {
    let taken = || {
        ApiError::new(
            &problem::NAME_TAKEN,
            format!("a tenant named `{name}` exists already"),
        )
        .field("/name", "is taken")
        .hint("choose another name")
    };
    // A name may be another tenant's label: that one answers under it for as long as it lives.
    if tenants::find_by_live_name(tx, name)
        .await?
        .is_some_and(|other| other.id != row.id)
    {
        return Err(taken());
    }
    match tenants::rename(tx, &row.id, name, app.clock.now()).await {
        Err(StoreError::Duplicate(_)) => Err(taken()),
        other => Ok(other?),
    }
}

/// Delete a tenant with everything that belongs to it. A receipt stays.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant_id}", tag = "Tenants",
    responses((status = 202, body = Operation))
)]
async fn delete_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Response> {
    let (mut tx, _) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    let accepted = begin(&mut tx, &app, &caller, (&id, Work::DeleteTenant)).await?;
    let answer = commit(&app, tx, accepted).await?;
    app.provision.wake();
    Ok(answer)
}

/// Queues work on a tenant in the caller's transaction.
///
/// # Errors
/// The tenant is busy or not in a state for it, or has had as many releases as its plan allows.
pub async fn begin(
    tx: &mut Tx,
    app: &App,
    caller: &Principal,
    (tenant, work): (&TenantId, Work),
) -> Answer<Accepted> {
    if matches!(work, Work::Deploy(_) | Work::Restart) {
        let row = tenants::get(tx, tenant).await?;
        app.billing.check_releases(tx, &row).await?;
    }
    let new = NewOperation {
        tenant_id: tenant.clone(),
        work,
        requested_by: caller.email.clone(),
    };
    let id = app.provision.enqueue(tx, new).await?;
    Ok(Accepted::read(tx, &id).await?)
}
