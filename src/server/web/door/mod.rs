//! The edge's door: a socket of this machine, by which the edge asks who visits a tenant, and the server's own paths at
//! tenants' hosts. Nobody else comes in here, and nothing of it answers anywhere else.

mod authorize;
mod host;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};

use crate::api::edge_session::EdgeSessions;
use crate::server::http::App;
use crate::server::http::error::chain;
use crate::server::http::layers::limit_time;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx, tenants};
use crate::server::web::{STYLE, asset, guard};

/// What a browser is known by at a tenant's host, and what it keeps there while it is here. The edge takes both away
/// before the app sees them.
const SESSION: &str = "sp_edge";
const AWAY: &str = "sp_edge_away";

/// The door's router.
pub fn door(app: &App) -> Router {
    Router::new()
        .route("/internal/edge/authorize", get(authorize::authorize))
        .route("/.systemprompt/session", get(host::enter))
        .route(
            "/.systemprompt/sign-out",
            get(host::show_sign_out).post(host::sign_out),
        )
        .route("/.systemprompt/jwks.json", get(host::show_keys))
        .route(
            "/.systemprompt/style.css",
            get(async || asset(STYLE, "text/css; charset=utf-8")),
        )
        .fallback(host::nothing)
        .layer(from_fn(guard))
        .layer(from_fn(limit_time))
        .with_state(app.clone())
}

/// Where at a tenant's host a request came, as the edge says. Whatever its visitor said of it, the edge has replaced.
struct Place {
    label: String,
    secure: bool,
    /// Path and query.
    uri: String,
}

impl Place {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            label: text(headers, "x-edge-label").to_owned(),
            secure: text(headers, "x-forwarded-proto") == "https",
            uri: text(headers, "x-forwarded-uri").to_owned(),
        }
    }

    /// The tenant, and who is let in to it; nothing where nobody is asked.
    async fn tenant(&self, tx: &mut Tx) -> Result<Option<(TenantRow, EdgeSessions)>, StoreError> {
        let Some(id) = tenants::find_by_live_label(tx, &self.label).await? else {
            return Ok(None);
        };
        let row = tenants::get(tx, &id).await?;
        let sessions = row.edge_sessions.clone();
        Ok(sessions.map(|sessions| (row, sessions)))
    }

    fn url(&self, app: &App) -> String {
        if self.secure {
            app.provision.secure_url(&self.label)
        } else {
            app.provision.url(&self.label)
        }
    }

    /// Browsers keep one jar for all ports of a host, and one that other hosts of the domain may write into unless the
    /// prefix says otherwise (RFC 6265bis).
    fn cookie_name(&self, app: &App, name: &str) -> String {
        let url = self.url(app);
        let port = url.rsplit_once(':').map_or("", |(_, port)| port);
        let usual = if self.secure { "443" } else { "80" };
        let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let prefix = if self.secure { "__Host-" } else { "" };
        format!("{prefix}{name}_{}", if is_port { port } else { usual })
    }

    fn shown(&self, app: &App, headers: &HeaderMap, name: &str) -> Option<String> {
        let jar = CookieJar::from_headers(headers);
        jar.get(&self.cookie_name(app, name))
            .map(|cookie| cookie.value().to_owned())
    }

    fn cookie(&self, app: &App, name: &str, value: String) -> Cookie<'static> {
        let mut cookie = Cookie::new(self.cookie_name(app, name), value);
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_same_site(SameSite::Lax);
        cookie.set_secure(self.secure);
        cookie
    }

    fn ended(&self, app: &App, name: &str) -> Cookie<'static> {
        let mut cookie = self.cookie(app, name, String::new());
        cookie.make_removal();
        cookie
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

/// The server cannot tell who visits: nobody is let in.
fn cannot_tell(error: &(dyn std::error::Error + 'static)) -> Response {
    tracing::error!(error = chain(error), "the edge was not told who visits");
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::RETRY_AFTER, "5")];
    (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
}
