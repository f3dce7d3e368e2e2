//! Signing in by a provider of identities: there, back, and connecting what it says with an account.

use askama::Template;
use axum::extract::{ConnectInfo, Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum_extra::extract::CookieJar;
use std::net::SocketAddr;

use crate::server::auth::oidc::{Answer, Arrival, OidcError};
use crate::server::auth::providers::{Provider, ProviderSettings};
use crate::server::http::App;
use crate::server::http::error::chain;
use crate::server::store::acts;
use crate::server::web::page::{Page, PageError, Shown};
use crate::server::web::session::{
    SignedIn, check_csrf, check_origin, ended_cookie, kept_cookie, newcomer, safe_next, shown_cookie,
    signed_in_cookies,
};
use crate::server::web::sign_in::{Csrf, Next};

/// Where an identity is connected with an account.
pub(super) const CONNECT: &str = "/sign-in/connect";
/// What a browser keeps while it is at a provider.
const AWAY: &str = "sp_away";
/// What it keeps until its person has signed in to the account that has the same address.
const WAITING: &str = "sp_connect";
/// The longest address to go on to that fits into a cookie with the rest.
const LONGEST_NEXT: usize = 1024;

#[derive(Template)]
#[template(path = "pages/connect.html")]
struct Connect {
    email: String,
    csrf: String,
    provider: String,
    address: String,
    same: bool,
}

/// Where this provider sends browsers back to: it must be told so, letter by letter.
fn redirect_uri(app: &App, provider: &ProviderSettings) -> String {
    format!("{}/sign-in/with/{}/back", app.public_url, provider.name)
}

fn named<'a>(app: &'a App, name: &str) -> Result<&'a Provider, PageError> {
    app.providers.find(name).ok_or_else(|| {
        PageError::new(
            StatusCode::NOT_FOUND,
            "There is no such way to sign in",
            "Go to the sign-in page and choose one that is there.",
        )
    })
}

/// Whether this browser waits to have an identity connected.
pub(super) fn is_waiting(app: &App, headers: &HeaderMap) -> bool {
    shown_cookie(app, headers, WAITING).is_some_and(|kept| app.auth.waiting_identity(&kept).is_some())
}

/// Sends the browser to the provider.
pub(super) async fn begin(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    Query(query): Query<Next>,
) -> Shown {
    app.limits.sign_in.check(&address.ip().to_string()).await?;
    let provider = named(&app, &name)?;
    let next = safe_next(query.next.as_deref().filter(|next| next.len() <= LONGEST_NEXT));
    let begun = app
        .auth
        .begin_at_provider(provider, &redirect_uri(&app, provider), &next)
        .await
        .map_err(|error| told(provider, error))?;
    let jar = CookieJar::new().add(kept_cookie(&app, AWAY, begun.kept));
    Ok((jar, Redirect::to(&begun.location)).into_response())
}

/// The browser is back.
pub(super) async fn back(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    Query(answer): Query<Answer>,
    headers: HeaderMap,
) -> Shown {
    app.limits.sign_in.check(&address.ip().to_string()).await?;
    let provider = named(&app, &name)?;
    let kept = shown_cookie(&app, &headers, AWAY).unwrap_or_default();
    let to = redirect_uri(&app, provider);
    let arrived = app
        .auth
        .finish_at_provider(
            provider,
            (&kept, &answer),
            (&to, newcomer(&app, &headers, address)),
        )
        .await;
    // A way back is used up, however it ends.
    let jar = CookieJar::new().add(ended_cookie(&app, AWAY));
    let response = match arrived {
        Ok(Arrival::SignedIn(signed_in, next)) => {
            let cookies = signed_in_cookies(&app, &signed_in);
            (cookies, jar, Redirect::to(&next)).into_response()
        }
        Ok(Arrival::ToConnect(kept)) => {
            let jar = jar.add(kept_cookie(&app, WAITING, kept));
            (jar, Redirect::to(CONNECT)).into_response()
        }
        Err(error) => {
            match refusal(&error) {
                // Anybody can ask for this page: what was not begun here is no act.
                None => acts::leave_out(),
                Some(code) => {
                    acts::keep();
                    acts::refused(code);
                }
            }
            (jar, told(provider, error)).into_response()
        }
    };
    Ok(response)
}

/// Asks whoever is signed in whether the identity is to let them in from now on.
pub(super) async fn show_connect(
    State(app): State<App>,
    SignedIn(browser): SignedIn,
    headers: HeaderMap,
) -> Shown {
    let kept = shown_cookie(&app, &headers, WAITING).unwrap_or_default();
    let Some(waiting) = app.auth.waiting_identity(&kept) else {
        return Err(nothing_waits());
    };
    Ok(Page(Connect {
        same: waiting.email == browser.account.email,
        email: browser.account.email,
        csrf: browser.csrf_token,
        provider: label(&app, &waiting.provider),
        address: waiting.email,
    })
    .into_response())
}

/// Connects it.
pub(super) async fn connect(
    State(app): State<App>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    SignedIn(browser): SignedIn,
    headers: HeaderMap,
    Form(form): Form<Csrf>,
) -> Shown {
    check_origin(&app, &headers)?;
    check_csrf(&browser, &form.csrf)?;
    let kept = shown_cookie(&app, &headers, WAITING).unwrap_or_default();
    let waiting = app.auth.waiting_identity(&kept).ok_or_else(nothing_waits)?;
    let connected = app
        .auth
        .connect(&waiting, &browser, newcomer(&app, &headers, address))
        .await;
    let jar = CookieJar::new().add(ended_cookie(&app, WAITING));
    match connected {
        Ok(signed_in) => {
            let cookies = signed_in_cookies(&app, &signed_in);
            Ok((cookies, jar, Redirect::to(&safe_next(Some(&waiting.next)))).into_response())
        }
        Err(error) => {
            let provider = named(&app, &waiting.provider)?;
            Ok((jar, told(provider, error)).into_response())
        }
    }
}

fn label(app: &App, name: &str) -> String {
    let provider = app.providers.find(name);
    provider.map_or_else(|| name.to_owned(), |provider| provider.label())
}

fn nothing_waits() -> PageError {
    PageError::new(
        StatusCode::NOT_FOUND,
        "There is nothing to connect",
        "It was connected, or it has waited for more than ten minutes. Sign in by the provider again.",
    )
}

/// The refusal's name in the audit.
fn refusal(error: &OidcError) -> Option<&'static str> {
    Some(match error {
        OidcError::NotBegun => return None,
        OidcError::Denied(_) => "denied-by-provider",
        OidcError::Forged(_) | OidcError::NotForUs(_) => "identity-not-believed",
        OidcError::Unverified => "address-not-confirmed",
        OidcError::NoAccount(_) => "no-account",
        OidcError::Connected => "identity-connected",
        OidcError::OtherAddress { .. } => "another-address",
        OidcError::Provider(_) => "provider-unavailable",
        OidcError::Failed(_) => "internal",
    })
}

/// Why nobody was let in, for the person. What the provider has said is for the log.
fn told(provider: &ProviderSettings, error: OidcError) -> PageError {
    let error = match error {
        OidcError::Failed(error) => return error.into(),
        other => other,
    };
    let name = provider.label();
    let (status, title, text) = match &error {
        OidcError::NotBegun => (
            StatusCode::BAD_REQUEST,
            "This sign-in was not begun here",
            "It was begun in another browser, or more than ten minutes ago. Begin again on the sign-in page."
                .to_owned(),
        ),
        OidcError::Denied(_) => (
            StatusCode::FORBIDDEN,
            "You were not signed in",
            format!("{name} sent you back without signing you in. Begin again on the sign-in page."),
        ),
        OidcError::Unverified => (
            StatusCode::FORBIDDEN,
            "Your address is not confirmed",
            format!(
                "{name} does not say that the e-mail address is yours. Confirm it there, then sign in again."
            ),
        ),
        OidcError::NoAccount(email) => (
            StatusCode::FORBIDDEN,
            "There is no account for you",
            format!(
                "{name} says that you are {email}. The operator makes an account with: systemprompt server account create {email} --no-password"
            ),
        ),
        OidcError::Connected => (
            StatusCode::CONFLICT,
            "This is connected already",
            format!("Sign in by {name} again: it lets you in to the account that it is connected with."),
        ),
        OidcError::OtherAddress { identity, account } => (
            StatusCode::FORBIDDEN,
            "This is another address",
            format!(
                "{name} says that you are {identity}, and you are signed in as {account}. Sign out, and sign in as {identity}."
            ),
        ),
        OidcError::Forged(_) | OidcError::NotForUs(_) => (
            StatusCode::FORBIDDEN,
            "This identity is not believed",
            format!(
                "What came from {name} is not signed by it, or not for this sign-in. You were not signed in. Begin again on \
                 the sign-in page; if it stays, the server's log has the cause."
            ),
        ),
        OidcError::Provider(_) | OidcError::Failed(_) => (
            StatusCode::BAD_GATEWAY,
            "The provider did not answer well",
            format!(
                "You were not signed in by {name}. Try again; if it stays, the server's log has the cause."
            ),
        ),
    };
    if !matches!(error, OidcError::NotBegun) {
        tracing::warn!(
            provider = provider.name,
            error = chain(&error),
            "nobody was let in by a provider"
        );
    }
    PageError::new(status, title, text)
}
