//! Pages for people: signing in, approving a device, paying in the sandbox, reading the API's description.
//!
//! Rendered here, readable on a telephone, without scripts and without anything from elsewhere.

mod device;
mod docs;
mod door;
mod page;
mod pay;
mod provider;
mod session;
mod sign_in;
mod visit;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::server::http::App;
use crate::server::http::acts::record;
use crate::server::http::layers::limit_time;
pub use crate::server::web::door::door;

const STYLE: &str = include_str!("assets/style.css");
const ICON: &str = include_str!("assets/icon.svg");
const MAX_FORM_BYTES: usize = 16 * 1024;
/// Nothing but our own style sheet and icon; no scripts; forms to ourselves; in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// The pages' router.
pub fn router(app: &App) -> Router {
    Router::new()
        .route("/", get(sign_in::show_home))
        .route("/sign-in", get(sign_in::show_sign_in).post(sign_in::sign_in))
        .route("/sign-in/with/{provider}", get(provider::begin))
        .route("/sign-in/with/{provider}/back", get(provider::back))
        .route(
            provider::CONNECT,
            get(provider::show_connect).post(provider::connect),
        )
        .route(
            "/sign-in/{token}",
            get(sign_in::show_link).post(sign_in::use_link),
        )
        .route("/sign-out", post(sign_in::sign_out))
        .route("/device", get(device::show_device).post(device::decide_device))
        .route("/pay/{token}", get(pay::show_pay).post(pay::pay))
        .route("/visit/{label}", get(visit::show_visit).post(visit::visit))
        .route("/docs", get(docs::show_docs))
        .route(
            "/assets/style.css",
            get(async || asset(STYLE, "text/css; charset=utf-8")),
        )
        .route("/assets/icon.svg", get(async || asset(ICON, "image/svg+xml")))
        .route_layer(from_fn_with_state(app.clone(), record))
        .layer(from_fn(guard))
        .layer(from_fn(limit_time))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .with_state(app.clone())
}

fn asset(text: &'static str, content_type: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, text)
}

/// What every page tells the browser not to do.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Addresses of links and pay pages are secrets; `no-referrer` would hide the origin of forms from us too.
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
