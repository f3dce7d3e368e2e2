//! A browser comes from a tenant's host to be signed in there: it goes back with a code, at once where its person is a
//! member of the tenant, and else once they have said so.

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;

use crate::api::edge_session::Visitors;
use crate::server::auth::accounts::Browser;
use crate::server::http::App;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{acts, members, tenants};
use crate::server::web::page::{Page, PageError, Shown};
use crate::server::web::session::{SignedIn, check_csrf, check_origin};

#[derive(Template)]
#[template(path = "pages/visit.html")]
struct Visit {
    email: String,
    csrf: String,
    label: String,
    site: String,
    state: String,
    secure: bool,
    /// Where the browser goes on to, once that is decided.
    onward: Option<String>,
}

/// What a browser brings from the tenant's host.
#[derive(Deserialize)]
pub(super) struct Sent {
    state: String,
    #[serde(default)]
    secure: bool,
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Agreed {
    csrf: String,
    state: String,
    #[serde(default)]
    secure: bool,
}

/// A browser that is signed in goes on; where its person is no member of the tenant, they are asked first.
pub(super) async fn show_visit(
    State(app): State<App>,
    SignedIn(browser): SignedIn,
    Path(label): Path<String>,
    Query(sent): Query<Sent>,
) -> Shown {
    let (tenant, is_member) = visited(&app, &label, &browser).await?;
    if is_member {
        return go_on(&app, &tenant, (&browser, sent)).await;
    }
    acts::leave_out();
    let site = app.provision.hostname(&tenant.label);
    Ok(Page(Visit {
        email: browser.account.email,
        csrf: browser.csrf_token,
        label: tenant.label,
        site,
        state: sent.state,
        secure: sent.secure,
        onward: None,
    })
    .into_response())
}

/// Its person has said so.
pub(super) async fn visit(
    State(app): State<App>,
    SignedIn(browser): SignedIn,
    Path(label): Path<String>,
    headers: HeaderMap,
    Form(form): Form<Agreed>,
) -> Shown {
    check_origin(&app, &headers)?;
    check_csrf(&browser, &form.csrf)?;
    let (tenant, _) = visited(&app, &label, &browser).await?;
    let sent = Sent {
        secure: form.secure,
        state: form.state,
    };
    go_on(&app, &tenant, (&browser, sent)).await
}

/// The tenant that asks, if it lets this person in; and whether they are a member.
async fn visited(app: &App, label: &str, browser: &Browser) -> Result<(TenantRow, bool), PageError> {
    let mut tx = app.store.begin_read().await?;
    let row = match tenants::find_by_live_label(&mut tx, label).await? {
        Some(id) => tenants::find(&mut tx, &id).await?,
        None => None,
    };
    let asking = row.and_then(|row| row.edge_sessions.clone().map(|sessions| (row, sessions)));
    let Some((row, sessions)) = asking.filter(|(_, sessions)| sessions.who != Visitors::Issuer) else {
        return Err(PageError::new(
            StatusCode::NOT_FOUND,
            "No such site asks who you are",
            "Look at the address again.",
        ));
    };
    acts::on_tenant(&row.id, None);
    let account = &browser.account;
    if !app.auth.is_let_in(&mut tx, (&row, &sessions), account).await? {
        return Err(PageError::new(
            StatusCode::FORBIDDEN,
            "This site is not for you",
            format!(
                "{} is not a member of {}. Its owner adds members with: systemprompt tenant members add {} --role viewer",
                account.email, row.name, account.email
            ),
        ));
    }
    let role = members::role_of(&mut tx, &row.id, &account.id).await?;
    Ok((row, role.is_some()))
}

/// The browser goes back with a code: by a page, since a form's answer may lead to no other host.
async fn go_on(app: &App, tenant: &TenantRow, (browser, sent): (&Browser, Sent)) -> Shown {
    let code = app
        .auth
        .issue_edge_code(&tenant.id, (browser, &sent.state))
        .await?;
    let host = if sent.secure {
        app.provision.secure_url(&tenant.label)
    } else {
        app.provision.url(&tenant.label)
    };
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("code", code.expose())
        .append_pair("state", &sent.state)
        .finish();
    Ok(Page(Visit {
        email: browser.account.email.clone(),
        csrf: browser.csrf_token.clone(),
        label: tenant.label.clone(),
        site: app.provision.hostname(&tenant.label),
        secure: sent.secure,
        state: sent.state,
        onward: Some(format!("{host}/.systemprompt/session?{query}")),
    })
    .into_response())
}
