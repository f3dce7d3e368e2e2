//! What a tenant uses and how it answers: now, and in its history.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::TenantId;
use crate::api::metrics::{History, HistoryQuery, Metrics};
use crate::api::oauth::Scope;
use crate::api::tenant::TenantStatus;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Params};
use crate::server::http::problem;
use crate::server::store::tenants::TenantRow;

const HOUR: i64 = 3600;
const DAYS_30: i64 = 30 * 24 * HOUR;
const MINUTE: i64 = 60;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_tenant_metrics))
        .routes(routes!(get_metrics_history))
}

/// What the tenant uses now, and the requests of the last five minutes.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/metrics", tag = "Tenants",
    responses((status = 200, body = Metrics))
)]
async fn get_tenant_metrics(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<Json<Metrics>> {
    let (tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    drop(tx);
    require_kept(&tenant)?;
    Ok(Json(app.provision.metrics(&tenant).await?))
}

/// What the tenant has used and how it has answered: every 15 seconds for an hour, every five minutes for 30 days.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/metrics/history", tag = "Tenants", params(HistoryQuery),
    responses((status = 200, body = History))
)]
async fn get_metrics_history(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<HistoryQuery>,
) -> Answer<Json<History>> {
    let wanted = wanted(&query)?;
    let (tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    drop(tx);
    require_kept(&tenant)?;
    Ok(Json(app.provision.metrics_history(&tenant, wanted).await?))
}

fn require_kept(tenant: &TenantRow) -> Answer<()> {
    if tenant.status == TenantStatus::Deleted {
        return Err(ApiError::new(
            &problem::NOT_FOUND,
            "failed to read the metrics: the tenant is deleted, and its history with it",
        ));
    }
    Ok(())
}

/// How many seconds back, and whether in fine steps.
fn wanted(query: &HistoryQuery) -> Answer<(i64, bool)> {
    let seconds = match query.range.as_deref() {
        None => HOUR,
        Some(text) => parse_range(text)
            .filter(|seconds| (MINUTE..=DAYS_30).contains(seconds))
            .ok_or_else(|| {
                ApiError::invalid("range", "must be 1m to 30d, written like `15m`, `24h` or `30d`")
            })?,
    };
    match query.step {
        None => Ok((seconds, seconds <= HOUR)),
        Some(15) if seconds <= HOUR => Ok((seconds, true)),
        Some(15) => Err(ApiError::invalid(
            "step",
            "of 15 is kept for an hour; ask for 300",
        )),
        Some(300) => Ok((seconds, false)),
        Some(_) => Err(ApiError::invalid("step", "must be 15 or 300")),
    }
}

fn parse_range(text: &str) -> Option<i64> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.chars().last()?),
        None => (text, 's'),
    };
    let number: i64 = number.parse().ok()?;
    number.checked_mul(match unit {
        's' => 1,
        'm' => MINUTE,
        'h' => HOUR,
        _ => 24 * HOUR,
    })
}

#[cfg(test)]
mod tests {
    use super::{parse_range, wanted};
    use crate::api::metrics::HistoryQuery;

    #[test]
    fn ranges_are_written_as_people_write_them() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("24h", 86_400),
            ("30d", 2_592_000),
        ] {
            assert_eq!(parse_range(text), Some(seconds), "{text}");
        }
        for text in ["", "h", "1w", "-", "1.5h", "9223372036854775807d"] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }

    #[test]
    fn the_finer_step_is_taken_where_there_is_one() {
        let ask = |range: Option<&str>, step| {
            wanted(&HistoryQuery {
                range: range.map(str::to_owned),
                step,
            })
            .ok()
        };
        assert_eq!(ask(None, None), Some((3600, true)));
        assert_eq!(ask(Some("2h"), None), Some((7200, false)));
        assert_eq!(ask(Some("1h"), Some(300)), Some((3600, false)));
        assert_eq!(ask(Some("2h"), Some(15)), None);
        assert_eq!(ask(Some("1h"), Some(60)), None);
        assert_eq!(ask(Some("31d"), None), None);
        assert_eq!(ask(Some("0"), None), None);
    }
}
