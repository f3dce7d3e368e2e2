//! Signing in (RFC 8628, RFC 6749, RFC 7009, RFC 8414). Refusals are OAuth's own JSON, not problems.

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::oauth::{
    DEVICE_GRANT, DeviceAuthorization, DeviceAuthorizationRequest, EXCHANGE_GRANT, ID_TOKEN_TYPE, KeySet,
    OAuthError, REFRESH_GRANT, RevokeRequest, Scope, ServerMetadata, TokenRequest, TokenResponse,
};
use crate::server::auth::AuthError;
use crate::server::auth::api_tokens::PREFIX as API_TOKEN_PREFIX;
use crate::server::auth::sessions::GrantError;
use crate::server::http::App;
use crate::server::http::error::ApiError;

/// Where programs ask for tokens.
pub const TOKEN: &str = "/api/v1/oauth/token";
const DEVICE_AUTHORIZATION: &str = "/api/v1/oauth/device_authorization";
const REVOKE: &str = "/api/v1/oauth/revoke";
const KEYS: &str = "/.well-known/jwks.json";

/// The routes that many may guess at: limited by address.
pub fn limited_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_device_authorization))
        .routes(routes!(create_token))
        .routes(routes!(revoke_token))
}

/// What programs read first.
pub fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_metadata))
        .routes(routes!(get_keys))
}

/// Where the sign-in routes are (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "Signing in",
    responses((status = 200, body = ServerMetadata))
)]
async fn get_metadata(State(app): State<App>) -> Json<ServerMetadata> {
    let at = |path: &str| format!("{}{path}", app.public_url);
    Json(ServerMetadata {
        issuer: app.public_url.clone(),
        token_endpoint: at(TOKEN),
        device_authorization_endpoint: at(DEVICE_AUTHORIZATION),
        revocation_endpoint: at(REVOKE),
        jwks_uri: at(KEYS),
        grant_types_supported: [DEVICE_GRANT, REFRESH_GRANT, EXCHANGE_GRANT]
            .map(str::to_owned)
            .into(),
        scopes_supported: Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect(),
        token_endpoint_auth_methods_supported: vec!["none".to_owned()],
    })
}

/// The keys that access tokens are signed with, the next one among them (RFC 7517).
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "Signing in",
    responses((status = 200, body = KeySet))
)]
async fn get_keys(State(app): State<App>) -> Result<Response, ApiError> {
    let keys = app.auth.public_keys().await?;
    // A copy may be kept for a while: a key that is new here signs after the next rotation only.
    Ok((
        [(header::CACHE_CONTROL, "public, max-age=300")],
        Json(KeySet { keys }),
    )
        .into_response())
}

/// Begin a device login (RFC 8628).
#[utoipa::path(
    post, path = "/api/v1/oauth/device_authorization", tag = "Signing in",
    request_body(content = DeviceAuthorizationRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = DeviceAuthorization), (status = 400, body = OAuthError))
)]
async fn create_device_authorization(
    State(app): State<App>,
    form: Result<Form<DeviceAuthorizationRequest>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(request) = form?;
    let page = format!("{}/device", app.public_url);
    let begun = app.auth.start_device_login(&request, &page).await?;
    Ok(unstored(begun))
}

/// Ask for tokens: a device poll, a refresh, or the exchange of a CI job's identity.
#[utoipa::path(
    post, path = "/api/v1/oauth/token", tag = "Signing in",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = TokenResponse), (status = 400, body = OAuthError))
)]
async fn create_token(
    State(app): State<App>,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(request) = form?;
    let missing = |what| Refusal::new("invalid_request", what);
    let tokens = match request.grant_type.as_str() {
        DEVICE_GRANT => {
            let code = request
                .device_code
                .ok_or_else(|| missing("`device_code` is missing"))?;
            app.auth
                .poll_device_login(&request.client_id, code.expose())
                .await?
        }
        REFRESH_GRANT => {
            let token = request
                .refresh_token
                .ok_or_else(|| missing("`refresh_token` is missing"))?;
            app.auth.refresh(token.expose()).await?
        }
        EXCHANGE_GRANT => exchange(&app, &request).await?,
        _ => return Err(Refusal::new("unsupported_grant_type", "no such grant type")),
    };
    Ok(unstored(tokens))
}

/// A CI job's identity for a token of one tenant (RFC 8693).
async fn exchange(app: &App, request: &TokenRequest) -> Result<TokenResponse, Refusal> {
    let missing = |what| Refusal::new("invalid_request", what);
    if request.subject_token_type.as_deref() != Some(ID_TOKEN_TYPE) {
        return Err(missing("`subject_token_type` must be that of an ID token"));
    }
    let token = request
        .subject_token
        .as_ref()
        .ok_or_else(|| missing("`subject_token` is missing"))?;
    let tenant = request
        .audience
        .as_deref()
        .ok_or_else(|| missing("`audience` is missing: it names the tenant"))?;
    let of = (tenant, token.expose());
    Ok(app.auth.exchange(&app.issuers, &app.public_url, of).await?)
}

/// End the session of an access or refresh token (RFC 7009).
#[utoipa::path(
    post, path = "/api/v1/oauth/revoke", tag = "Signing in",
    request_body(content = RevokeRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200), (status = 400, body = OAuthError))
)]
async fn revoke_token(
    State(app): State<App>,
    form: Result<Form<RevokeRequest>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(request) = form?;
    if request.token.expose().starts_with(API_TOKEN_PREFIX) {
        return Err(Refusal::new(
            "unsupported_token_type",
            "API tokens end by `DELETE /api/v1/tokens/{id}`",
        ));
    }
    app.auth
        .revoke(request.token.expose())
        .await
        .map_err(GrantError::from)?;
    Ok(([(header::CACHE_CONTROL, "no-store")], ()).into_response())
}

/// An answer that nobody may keep (RFC 6749 section 5.1).
fn unstored<T: Serialize>(answer: T) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

/// A refusal in OAuth's form.
enum Refusal {
    OAuth(OAuthError),
    Failed(AuthError),
}

impl Refusal {
    fn new(error: &str, description: &str) -> Self {
        Self::OAuth(OAuthError {
            error: error.to_owned(),
            error_description: Some(description.to_owned()),
        })
    }
}

impl From<FormRejection> for Refusal {
    fn from(rejection: FormRejection) -> Self {
        Self::new("invalid_request", &rejection.body_text())
    }
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Refused { error, description } => Self::new(error, description),
            GrantError::Failed(error) => Self::Failed(error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::OAuth(error) => (StatusCode::BAD_REQUEST, unstored(error)).into_response(),
            Self::Failed(error) => ApiError::from(error).into_response(),
        }
    }
}
