//! The programs and browsers that are signed in to the caller's account: listed, and ended.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::account::{Session, SessionKind};
use crate::api::oauth::Scope;
use crate::api::page::Page;
use crate::server::auth::{Credential, parse_scopes};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids};
use crate::server::http::idempotency::commit;
use crate::server::store::sessions::{self, SessionRow};
use crate::server::store::web_sessions::{self, WebSessionRow};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
}

/// The programs and browsers that are signed in to the account, the newest first: at most 200 of each.
#[utoipa::path(
    get, path = "/api/v1/sessions", tag = "Account",
    responses((status = 200, body = Page<Session>))
)]
async fn list_sessions(State(app): State<App>, Caller(caller): Caller) -> Answer<Json<Page<Session>>> {
    caller.require_account(Scope::Read)?;
    let now = app.clock.now();
    let mut tx = app.store.begin_read().await?;
    let programs = sessions::list(&mut tx, &caller.account_id, now).await?;
    let browsers = web_sessions::list(&mut tx, &caller.account_id, now).await?;
    let programs = programs.into_iter().map(|row| {
        let current = caller.credential == Credential::Session(row.id.clone());
        program(row, current)
    });
    let mut data: Vec<Session> = programs.chain(browsers.into_iter().map(browser)).collect();
    data.sort_by_key(|session| std::cmp::Reverse(session.created_at));
    Ok(Json(Page {
        data,
        next_cursor: None,
    }))
}

/// End a session: its tokens or its cookie are good no more, and streams that it reads end within seconds.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{session_id}", tag = "Account",
    responses((status = 204))
)]
async fn end_session(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<String>,
) -> Answer<Response> {
    caller.require_account(Scope::Admin)?;
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    let ended = match id.parse() {
        Ok(id) => sessions::end(&mut tx, (&caller.account_id, &id), now).await?,
        Err(_) => {
            let browsers = web_sessions::list(&mut tx, &caller.account_id, now).await?;
            match browsers.into_iter().find(|row| row.shown_id() == id) {
                Some(row) => {
                    web_sessions::delete(&mut tx, &row.token_hash).await?;
                    true
                }
                None => false,
            }
        }
    };
    if !ended {
        return Err(
            ApiError::not_found("session").hint("see what is signed in: `systemprompt sessions list`")
        );
    }
    commit(&app, tx, StatusCode::NO_CONTENT).await
}

fn program(row: SessionRow, current: bool) -> Session {
    Session {
        id: row.id.to_string(),
        kind: SessionKind::Program,
        name: row.device_name,
        scopes: parse_scopes(&row.scopes)
            .unwrap_or_default()
            .into_iter()
            .collect(),
        signed_in_by: None,
        created_at: row.created_at,
        last_used_at: Some(row.rotated_at),
        expires_at: row.expires_at,
        current,
    }
}

fn browser(row: WebSessionRow) -> Session {
    Session {
        id: row.shown_id(),
        kind: SessionKind::Browser,
        name: row.user_agent,
        scopes: Vec::new(),
        signed_in_by: Some(row.signed_in_by).filter(|way| !way.is_empty()),
        created_at: row.created_at,
        last_used_at: None,
        expires_at: row.expires_at,
        current: false,
    }
}
