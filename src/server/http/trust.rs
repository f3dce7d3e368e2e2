//! Trust rules: which CI jobs may deploy to a tenant without a stored secret.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::{TenantId, TrustRuleId};
use crate::api::oauth::Scope;
use crate::api::page::{Page, PageQuery};
use crate::api::trust::{CreateTrustRule, TrustRule};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::store::trust_rules::TrustRuleRow;
use crate::server::store::{StoreError, acts, trust_rules};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_trust_rules, create_trust_rule))
        .routes(routes!(delete_trust_rule))
}

/// The CI jobs that may deploy to the tenant.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/trust-rules", tag = "Deploying", params(PageQuery),
    responses((status = 200, body = Page<TrustRule>))
)]
async fn list_trust_rules(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<TrustRule>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Admin).await?;
    let rules = trust_rules::list(&mut tx, &id).await?;
    let path = format!("/api/v1/tenants/{id}/trust-rules");
    Ok(wanted.window(&path, rules, |rule| rule.id.to_string()).map(shown))
}

/// Let the jobs of a repository deploy to the tenant, with the rights of the caller.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/trust-rules", tag = "Deploying", request_body = CreateTrustRule,
    responses((status = 201, body = TrustRule))
)]
async fn create_trust_rule(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(wanted): StrictJson<CreateTrustRule>,
) -> Answer<Response> {
    let wanted = wanted
        .checked()
        .map_err(|(field, detail)| ApiError::invalid(field, detail))?;
    let allowed = app.issuers.allowed();
    if !allowed.contains(&wanted.issuer) {
        let detail = format!("must be one that the server allows: {}", allowed.join(", "));
        return Err(ApiError::invalid("issuer", detail));
    }
    let (mut tx, _) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    let row = TrustRuleRow {
        id: TrustRuleId::new(app.clock.uuid()),
        tenant_id: id,
        account_id: caller.account_id,
        email: caller.email,
        issuer: wanted.issuer,
        repository: wanted.repository,
        git_ref: wanted.git_ref,
        created_at: app.clock.now(),
    };
    match trust_rules::insert(&mut tx, &row).await {
        Ok(()) => {}
        Err(StoreError::Duplicate(_)) => {
            return Err(ApiError::invalid("ref", "the tenant has this rule already"));
        }
        Err(error) => return Err(error.into()),
    }
    acts::about(row.id.as_str());
    commit(&app, tx, (StatusCode::CREATED, Json(shown(row)))).await
}

/// Take a rule back; tokens that jobs have by it end within ten minutes.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant_id}/trust-rules/{rule_id}", tag = "Deploying",
    responses((status = 204))
)]
async fn delete_trust_rule(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, rule)): Ids<(TenantId, TrustRuleId)>,
) -> Answer<Response> {
    let (mut tx, _) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    if !trust_rules::delete(&mut tx, &id, &rule).await? {
        return Err(ApiError::not_found("trust rule"));
    }
    commit(&app, tx, StatusCode::NO_CONTENT).await
}

fn shown(row: TrustRuleRow) -> TrustRule {
    TrustRule {
        id: row.id,
        issuer: row.issuer,
        repository: row.repository,
        git_ref: row.git_ref,
        created_by: row.email,
        created_at: row.created_at,
    }
}
