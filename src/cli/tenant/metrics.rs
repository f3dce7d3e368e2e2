//! `systemprompt tenant metrics`: what a tenant uses and how it answers, now and in its history.

use console::style;
use serde_json::json;

use crate::api::metrics::{History, HistoryQuery, Metrics, Point, Requests};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::tenant::show::Lines;
use crate::cli::ui::sparkline;

/// Bars of a sparkline.
const WIDTH: usize = 60;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Flags of `systemprompt tenant metrics`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// How far back the history goes: `15m`, `1h`, `24h`, `30d` [default: 1h]
    #[arg(long, value_name = "RANGE")]
    range: Option<String>,
    /// Seconds between two points: 15 (for the last hour) or 300 [default: the finer one that there is]
    #[arg(long, value_name = "SECONDS")]
    step: Option<u32>,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            ..Self::default()
        }
    }
}

/// Shows metrics.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let client = context.client()?;
    let query = HistoryQuery {
        range: args.range,
        step: args.step,
    };
    // The history first: it is the one that may be refused.
    let history = client.get_metrics_history(&id, &query).await?;
    let now = client.get_metrics(&id).await?;
    let document = json!({ "now": now, "history": history });
    context.ui().result(&document, || text(&now, &history))
}

fn text(now: &Metrics, history: &History) -> String {
    let columns = columns(history);
    let mut lines = Lines::default();
    let cpu = now
        .cpu_percent
        .map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1} %"));
    lines.add("cpu", &row(&cpu, &columns, 0.0, |column| column.cpu));
    let limit = mebibytes(now.memory_limit_bytes);
    let memory = match now.memory_bytes {
        Some(used) => format!("{:.0} of {limit:.0} MB", mebibytes(used)),
        None => format!("- of {limit:.0} MB"),
    };
    lines.add("memory", &row(&memory, &columns, limit, |column| column.memory));
    let rate = format!("{:.2} a second", now.requests.per_second);
    lines.add("requests", &row(&rate, &columns, 0.0, |column| column.requests));
    let slowest = match &now.requests.latency {
        Some(latency) => format!("p95 {} ms", latency.p95_ms),
        None => "-".to_owned(),
    };
    lines.add("latency", &row(&slowest, &columns, 0.0, |column| column.p95));
    lines.add(
        "failures",
        &row(&share(&now.requests), &columns, 0.0, |column| column.failures),
    );
    lines.text.push('\n');
    lines.add("answers", &answers(&now.requests, now.window_seconds));
    if let Some(latency) = &now.requests.latency {
        let text = format!(
            "{} ms for half of them, {} ms for 95 %, {} ms for 99 %",
            latency.p50_ms, latency.p95_ms, latency.p99_ms
        );
        lines.add("at most", &text);
    }
    let span = history.to.seconds_since(history.from);
    let bars = i64::try_from(columns.len()).unwrap_or(1).max(1);
    let from = format!(
        "{} to {}, a bar for {}",
        history.from,
        history.to,
        lasting(span / bars)
    );
    lines.add("history", &style(from).dim().to_string());
    lines.text
}

/// A number of now and its history.
fn row(number: &str, columns: &[Column], most: f64, value: impl Fn(&Column) -> Option<f64>) -> String {
    let values: Vec<Option<f64>> = columns.iter().map(value).collect();
    format!("{number:<14} {}", style(sparkline(&values, most)).cyan())
}

/// Seconds as people say them.
#[expect(clippy::cast_precision_loss, reason = "a month has few seconds")]
fn lasting(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

fn share(requests: &Requests) -> String {
    if requests.count == 0 {
        return "-".to_owned();
    }
    format!(
        "{:.1} %",
        float(requests.status.server_error) / float(requests.count) * 100.0
    )
}

fn answers(requests: &Requests, window_seconds: u32) -> String {
    let minutes = window_seconds / 60;
    let status = &requests.status;
    let mut text = format!(
        "{} in {minutes} minutes: {} 2xx, {} 3xx, {} 4xx, {} 5xx",
        requests.count, status.success, status.redirect, status.client_error, status.server_error
    );
    if status.other > 0 {
        text.push_str(&format!(", {} others", status.other));
    }
    text
}

/// What one bar stands for: some points together.
#[derive(Clone, Copy, Debug, Default)]
struct Column {
    cpu: Option<f64>,
    memory: Option<f64>,
    requests: Option<f64>,
    p95: Option<f64>,
    failures: Option<f64>,
}

impl Column {
    fn add(&mut self, point: &Point) {
        let most = |kept: Option<f64>, new: Option<f64>| match (kept, new) {
            (Some(kept), Some(new)) => Some(kept.max(new)),
            (kept, new) => kept.or(new),
        };
        self.cpu = most(self.cpu, point.cpu_percent);
        self.memory = most(self.memory, point.memory_bytes.map(mebibytes));
        self.requests = Some(self.requests.unwrap_or(0.0) + float(point.requests.count));
        self.failures = Some(self.failures.unwrap_or(0.0) + float(point.requests.status.server_error));
        self.p95 = most(
            self.p95,
            point.requests.latency.map(|latency| float(latency.p95_ms)),
        );
    }
}

/// The history in as many columns as there are bars, or in as many as there are steps.
fn columns(history: &History) -> Vec<Column> {
    let step = i64::from(history.step_seconds.max(1)) * 1000;
    let from = history.from.as_millis();
    let steps = usize::try_from((history.to.as_millis() - from) / step).unwrap_or(0);
    let width = steps.clamp(1, WIDTH);
    let mut columns = vec![Column::default(); width];
    for point in &history.points {
        let place = usize::try_from((point.at.as_millis() - from) / step).unwrap_or(0);
        if let Some(column) = columns.get_mut(place * width / steps.max(1)) {
            column.add(point);
        }
    }
    columns
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / MEBIBYTE
}

#[expect(clippy::cast_precision_loss, reason = "bars and percents need no more")]
const fn float(number: u64) -> f64 {
    number as f64
}
