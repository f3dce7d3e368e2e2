//! What the tenant answers: liveness, readiness, its data as JSON, the front page and the web folder.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

use crate::runtime::catalog::Catalog;
use crate::runtime::database::{Database, DatabaseError, Visits};
use crate::runtime::settings::Settings;
use crate::runtime::{files, page};

/// Who the tenant is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantName {
    /// `ten_…`.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
}

/// `GET /api/v1/site`.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// Who.
    pub tenant: TenantName,
    /// Number of the release that answers.
    pub release: Option<String>,
    /// Version of the program.
    pub version: &'static str,
    /// From the tenant's own database; nothing while it does not answer.
    pub visits: Option<Visits>,
    /// Agents and skills of the project.
    #[serde(flatten)]
    pub catalog: Catalog,
}

/// What the handlers share.
#[derive(Clone, Debug)]
pub struct Services {
    site: Arc<Site>,
    web_dir: Arc<PathBuf>,
    database: Database,
}

impl Services {
    /// From the settings, the catalog and the database.
    #[must_use]
    pub fn new(settings: &Settings, catalog: Catalog, database: Database) -> Self {
        let site = Site {
            tenant: TenantName {
                id: settings.tenant_id.clone(),
                name: settings.tenant_name.clone(),
            },
            release: settings.release.clone(),
            version: env!("CARGO_PKG_VERSION"),
            visits: None,
            catalog,
        };
        Self {
            site: Arc::new(site),
            web_dir: Arc::new(settings.web_dir.clone()),
            database,
        }
    }

    fn site(&self, visits: Result<Visits, DatabaseError>) -> Site {
        let visits = visits.inspect_err(log_database).ok();
        Site {
            visits,
            ..(*self.site).clone()
        }
    }

    fn release(&self) -> &str {
        self.site.release.as_deref().unwrap_or("0")
    }
}

/// Every route of the tenant.
pub fn router(services: Services) -> Router {
    let header = |name: HeaderName, value| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/health", get(health))
        .route("/api/v1/site", get(site))
        .route("/", get(front_page))
        .fallback(get(web_file))
        .layer(header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(header(header::REFERRER_POLICY, "strict-origin-when-cross-origin"))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new())
        // A database that is away is logged where it is found; the 503 that follows is no second news.
        .layer(TraceLayer::new_for_http().on_failure(()))
        .with_state(services)
}

async fn ready(State(services): State<Services>) -> Response {
    match services.database.check().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            log_database(&error);
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")).into_response()
        }
    }
}

/// Lives as long as the process does; says what is wrong without failing, because a restart would not mend it.
async fn health(State(services): State<Services>) -> Response {
    let database = services.database.check().await;
    let status = if database.is_ok() { "ok" } else { "degraded" };
    let body = json!({
        "status": status,
        "version": services.site.version,
        "release": services.site.release,
        "tenant_id": services.site.tenant.id,
        "database": database.map_or_else(|error| error.to_string(), |()| "ok".to_owned()),
    });
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn site(State(services): State<Services>) -> Response {
    let site = services.site(services.database.read_visits().await);
    ([(header::CACHE_CONTROL, "no-store")], Json(site)).into_response()
}

async fn front_page(State(services): State<Services>) -> Response {
    let Ok(template) = tokio::fs::read_to_string(services.web_dir.join("index.html")).await else {
        return not_found("this project has no `index.html`; build its web folder");
    };
    let site = services.site(services.database.count_visit().await);
    (
        [(header::CACHE_CONTROL, "no-store")],
        Html(page::render(&template, &site)),
    )
        .into_response()
}

async fn web_file(State(services): State<Services>, uri: Uri, request: Request) -> Response {
    let found = files::serve(
        &services.web_dir,
        uri.path(),
        request.headers(),
        services.release(),
    )
    .await;
    found.unwrap_or_else(|| not_found("there is nothing here"))
}

fn not_found(why: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("{why}\n")).into_response()
}

fn log_database(error: &DatabaseError) {
    // A tenant without a database is not worth a line for every request.
    if !matches!(error, DatabaseError::None) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "the database cannot be used"
        );
    }
}
