//! The server's own paths at a tenant's host: a browser comes in with its code, and goes out again.

use askama::Template;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use serde::Deserialize;
use serde_json::json;

use crate::server::auth::AuthError;
use crate::server::http::App;
use crate::server::web::door::{AWAY, Place, SESSION, cannot_tell, text};
use crate::server::web::page::Page;
use crate::server::web::session::safe_next;

#[derive(Template)]
#[template(path = "pages/door.html")]
struct Door<'a> {
    title: &'a str,
    text: &'a str,
    /// Where a form goes that has nothing but a button to sign out.
    sign_out: Option<&'a str>,
}

/// A page at a tenant's host, with nothing of the app in it.
pub(super) fn page(status: StatusCode, title: &str, text: &str, sign_out: Option<&str>) -> Response {
    let page = Door {
        title,
        text,
        sign_out,
    };
    (status, Page(page)).into_response()
}

/// What comes with the browser.
#[derive(Deserialize)]
pub(super) struct Arrival {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
}

/// A browser is back with a code: it is known here from now on.
pub(super) async fn enter(
    State(app): State<App>,
    Query(arrival): Query<Arrival>,
    headers: HeaderMap,
) -> Response {
    match arrive(&app, &arrival, &headers).await {
        Ok(response) => response,
        Err(error) => cannot_tell(&error),
    }
}

async fn arrive(app: &App, arrival: &Arrival, headers: &HeaderMap) -> Result<Response, AuthError> {
    let place = Place::of(headers);
    let mut tx = app.store.begin_read().await?;
    let Some((tenant, _)) = place.tenant(&mut tx).await? else {
        return Ok(nothing().await);
    };
    drop(tx);
    let kept = place.shown(app, headers, AWAY).unwrap_or_default();
    let away = app.auth.back_from_visit(&kept, (&place.label, &arrival.state));
    let former = place.shown(app, headers, SESSION);
    let entered = match &away {
        Some(_) => {
            let brought = (arrival.code.as_str(), arrival.state.as_str());
            app.auth.enter(&tenant.id, brought, former.as_deref()).await?
        }
        None => None,
    };
    // A way back is used up, however it ends.
    let jar = CookieJar::new().add(place.ended(app, AWAY));
    let uncached = [(header::CACHE_CONTROL, "no-store")];
    if let (Some(away), Some(cookie)) = (away, entered) {
        let jar = jar.add(place.cookie(app, SESSION, cookie.expose().to_owned()));
        let next = safe_next(Some(&away.next));
        return Ok((uncached, jar, Redirect::to(&next)).into_response());
    }
    let page = page(
        StatusCode::BAD_REQUEST,
        "This sign-in was not begun here",
        "It was begun in another browser or more than a minute ago, or this browser keeps no cookies. Go to the site once more.",
        None,
    );
    Ok((uncached, jar, page).into_response())
}

/// Asks whether to sign out; a look signs nobody out.
pub(super) async fn show_sign_out() -> Response {
    page(
        StatusCode::OK,
        "Sign out",
        "Press the button, and you are signed out of this site, of the server that it runs on, and of everything else there.",
        Some("/.systemprompt/sign-out"),
    )
}

/// Signs the browser out, here and everywhere. The cookie does not come with a form of another site.
pub(super) async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Response {
    let place = Place::of(&headers);
    let origin = text(&headers, "origin");
    if !origin.is_empty() && origin != place.url(&app) {
        let told = "Open the page on this site and press the button there.";
        return page(
            StatusCode::FORBIDDEN,
            "This form came from another site",
            told,
            None,
        );
    }
    if let Err(error) = leave(&app, &place, &headers).await {
        return cannot_tell(&error);
    }
    let jar = CookieJar::new().add(place.ended(&app, SESSION));
    let page = page(
        StatusCode::OK,
        "You are signed out",
        "You can close this page.",
        None,
    );
    (jar, page).into_response()
}

async fn leave(app: &App, place: &Place, headers: &HeaderMap) -> Result<(), AuthError> {
    let mut tx = app.store.begin_read().await?;
    let found = place.tenant(&mut tx).await?;
    drop(tx);
    if let (Some((tenant, _)), Some(cookie)) = (found, place.shown(app, headers, SESSION)) {
        app.auth.leave(&tenant.id, &cookie).await?;
    }
    Ok(())
}

/// The keys that assertions are signed with, for apps that reach their own host and not the server's.
pub(super) async fn show_keys(State(app): State<App>) -> Response {
    match app.auth.public_keys().await {
        Ok(keys) => {
            let mut response = Json(json!({ "keys": keys })).into_response();
            let fresh = HeaderValue::from_static("public, max-age=300");
            response.headers_mut().insert(header::CACHE_CONTROL, fresh);
            response
        }
        Err(error) => cannot_tell(&error),
    }
}

/// Paths that begin like the server's own, and are none.
pub(super) async fn nothing() -> Response {
    page(
        StatusCode::NOT_FOUND,
        "There is nothing here",
        "This path belongs to the server that the site runs on. Look at the address again.",
        None,
    )
}
