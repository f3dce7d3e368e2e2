//! The caller's account and its API tokens.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::account::{ApiToken, CreateToken, Me};
use crate::api::id::TokenId;
use crate::api::oauth::Scope;
use crate::api::page::{Page, PageQuery};
use crate::server::auth::api_tokens::{check, check_not_more};
use crate::server::auth::parse_scopes;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::store::api_tokens::ApiTokenRow;
use crate::server::store::{acts, api_tokens, members};

const TOKENS: &str = "/api/v1/tokens";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_me))
        .routes(routes!(list_api_tokens, create_api_token))
        .routes(routes!(delete_api_token))
}

/// Who the token speaks for.
#[utoipa::path(get, path = "/api/v1/me", tag = "Account", responses((status = 200, body = Me)))]
async fn get_me(Caller(caller): Caller) -> Json<Me> {
    Json(Me {
        credential: caller.credential.kind().to_owned(),
        account_id: caller.account_id,
        email: caller.email,
        operator: caller.operator,
        scopes: caller.scopes.into_iter().collect(),
        tenant_id: caller.tenant_id,
        expires_at: caller.expires_at,
    })
}

/// The account's API tokens, without the tokens themselves.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "Account", params(PageQuery),
    responses((status = 200, body = Page<ApiToken>))
)]
async fn list_api_tokens(
    State(app): State<App>,
    Caller(caller): Caller,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<ApiToken>> {
    caller.require_account(Scope::Read)?;
    let wanted = Wanted::new(&query)?;
    let mut tx = app.store.begin_read().await?;
    let after: String = wanted.after()?.unwrap_or_default();
    let rows = api_tokens::list(&mut tx, &caller.account_id, &after, wanted.rows()).await?;
    Ok(wanted.page(TOKENS, rows, |row| row.id.to_string()).map(shown))
}

/// Make an API token. It is shown in this answer and never again.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "Account", request_body = CreateToken,
    responses((status = 201, body = ApiToken))
)]
async fn create_api_token(
    State(app): State<App>,
    Caller(caller): Caller,
    StrictJson(wanted): StrictJson<CreateToken>,
) -> Answer<Response> {
    check(&wanted)?;
    check_not_more(&caller, &wanted, app.clock.now())?;
    let mut tx = app.store.begin().await?;
    if let Some(tenant) = &wanted.tenant_id {
        let role = members::role_of(&mut tx, tenant, &caller.account_id).await?;
        if role.is_none() {
            return Err(ApiError::invalid("tenant_id", "there is no tenant of that id"));
        }
    }
    let made = app
        .auth
        .create_api_token(&mut tx, &caller.account_id, &wanted)
        .await?;
    acts::about(made.row.id.as_str());
    let token = ApiToken {
        token: Some(made.token),
        ..shown(made.row)
    };
    let headers = [(header::CACHE_CONTROL, "no-store")];
    commit(&app, tx, (StatusCode::CREATED, headers, Json(token))).await
}

/// End an API token.
#[utoipa::path(delete, path = "/api/v1/tokens/{token_id}", tag = "Account", responses((status = 204)))]
async fn delete_api_token(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TokenId>,
) -> Answer<Response> {
    caller.require_account(Scope::Admin)?;
    let mut tx = app.store.begin().await?;
    if !api_tokens::revoke(&mut tx, &caller.account_id, &id, app.clock.now()).await? {
        return Err(ApiError::not_found("token"));
    }
    commit(&app, tx, StatusCode::NO_CONTENT).await
}

fn shown(row: ApiTokenRow) -> ApiToken {
    ApiToken {
        id: row.id,
        name: row.name,
        scopes: parse_scopes(&row.scopes)
            .unwrap_or_default()
            .into_iter()
            .collect(),
        tenant_id: row.tenant_id,
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        token: None,
    }
}
