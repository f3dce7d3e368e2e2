//! The edge's question: who visits this tenant, and is the visitor let in?

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use serde_json::json;

use crate::api::edge_session::{
    ASSERTION_HEADER, EdgeSessions, SessionIssuer, TENANT_HEADER, USER_HEADER, Visitors,
};
use crate::server::auth::visits::Visitor;
use crate::server::auth::vouchers::{self, VoucherError};
use crate::server::auth::{AuthError, api_tokens};
use crate::server::http::App;
use crate::server::store::accounts::AccountRow;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx};
use crate::server::web::door::host::page;
use crate::server::web::door::{AWAY, Place, SESSION, cannot_tell, text};
use crate::server::web::session::safe_next;

/// The longest address to go on to that a browser keeps while it is away.
const LONGEST_NEXT: usize = 1024;
/// Tells the edge that `Authorization` is not for the app.
const BY: HeaderName = HeaderName::from_static("x-session-by");

/// Why a visitor is not let in.
enum Refusal {
    /// Nobody knows who they are.
    Unknown(&'static str),
    /// It is known, and not enough.
    NotLetIn(String),
    /// It cannot be told now.
    CannotTell(Box<dyn std::error::Error + Send + Sync>),
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unauthenticated(why) => Self::Unknown(why),
            error @ (AuthError::MissingScope(_) | AuthError::Forbidden(_)) => {
                Self::NotLetIn(error.to_string())
            }
            other => Self::CannotTell(Box::new(other)),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::CannotTell(Box::new(error))
    }
}

/// A tenant that is visited.
struct Visited<'a> {
    app: &'a App,
    place: Place,
    tenant: TenantRow,
    sessions: EdgeSessions,
}

/// Answers the edge: 200 and who it is, or what the visitor is answered instead.
pub(super) async fn authorize(State(app): State<App>, headers: HeaderMap) -> Response {
    match answer(&app, &headers).await {
        Ok(response) => response,
        Err(error) => cannot_tell(&error),
    }
}

async fn answer(app: &App, headers: &HeaderMap) -> Result<Response, AuthError> {
    let place = Place::of(headers);
    let mut tx = app.store.begin_read().await?;
    let Some((tenant, sessions)) = place.tenant(&mut tx).await? else {
        // The edge asks already, and the tenant's row does not say yet whom it lets in.
        return Ok((StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response());
    };
    let visited = Visited {
        app,
        place,
        tenant,
        sessions,
    };
    match visited.visitor(&mut tx, headers).await {
        Ok((visitor, by_token)) => {
            let assertion = app
                .auth
                .assert_visitor(&mut tx, &visited.tenant.id, &visitor)
                .await?;
            Ok(let_in(&visited.tenant, &visitor, (&assertion, by_token)))
        }
        Err(Refusal::Unknown(why)) => visited.ask(headers, why),
        Err(Refusal::NotLetIn(why)) => Ok(visited.refuse(headers, &why)),
        Err(Refusal::CannotTell(error)) => Ok(cannot_tell(&*error)),
    }
}

/// Every header that the edge passes on is there in every case: it would pass on the placeholder of one that is not.
fn let_in(tenant: &TenantRow, visitor: &Visitor, (assertion, by_token): (&str, bool)) -> Response {
    let mut response = [(header::CACHE_CONTROL, "no-store")].into_response();
    for (name, value) in [
        (USER_HEADER, visitor.user.as_str()),
        (TENANT_HEADER, tenant.id.as_str()),
        (ASSERTION_HEADER, assertion),
    ] {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    let by = if by_token { "token" } else { "session" };
    response.headers_mut().insert(BY, HeaderValue::from_static(by));
    response
}

impl Visited<'_> {
    /// Who it is, and whether they have shown one of this server's own tokens.
    async fn visitor(&self, tx: &mut Tx, headers: &HeaderMap) -> Result<(Visitor, bool), Refusal> {
        let own = self.sessions.who != Visitors::Issuer;
        let bearer = text(headers, "authorization").split_once(' ');
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let bearer = bearer.map(|(_, token)| token.trim());
        if let Some(token) = bearer.filter(|_| own)
            && let Some(account) = self.account_by(tx, token).await?
        {
            return Ok((self.admitted(tx, account).await?, true));
        }
        let mut why = "nobody is signed in";
        if let Some(issuer) = &self.sessions.issuer {
            let jar = CookieJar::from_headers(headers);
            let cookie = issuer.cookie.as_deref().and_then(|name| jar.get(name));
            let shown = bearer.into_iter().chain(cookie.map(|cookie| cookie.value()));
            for token in shown {
                match self.vouched(tx, issuer, token).await {
                    Ok(visitor) => return Ok((visitor, false)),
                    Err(Refusal::Unknown(it)) => why = it,
                    Err(other) => return Err(other),
                }
            }
        }
        let session = self.place.shown(self.app, headers, SESSION).filter(|_| own);
        if let Some(cookie) = session
            && let Some(account) = self.app.auth.visitor_of(tx, &self.tenant.id, &cookie).await?
        {
            return Ok((self.admitted(tx, account).await?, false));
        }
        Err(Refusal::Unknown(why))
    }

    async fn admitted(&self, tx: &mut Tx, account: AccountRow) -> Result<Visitor, Refusal> {
        let asked = (&self.tenant, &self.sessions);
        if self.app.auth.is_let_in(tx, asked, &account).await? {
            return Ok(account.into());
        }
        Err(Refusal::NotLetIn(format!(
            "`{}` is not a member of this site",
            account.email
        )))
    }

    /// Whose token of this server this is; the app's own tokens are the app's.
    async fn account_by(&self, tx: &mut Tx, token: &str) -> Result<Option<AccountRow>, Refusal> {
        let principal = match self.app.auth.authenticate(token).await {
            Ok(principal) => principal,
            Err(AuthError::Unauthenticated(_)) if !token.starts_with(api_tokens::PREFIX) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = self
            .app
            .auth
            .visitor_with_token(tx, &self.tenant.id, &principal)
            .await?;
        Ok(found)
    }

    async fn vouched(&self, tx: &mut Tx, issuer: &SessionIssuer, token: &str) -> Result<Visitor, Refusal> {
        let key = match &issuer.secret {
            None => None,
            Some(name) => {
                let found = self.app.provision.latest_secret(tx, &self.tenant, name).await;
                found.map_err(|error| Refusal::CannotTell(Box::new(error)))?
            }
        };
        let with = (&self.app.issuers, key.as_ref());
        match vouchers::visitor(issuer, with, token, self.app.clock.now()).await {
            Ok(visitor) => Ok(visitor),
            Err(VoucherError::Refused { why, .. }) => Err(Refusal::Unknown(why)),
            Err(error @ VoucherError::Unknown(_)) => Err(Refusal::CannotTell(Box::new(error))),
        }
    }

    /// Browsers that want to see a page are sent to sign in; everybody else is told that they must.
    fn ask(&self, headers: &HeaderMap, why: &str) -> Result<Response, AuthError> {
        if !is_page(headers) {
            return Ok(self.unauthenticated(why));
        }
        let elsewhere = self
            .sessions
            .issuer
            .as_ref()
            .and_then(|issuer| issuer.sign_in_url.as_deref());
        let uncached = [(header::CACHE_CONTROL, "no-store")];
        if self.sessions.who == Visitors::Issuer {
            return Ok(match elsewhere {
                Some(url) => (uncached, Redirect::to(url)).into_response(),
                None => page(
                    StatusCode::UNAUTHORIZED,
                    "Sign in first",
                    "This site is for those who are signed in. Sign in where you always do, then come back.",
                    None,
                ),
            });
        }
        let (app, place) = (self.app, &self.place);
        let next = safe_next(
            Some(&place.uri)
                .filter(|uri| uri.len() <= LONGEST_NEXT)
                .map(String::as_str),
        );
        let (state, kept) = app.auth.begin_visit(&place.label, &next)?;
        let secure = if place.secure { "&secure=true" } else { "" };
        let to = format!("{}/visit/{}?state={state}{secure}", app.public_url, place.label);
        let jar = CookieJar::new().add(place.cookie(app, AWAY, kept));
        Ok((uncached, jar, Redirect::to(&to)).into_response())
    }

    fn unauthenticated(&self, why: &str) -> Response {
        let host = self.app.provision.hostname(&self.place.label);
        let told = json!({
            "type": "about:blank", "title": "Not signed in", "status": 401, "code": "session-required",
            "detail": format!("this site asks who visits it: {why}"),
            "hint": "send `Authorization: Bearer …` with a token of somebody whom it lets in, or open the site in a browser",
        });
        let mut response = (StatusCode::UNAUTHORIZED, Json(told)).into_response();
        problem(&mut response);
        if let Ok(realm) = HeaderValue::from_str(&format!("Bearer realm=\"{host}\"")) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }

    fn refuse(&self, headers: &HeaderMap, why: &str) -> Response {
        if is_page(headers) {
            let text = format!(
                "{}. Ask its owner to make you one, or sign out and come back as somebody else.",
                why.replace('`', "")
            );
            return page(
                StatusCode::FORBIDDEN,
                "This site is not for you",
                &text,
                Some("/.systemprompt/sign-out"),
            );
        }
        let told = json!({
            "type": "about:blank", "title": "Not let in", "status": 403, "code": "not-let-in",
            "detail": why, "hint": "its owner says who is let in: `systemprompt tenant sessions`",
        });
        let mut response = (StatusCode::FORBIDDEN, Json(told)).into_response();
        problem(&mut response);
        response
    }
}

fn problem(response: &mut Response) {
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let uncached = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, uncached);
}

/// Whether a browser goes to a page. A form that was sent is not sent again elsewhere.
fn is_page(headers: &HeaderMap) -> bool {
    if !matches!(text(headers, "x-forwarded-method"), "GET" | "HEAD") || headers.contains_key(header::UPGRADE)
    {
        return false;
    }
    match text(headers, "sec-fetch-mode") {
        "" => text(headers, "accept").contains("text/html"),
        mode => mode == "navigate",
    }
}
