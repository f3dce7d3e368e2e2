//! Pages for people: signing in, approving a device, paying in the sandbox, reading the API's description.

use axum::Router;

use crate::server::http::App;

/// The pages' router.
pub fn router(_app: &App) -> Router {
    Router::new()
}
