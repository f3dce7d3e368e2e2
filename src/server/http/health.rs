//! How the server is: for load balancers, operators and monitoring.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use tokio::sync::Mutex;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::health::{Health, JobsHealth};
use crate::api::problem::Problem;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::Caller;
use crate::server::http::layers::loopback_only;
use crate::server::http::problem::UNAVAILABLE;
use crate::server::store::{operations, settings};

/// Routes that anybody may call, and the one for this machine only.
pub fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_livez))
        .routes(routes!(get_readyz))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(get_metrics))
                .route_layer(from_fn(loopback_only)),
        )
}

/// Routes that ask the world: limited by address.
pub fn limited_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_health))
}

/// Routes for operators.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_jobs_health))
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "Server", responses((status = 200, body = String)))]
async fn get_livez() -> &'static str {
    "ok\n"
}

/// Whether the database takes writes, asked anew every few seconds at most.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<(Instant, Result<(), Problem>)>>);

/// For how long an answer holds: whoever routes requests asks often.
const READY_FOR: Duration = Duration::from_secs(1);
/// For how long the database may take to write one row.
const WRITE_WITHIN: Duration = Duration::from_secs(3);
/// Where that row is.
const LAST_CHECK: &str = "last-readiness-check";

impl Readiness {
    async fn check(&self, app: &App) -> Answer<()> {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < READY_FOR
        {
            return answer.clone().map_err(ApiError::from_problem);
        }
        let answer = write_one(app).await;
        let kept = answer.as_ref().copied().map_err(ApiError::problem);
        *last = Some((Instant::now(), kept));
        answer
    }
}

/// A database that only answers questions is locked, read-only or full: it takes no work.
async fn write_one(app: &App) -> Answer<()> {
    let written = async {
        let mut tx = app.store.begin().await?;
        settings::put(&mut tx, LAST_CHECK, &app.clock.now().to_string()).await?;
        tx.commit().await
    };
    match tokio::time::timeout(WRITE_WITHIN, written).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(ApiError::new(
            &UNAVAILABLE,
            format!("the database took no write within {} s", WRITE_WITHIN.as_secs()),
        )),
    }
}

/// The server can answer and take work: its database takes writes.
#[utoipa::path(get, path = "/readyz", tag = "Server", responses((status = 200, body = String)))]
async fn get_readyz(State(app): State<App>) -> Answer<&'static str> {
    match app.ready.check(&app).await {
        Ok(()) if app.stopping.is_cancelled() => Err(ApiError::new(&UNAVAILABLE, "the server is stopping")),
        Ok(()) => Ok("ok\n"),
        Err(error) => Err(error),
    }
}

/// How every part is that the server stands on.
#[utoipa::path(get, path = "/health", tag = "Server", responses((status = 200, body = Health)))]
async fn get_health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let (world, database) = tokio::join!(app.provision.health(), app.store.ping());
    let parts = [
        database
            .map(|()| "ok".to_owned())
            .map_err(|error| error.to_string()),
        world.provider,
        world.registry,
        world.edge,
        world.databases,
    ];
    let good = parts.iter().all(Result::is_ok);
    let [database, provider, registry, edge, databases] =
        parts.map(|part| part.unwrap_or_else(|wrong| format!("failing: {wrong}")));
    let health = Health {
        status: if good { "ok" } else { "degraded" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        database,
        provider,
        registry,
        edge,
        databases,
    };
    // Degraded is not down: the API answers, so the status stays 200 for whoever routes by it.
    (StatusCode::OK, Json(health))
}

/// The queue of operations.
#[utoipa::path(
    get, path = "/api/v1/jobs/health", tag = "Server",
    responses((status = 200, body = JobsHealth))
)]
async fn get_jobs_health(State(app): State<App>, Caller(caller): Caller) -> Answer<Json<JobsHealth>> {
    caller.require_operator()?;
    let mut tx = app.store.begin_read().await?;
    Ok(Json(operations::queue_health(&mut tx, app.clock.now()).await?))
}

/// Counters: OpenMetrics where it is accepted, else the Prometheus text format; for this machine only.
#[utoipa::path(
    get, path = "/metrics", tag = "Server",
    responses((status = 200, content(
        (String = "text/plain"), (String = "application/openmetrics-text")
    )))
)]
async fn get_metrics(State(app): State<App>, headers: HeaderMap) -> Answer<impl IntoResponse> {
    let mut tx = app.store.begin_read().await?;
    let queue = operations::queue_health(&mut tx, app.clock.now()).await?;
    drop(tx);
    for (name, value) in [
        ("operations_queued", queue.queued),
        ("operations_running", queue.running),
        ("operations_stuck", queue.stuck),
        ("operations_oldest_waiting_seconds", queue.oldest_waiting_seconds),
    ] {
        metrics::gauge!(name).set(value as f64);
    }
    app.metrics.run_upkeep();
    let text = app.metrics.render();
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    Ok(
        if accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text")) {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], open_metrics(&text))
        } else {
            (
                [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
                text,
            )
        },
    )
}

/// The same figures in OpenMetrics 1.0: no empty lines, counters named without `_total`, an end.
fn open_metrics(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + 8);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once("_total "))
        {
            Some((family, rest)) => lines.push_str(&format!("# {family} {rest}\n")),
            None => lines.push_str(&format!("{line}\n")),
        }
    }
    lines.push_str("# EOF\n");
    lines
}

#[cfg(test)]
mod tests {
    use super::open_metrics;

    #[test]
    fn counters_lose_their_suffix_in_comments_only() {
        let text = "# HELP a_total says\n# TYPE a_total counter\na_total{b=\"x_total \"} 1\n\n# TYPE c gauge\nc 2\n\n";
        let wanted =
            "# HELP a says\n# TYPE a counter\na_total{b=\"x_total \"} 1\n# TYPE c gauge\nc 2\n# EOF\n";
        assert_eq!(open_metrics(text), wanted);
    }
}
