//! The page on which a person confirms that a device is theirs (RFC 8628 section 3.3).

use askama::Template;
use axum::extract::{ConnectInfo, Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::net::SocketAddr;

use crate::api::oauth::{CLIENT_ID, Scope};
use crate::server::auth::accounts::Browser;
use crate::server::auth::device::{normal_user_code, shown_user_code};
use crate::server::auth::parse_scopes;
use crate::server::http::App;
use crate::server::store::acts;
use crate::server::store::device_grants::DeviceGrantRow;
use crate::server::web::page::{Message, Page, PageError, Shown};
use crate::server::web::session::{SignedIn, check_csrf, check_origin};

#[derive(Template)]
#[template(path = "pages/device.html")]
struct AskForCode {
    email: String,
    csrf: String,
    typed: String,
    error: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "pages/approve.html")]
struct AskForDecision {
    email: String,
    csrf: String,
    code: String,
    device_name: String,
    client: String,
    scopes: Vec<(&'static str, &'static str)>,
}

/// The code, where the link carries it.
#[derive(Deserialize)]
pub(super) struct Prefilled {
    user_code: Option<String>,
}

/// What the forms send.
#[derive(Deserialize)]
pub(super) struct DeviceForm {
    csrf: String,
    user_code: String,
    decision: Decision,
}

/// Which button was pressed.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Look,
    Approve,
    Deny,
}

/// Asks for the code, or for the decision where the link carries it.
pub(super) async fn show_device(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    SignedIn(browser): SignedIn,
    Query(query): Query<Prefilled>,
) -> Shown {
    match query.user_code {
        Some(typed) if !typed.trim().is_empty() => look(&app, &address, &browser, &typed).await,
        _ => Ok(ask_for_code(&browser, "", None)),
    }
}

/// Takes the code, or the decision.
pub(super) async fn decide_device(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    SignedIn(browser): SignedIn,
    headers: HeaderMap,
    Form(form): Form<DeviceForm>,
) -> Shown {
    check_origin(&app, &headers)?;
    check_csrf(&browser, &form.csrf)?;
    if form.decision == Decision::Look {
        acts::leave_out();
        return look(&app, &address, &browser, &form.user_code).await;
    }
    count_guess(&app, &address, &browser).await?;
    let approved = form.decision == Decision::Approve;
    acts::about(if approved { "approved" } else { "denied" });
    let account = &browser.account.id;
    if !app
        .auth
        .decide_device_login(&form.user_code, account, approved)
        .await?
    {
        return Ok(unknown(&browser, &form.user_code));
    }
    let (title, text) = if approved {
        (
            "The device is signed in",
            "Go back to your terminal. You can close this page.",
        )
    } else {
        (
            "The login was denied",
            "The device was not let in. You can close this page.",
        )
    };
    Ok(Page(Message {
        title: title.to_owned(),
        text: text.to_owned(),
        good: approved,
        return_to: None,
    })
    .into_response())
}

async fn look(app: &App, address: &SocketAddr, browser: &Browser, typed: &str) -> Shown {
    count_guess(app, address, browser).await?;
    match app.auth.find_device_login(typed).await? {
        Some(grant) => Ok(ask_for_decision(browser, &grant)),
        None => Ok(unknown(browser, typed)),
    }
}

/// Every look at a code is a guess (RFC 8628 section 5.1).
async fn count_guess(app: &App, address: &SocketAddr, browser: &Browser) -> Result<(), PageError> {
    app.limits
        .user_code
        .check(&format!("address {}", address.ip()))
        .await?;
    app.limits
        .user_code
        .check(&format!("browser {}", browser.session_hash))
        .await?;
    Ok(())
}

fn ask_for_code(browser: &Browser, typed: &str, error: Option<&'static str>) -> Response {
    Page(AskForCode {
        email: browser.account.email.clone(),
        csrf: browser.csrf_token.clone(),
        typed: shown_user_code(&normal_user_code(typed)),
        error,
    })
    .into_response()
}

fn unknown(browser: &Browser, typed: &str) -> Response {
    let page = ask_for_code(
        browser,
        typed,
        Some("No login waits with this code. Look at your terminal again: codes end after 15 minutes."),
    );
    (StatusCode::NOT_FOUND, page).into_response()
}

fn ask_for_decision(browser: &Browser, grant: &DeviceGrantRow) -> Response {
    let client = if grant.client_id == CLIENT_ID {
        "systemprompt command line"
    } else {
        &grant.client_id
    };
    Page(AskForDecision {
        email: browser.account.email.clone(),
        csrf: browser.csrf_token.clone(),
        code: shown_user_code(&grant.user_code),
        device_name: grant.device_name.clone(),
        client: client.to_owned(),
        scopes: parse_scopes(&grant.scopes)
            .unwrap_or_default()
            .into_iter()
            .map(|scope| (scope.as_str(), meaning(scope)))
            .collect(),
    })
    .into_response()
}

const fn meaning(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "see your tenants, their events and logs",
        Scope::Deploy => "push images, deploy and restart",
        Scope::Secrets => "set secrets and fetch credentials",
        Scope::Admin => "create, change and delete tenants; make tokens",
    }
}
