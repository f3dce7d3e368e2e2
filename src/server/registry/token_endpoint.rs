//! `/v2/token`: trades a credential for a short access token, by Docker's GET and by its OAuth2 POST.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::secret::SecretText;
use crate::server::registry::Inner;
use crate::server::registry::auth::{authorization, basic, still_good};
use crate::server::registry::error::RegistryError;

/// `GET /v2/token?service=&scope=&scope=&offline_token=` with the credential as Basic password.
pub(super) async fn get(
    State(gate): State<Arc<Inner>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, RegistryError> {
    let fields = fields(query.unwrap_or_default().as_bytes());
    let credential = match authorization(&headers) {
        Some(("basic", text)) => basic(text).map(|(_, password)| SecretText::new(password)),
        _ => None,
    };
    let offline = value(&fields, "offline_token") == Some("true");
    trade(&gate, credential, &fields, offline).await
}

/// `POST /v2/token` with `grant_type=password` or `grant_type=refresh_token` as a form.
pub(super) async fn post(State(gate): State<Arc<Inner>>, body: Bytes) -> Result<Response, RegistryError> {
    let fields = fields(&body);
    let credential = match value(&fields, "grant_type") {
        Some("password") => value(&fields, "password"),
        Some("refresh_token") => value(&fields, "refresh_token"),
        _ => {
            let why = "`grant_type` must be `password` or `refresh_token`";
            return Err(RegistryError::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", why));
        }
    };
    let credential = credential.map(SecretText::new);
    let offline =
        value(&fields, "access_type") == Some("offline") || value(&fields, "refresh_token").is_some();
    trade(&gate, credential, &fields, offline).await
}

async fn trade(
    gate: &Inner,
    credential: Option<SecretText>,
    fields: &[(String, String)],
    offline: bool,
) -> Result<Response, RegistryError> {
    let grant = credential
        .as_ref()
        .and_then(|text| gate.tokens.verify_credential(text.expose()));
    let Some(grant) = still_good(gate, grant).await? else {
        let why = "the credential is wrong or has ended";
        let challenge = format!("Basic realm=\"{}\"", gate.settings.realm);
        return Err(RegistryError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", why)
            .with(WWW_AUTHENTICATE, &challenge));
    };
    let scopes: Vec<&str> = fields
        .iter()
        .filter(|(name, _)| name == "scope")
        .map(|(_, scope)| scope.as_str())
        .collect();
    let access = gate.tokens.trade(&grant, &scopes);
    let mut answer = json!({
        "token": access.token,
        "access_token": access.token,
        "token_type": "Bearer",
        "expires_in": access.expires_in_seconds,
        "issued_at": access.issued_at,
    });
    if let (true, Some(credential)) = (offline, &credential) {
        // The credential can be traded as often as one likes until it ends, so it is its own refresh token.
        answer["refresh_token"] = json!(credential.expose());
    }
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn fields(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(field, _)| field == name)
        .map(|(_, value)| value.as_str())
}
