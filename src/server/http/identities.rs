//! The identities (of OpenID Connect, of GitHub) that let in to the caller's account: listed, and taken away.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::account::Identity;
use crate::api::oauth::Scope;
use crate::api::page::Page;
use crate::server::auth::identity_id;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids};
use crate::server::http::idempotency::commit;
use crate::server::http::problem;
use crate::server::store::identities::UsedIdentity;
use crate::server::store::{accounts, acts, identities};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_identities))
        .routes(routes!(remove_identity))
}

/// The identities by which one signs in to the account, the first one first: at most 200.
#[utoipa::path(
    get, path = "/api/v1/identities", tag = "Account",
    responses((status = 200, body = Page<Identity>))
)]
async fn list_identities(State(app): State<App>, Caller(caller): Caller) -> Answer<Json<Page<Identity>>> {
    caller.require_account(Scope::Read)?;
    let mut tx = app.store.begin_read().await?;
    let rows = identities::list(&mut tx, &caller.account_id).await?;
    Ok(Json(Page {
        data: rows.into_iter().map(shown).collect(),
        next_cursor: None,
    }))
}

/// Take an identity from the account: it lets nobody in any more, and the browsers that its provider let in are signed out.
/// The last way in stays.
#[utoipa::path(
    delete, path = "/api/v1/identities/{identity_id}", tag = "Account",
    responses((status = 204))
)]
async fn remove_identity(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<String>,
) -> Answer<Response> {
    caller.require_account(Scope::Admin)?;
    let mut tx = app.store.begin().await?;
    identities::hold(&mut tx, &caller.account_id).await?;
    let all = identities::list(&mut tx, &caller.account_id).await?;
    let others = all.len().saturating_sub(1);
    let Some(UsedIdentity { identity, .. }) = all.into_iter().find(|row| identity_id(&row.identity) == id)
    else {
        return Err(ApiError::not_found("identity")
            .hint("see which let in to your account: `systemprompt identities list`"));
    };
    let account = accounts::find(&mut tx, &caller.account_id).await?;
    let has_password = account.is_some_and(|account| account.password_hash.is_some());
    if others == 0 && !has_password {
        return Err(ApiError::new(
            &problem::LAST_WAY_IN,
            "the account has no password and no other identity: nobody could sign in to it any more",
        )
        .hint("sign in by another provider and connect it first"));
    }
    identities::remove(&mut tx, &identity).await?;
    acts::about(&format!("{} {id}", identity.provider));
    commit(&app, tx, StatusCode::NO_CONTENT).await
}

fn shown(row: UsedIdentity) -> Identity {
    Identity {
        id: identity_id(&row.identity),
        provider: row.identity.provider,
        issuer: row.identity.issuer,
        subject: row.identity.subject,
        email: row.identity.email,
        created_at: row.identity.created_at,
        last_used_at: row.last_used_at,
    }
}
