//! What handlers take from a request: the caller, typed ids of the path, strict queries and strict JSON bodies.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_path_to_error::Segment;

use crate::server::auth::{AuthError, Principal};
use crate::server::http::error::ApiError;
use crate::server::http::problem;

/// The caller, as the authentication layer found them.
pub struct Caller(pub Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Principal>()
            .cloned()
            .map(Self)
            .ok_or_else(|| AuthError::Unauthenticated("no credential was shown").into())
    }
}

/// The parameters of the path. One that cannot be an id names nothing: 404.
pub struct Ids<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Ids<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<T>::from_request_parts(parts, state)
            .await
            .map(|Path(ids)| Self(ids))
            .map_err(|_| ApiError::new(&problem::NOT_FOUND, "nothing has an id like that"))
    }
}

/// The query, every parameter of which must be known.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, state)
            .await
            .map(|Query(params)| Self(params))
            .map_err(|rejection: QueryRejection| {
                let text = rejection.body_text();
                let what = text
                    .strip_prefix("Failed to deserialize query string: ")
                    .unwrap_or(&text);
                let error = ApiError::new(&problem::INVALID_REQUEST, format!("the query is refused: {what}"));
                match what.split_once(": ") {
                    Some((name, why))
                        if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') =>
                    {
                        error.field(format!("/{name}"), why)
                    }
                    _ => error,
                }
            })
    }
}

/// A JSON body that holds exactly what it may hold.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(&request) {
            return Err(ApiError::new(
                &problem::WRONG_MEDIA_TYPE,
                "the body must be sent as `application/json`",
            )
            .hint("set `Content-Type: application/json`"));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unread(&rejection))?;
        parse_json(&bytes).map(Self)
    }
}

/// What a body is told that could not be read.
pub fn unread(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(&problem::BODY_TOO_LARGE, "a request body has at most 1 MiB");
    }
    ApiError::new(&problem::INVALID_REQUEST, "the request body was cut off")
}

fn is_json(request: &Request) -> bool {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads a strict JSON document; a refusal names the field with a JSON Pointer.
///
/// # Errors
/// It is not JSON, or not what `T` takes.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde takes a list for a struct, field by field; on this wire only an object is one.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_object = first.is_none_or(|byte| *byte == b'{');
    if !is_object && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        let what = "must be a JSON object";
        return Err(ApiError::new(&problem::INVALID_REQUEST, format!("the body: {what}")).field("", what));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer_of(error.path());
        refused(pointer, error.inner())
    })?;
    reader.end().map_err(|error| refused(String::new(), &error))?;
    Ok(value)
}

fn refused(mut pointer: String, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if !error.is_data() {
        return ApiError::new(&problem::INVALID_REQUEST, format!("the body is not JSON: {text}"));
    }
    // serde reports a missing field at its parent, by name.
    if let Some(name) = what
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        pointer = format!("{pointer}/{name}");
    }
    let shown = if pointer.is_empty() {
        "the body".to_owned()
    } else {
        format!("`{}`", &pointer[1..])
    };
    ApiError::new(&problem::INVALID_REQUEST, format!("{shown}: {what}")).field(pointer, what)
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::parse_json;
    use crate::api::account::CreateToken;
    use crate::api::checkout::CheckoutRequest;
    use axum::response::IntoResponse as _;

    fn pointer_of_refusal(body: &str) -> (String, String) {
        let Err(error) = parse_json::<CreateToken>(body.as_bytes()) else {
            panic!("`{body}` was taken");
        };
        let response = error.into_response();
        let problem = response
            .extensions()
            .get::<crate::api::problem::Problem>()
            .expect("a problem");
        let pointer = problem
            .errors
            .first()
            .map_or(String::new(), |field| field.pointer.clone());
        (pointer, problem.detail.clone())
    }

    #[test]
    fn the_refused_field_is_pointed_at() {
        let at = |body| pointer_of_refusal(body).0;
        assert_eq!(
            at(r#"{"name":"x","scopes":["read"],"expires_in_seconds":1,"nmae":1}"#),
            "#/nmae"
        );
        assert_eq!(
            at(r#"{"name":5,"scopes":["read"],"expires_in_seconds":1}"#),
            "#/name"
        );
        assert_eq!(
            at(r#"{"name":"x","scopes":["read","write"],"expires_in_seconds":1}"#),
            "#/scopes/1"
        );
        assert_eq!(at(r#"{"name":"x","scopes":[]}"#), "#/expires_in_seconds");
        assert_eq!(at("{\"name\":"), "");
        assert_eq!(at(r#"["x",["read"],null,1]"#), "#");
        assert_eq!(at(r#"{"name":"x","scopes":[],"expires_in_seconds":1} more"#), "");
    }

    #[test]
    fn the_refusal_says_what_is_wrong() {
        let (_, detail) = pointer_of_refusal(r#"{"name":"x","scopes":["write"],"expires_in_seconds":1}"#);
        assert!(
            detail.starts_with("`scopes/0`: unknown variant `write`"),
            "{detail}"
        );
        let body = r#"{"price_id":"p","name":"No Caps","region":"local"}"#;
        assert!(parse_json::<CheckoutRequest>(body.as_bytes()).is_err());
    }
}
