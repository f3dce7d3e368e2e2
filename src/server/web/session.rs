//! Who looks at a page: the cookie, what every form must carry, and where a form may come from.

use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use subtle::ConstantTimeEq as _;

use crate::server::auth::KNOWN_SECONDS;
use crate::server::auth::accounts::{Browser, Newcomer, WebSignIn};
use crate::server::http::App;
use crate::server::store::acts;
use crate::server::web::page::PageError;

/// What a browser is known by.
const SESSION: &str = "sp_session";
/// What it is known by after that: others' wrong passwords do not hold it up.
const DEVICE: &str = "sp_device";

/// A browser that is signed in; every other one is sent to the sign-in page and comes back.
pub(super) struct SignedIn(pub(super) Browser);

impl FromRequestParts<App> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        match find_browser(app, &parts.headers).await {
            Ok(Some(browser)) => {
                // Which session it is, and nothing that its cookie could be guessed from.
                let session = browser.session_hash.get(..12);
                acts::by("browser", session, &browser.account.id);
                Ok(Self(browser))
            }
            Ok(None) => Err(Redirect::to(&sign_in_for(&parts.method, &parts.uri)).into_response()),
            Err(error) => Err(error.into_response()),
        }
    }
}

/// The browser behind a request, if it is signed in.
///
/// # Errors
/// The store fails.
pub(super) async fn find_browser(app: &App, headers: &HeaderMap) -> Result<Option<Browser>, PageError> {
    match shown_cookie(app, headers, SESSION) {
        Some(cookie) => Ok(app.auth.find_browser(&cookie).await?),
        None => Ok(None),
    }
}

/// A browser that wants to be let in, as far as it says who it is.
#[must_use]
pub(super) fn newcomer(app: &App, headers: &HeaderMap, address: SocketAddr) -> Newcomer {
    let user_agent = headers.get(header::USER_AGENT);
    let user_agent = user_agent
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    Newcomer::new(user_agent, shown_cookie(app, headers, SESSION), address.ip())
        .with_device(shown_cookie(app, headers, DEVICE))
}

/// The value of a cookie that the browser shows.
#[must_use]
pub(super) fn shown_cookie(app: &App, headers: &HeaderMap, name: &str) -> Option<String> {
    let jar = CookieJar::from_headers(headers);
    jar.get(&cookie_name(app, name))
        .map(|cookie| cookie.value().to_owned())
}

fn sign_in_for(method: &Method, uri: &Uri) -> String {
    // What was sent in a form is lost; its page is not.
    let wanted = if *method == Method::GET {
        uri.path_and_query().map_or("/", |wanted| wanted.as_str())
    } else if uri.path() == "/sign-out" {
        // It has no page; whoever wanted out is out.
        "/"
    } else {
        uri.path()
    };
    let next: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
    format!("/sign-in?next={next}")
}

/// A place of this server to go to after signing in; `/` for anything that might be elsewhere.
#[must_use]
pub(super) fn safe_next(next: Option<&str>) -> String {
    let is_ours = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains(|c: char| c == '\\' || c.is_control() || c.is_whitespace())
    };
    next.filter(is_ours).unwrap_or("/").to_owned()
}

/// The cookies of a browser that was just let in: its session, and what stays.
pub(super) fn signed_in_cookies(
    app: &App,
    signed_in: &WebSignIn,
) -> AppendHeaders<[(HeaderName, String); 2]> {
    let session = kept_cookie(app, SESSION, signed_in.cookie.expose().to_owned());
    let device = kept_cookie(app, DEVICE, signed_in.device.expose().to_owned());
    AppendHeaders([
        (header::SET_COOKIE, session.to_string()),
        (header::SET_COOKIE, format!("{device}; Max-Age={KNOWN_SECONDS}")),
    ])
}

/// The cookie that takes the place of the one before and ends at once.
#[must_use]
pub(super) fn signed_out_cookie(app: &App) -> Cookie<'static> {
    ended_cookie(app, SESSION)
}

/// The end of a cookie.
#[must_use]
pub(super) fn ended_cookie(app: &App, name: &str) -> Cookie<'static> {
    let mut cookie = kept_cookie(app, name, String::new());
    cookie.make_removal();
    cookie
}

/// A cookie that the browser keeps until it is closed; what is in it says by itself how long it is good for.
#[must_use]
pub(super) fn kept_cookie(app: &App, name: &str, value: String) -> Cookie<'static> {
    let mut cookie = Cookie::new(cookie_name(app, name), value);
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Lax);
    cookie.set_secure(is_https(app));
    cookie
}

fn is_https(app: &App) -> bool {
    app.public_url.starts_with("https:")
}

/// Browsers keep one jar for all ports of a host: the port keeps two servers of one machine apart. Under HTTPS the prefix
/// keeps other hosts of the same domain, tenants' among them, from putting a cookie of theirs in its place (RFC 6265bis).
fn cookie_name(app: &App, name: &str) -> String {
    let prefix = if is_https(app) { "__Host-" } else { "" };
    let port = app.public_url.rsplit_once(':').map_or("", |(_, port)| port);
    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) {
        return format!("{prefix}{name}_{port}");
    }
    format!("{prefix}{name}")
}

/// Refuses a form that does not carry what its page was given.
///
/// # Errors
/// It carries something else.
pub(super) fn check_csrf(browser: &Browser, shown: &str) -> Result<(), PageError> {
    if browser.csrf_token.as_bytes().ct_eq(shown.as_bytes()).into() {
        return Ok(());
    }
    Err(PageError::new(
        StatusCode::FORBIDDEN,
        "This form is too old",
        "Go back, load the page again, and send the form once more.",
    ))
}

/// Refuses a form that another site has sent. Browsers name the origin of every form.
///
/// # Errors
/// The request names an origin that is not this server.
pub(super) fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), PageError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = match text(header::ORIGIN) {
        None => false,
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            origin != app.public_url && (host.is_none() || host != text(header::HOST))
        }
    };
    if foreign {
        return Err(PageError::new(
            StatusCode::FORBIDDEN,
            "This form came from another site",
            "Open the page on this server and send the form there.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{safe_next, sign_in_for};
    use axum::http::{Method, Uri};

    #[test]
    fn nobody_is_sent_elsewhere() {
        assert_eq!(
            safe_next(Some("/device?user_code=WDJB-MJHT")),
            "/device?user_code=WDJB-MJHT"
        );
        for bad in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "",
            "/a b",
            "/a\nb",
        ] {
            assert_eq!(safe_next(Some(bad)), "/", "{bad:?}");
        }
        assert_eq!(safe_next(None), "/");
    }

    #[test]
    fn the_sign_in_page_leads_back() {
        let uri = Uri::from_static("/device?user_code=WDJB-MJHT");
        assert_eq!(
            sign_in_for(&Method::GET, &uri),
            "/sign-in?next=%2Fdevice%3Fuser_code%3DWDJB-MJHT"
        );
        assert_eq!(sign_in_for(&Method::POST, &uri), "/sign-in?next=%2Fdevice");
        let out = Uri::from_static("/sign-out");
        assert_eq!(sign_in_for(&Method::POST, &out), "/sign-in?next=%2F");
    }
}
