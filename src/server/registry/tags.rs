//! The list of tags: those of the namespace, in lexical order, by pages.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::Response;
use serde_json::json;

use crate::api::registry::REPOSITORY;
use crate::server::registry::Inner;
use crate::server::registry::error::RegistryError;
use crate::server::registry::http::{Call, answer};
use crate::server::registry::names::is_tag;
use crate::server::registry::store::Folder;

/// `GET …/tags/list?n=&last=`.
pub(super) async fn list(gate: &Inner, call: &Call) -> Result<Response, RegistryError> {
    let limit = match call.query.get("n") {
        Some(text) => Some(text.parse::<usize>().map_err(|_| {
            RegistryError::new(
                StatusCode::BAD_REQUEST,
                "UNSUPPORTED",
                "`n` must be a whole number, 0 or more",
            )
        })?),
        None => None,
    };
    let mut tags = gate.store.list(&call.grant.tenant, &Folder::tags()).await?;
    let last = call.query.get("last").unwrap_or_default();
    tags.retain(|tag| is_tag(tag) && tag.as_str() > last);
    let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
    if let Some(limit) = limit.filter(|limit| *limit < tags.len()) {
        tags.truncate(limit);
        if let Some(last) = tags.last() {
            let next = format!("</v2/{REPOSITORY}/tags/list?n={limit}&last={last}>; rel=\"next\"");
            headers.push((LINK, next));
        }
    }
    Ok(answer(
        StatusCode::OK,
        headers,
        json!({"name": REPOSITORY, "tags": tags}).to_string(),
    ))
}
