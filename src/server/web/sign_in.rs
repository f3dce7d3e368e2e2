//! Signing in by password or one-time link, signing out, and the page that says so.

use askama::Template;
use axum::extract::{ConnectInfo, Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use serde::Deserialize;
use std::net::SocketAddr;

use crate::api::secret::SecretText;
use crate::server::auth::accounts::WebSignIn;
use crate::server::http::App;
use crate::server::http::limits::sit;
use crate::server::store::acts;
use crate::server::web::page::{Page, PageError, Shown};
use crate::server::web::provider::{CONNECT, is_waiting};
use crate::server::web::session::{
    SignedIn, check_csrf, check_origin, find_browser, newcomer, safe_next, signed_in_cookies,
    signed_out_cookie,
};

#[derive(Template)]
#[template(path = "pages/home.html")]
struct Home {
    email: String,
    csrf: String,
    operator: bool,
    server: String,
}

#[derive(Template)]
#[template(path = "pages/sign_in.html")]
struct SignIn {
    next: String,
    email: String,
    error: Option<&'static str>,
    providers: Vec<Button>,
}

/// A way to sign in elsewhere.
struct Button {
    name: String,
    label: String,
}

fn sign_in_page(app: &App, next: String, email: String, error: Option<&'static str>) -> Page<SignIn> {
    let providers = app.providers.all().iter().map(|provider| Button {
        name: provider.name.clone(),
        label: provider.label(),
    });
    Page(SignIn {
        next,
        email,
        error,
        providers: providers.collect(),
    })
}

#[derive(Template)]
#[template(path = "pages/link.html")]
struct Link {
    email: String,
}

/// Where to go afterwards.
#[derive(Deserialize)]
pub(super) struct Next {
    pub(super) next: Option<String>,
}

/// What the sign-in form sends.
#[derive(Deserialize)]
pub(super) struct Credentials {
    email: String,
    password: SecretText,
    next: Option<String>,
}

/// What the sign-out form sends.
#[derive(Deserialize)]
pub(super) struct Csrf {
    pub(super) csrf: String,
}

/// The page of who is signed in.
pub(super) async fn show_home(State(app): State<App>, SignedIn(browser): SignedIn) -> Response {
    Page(Home {
        email: browser.account.email,
        csrf: browser.csrf_token,
        operator: browser.account.operator,
        server: app.public_url.clone(),
    })
    .into_response()
}

/// The sign-in page; whoever is signed in goes on at once.
pub(super) async fn show_sign_in(
    State(app): State<App>,
    Query(query): Query<Next>,
    headers: HeaderMap,
) -> Shown {
    let next = safe_next(query.next.as_deref());
    if find_browser(&app, &headers).await?.is_some() {
        return Ok(Redirect::to(&next).into_response());
    }
    Ok(sign_in_page(&app, next, String::new(), None).into_response())
}

/// Takes e-mail address and password.
pub(super) async fn sign_in(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Shown {
    acts::keep();
    check_origin(&app, &headers)?;
    let newcomer = newcomer(&app, &headers, address);
    let counted_as = app.auth.counted_as(&newcomer);
    app.limits.password.check(&counted_as).await?;
    let next = safe_next(form.next.as_deref());
    let _seat = sit(&app.limits.passwords, &counted_as)?;
    let signed_in = app
        .auth
        .sign_in_by_password(&form.email, form.password, newcomer)
        .await?;
    match signed_in {
        Some(signed_in) => Ok(let_in(&app, &signed_in, &next)),
        None => {
            let error = "The address and the password do not belong together.";
            let page = sign_in_page(&app, next, form.email, Some(error));
            Ok((StatusCode::UNAUTHORIZED, page).into_response())
        }
    }
}

fn let_in(app: &App, signed_in: &WebSignIn, next: &str) -> Response {
    (signed_in_cookies(app, signed_in), Redirect::to(next)).into_response()
}

/// The page of a one-time link. Looking at it uses nothing up: mail programs look at links too.
pub(super) async fn show_link(State(app): State<App>, Path(token): Path<String>) -> Shown {
    match app.auth.find_link(&token).await? {
        Some(account) => Ok(Page(Link { email: account.email }).into_response()),
        None => Err(used_up()),
    }
}

/// Uses a one-time link up.
pub(super) async fn use_link(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Shown {
    acts::keep();
    check_origin(&app, &headers)?;
    let newcomer = newcomer(&app, &headers, address);
    app.limits.password.check(&app.auth.counted_as(&newcomer)).await?;
    match app.auth.sign_in_by_link(&token, newcomer).await? {
        Some(signed_in) if is_waiting(&app, &headers) => Ok(let_in(&app, &signed_in, CONNECT)),
        Some(signed_in) => Ok(let_in(&app, &signed_in, "/")),
        None => Err(used_up()),
    }
}

fn used_up() -> PageError {
    PageError::new(
        StatusCode::NOT_FOUND,
        "This link does not work any more",
        "It was used, or it is older than a day. The operator makes another one with: systemprompt server link",
    )
}

/// Signs the browser out.
pub(super) async fn sign_out(
    State(app): State<App>,
    SignedIn(browser): SignedIn,
    headers: HeaderMap,
    Form(form): Form<Csrf>,
) -> Shown {
    check_origin(&app, &headers)?;
    check_csrf(&browser, &form.csrf)?;
    app.auth.sign_out(&browser).await?;
    let jar = CookieJar::new().add(signed_out_cookie(&app));
    Ok((jar, Redirect::to("/sign-in")).into_response())
}
