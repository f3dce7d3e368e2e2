//! `systemprompt tenant logs`: what a tenant prints.

use std::ops::ControlFlow;

use crate::api::log::{LogQuery, LogSource};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::point_in_time;
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;

/// Flags of `systemprompt tenant logs`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Stay, and show new lines
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only lines after this time: `2026-01-31T12:00:00Z`, or `15m` for the last 15 minutes
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Whose lines
    #[arg(long, value_enum)]
    source: Option<Source>,
}

/// Whose lines.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Source {
    /// The release that serves
    App,
    /// The command that ran once before the release served
    Release,
    /// The proxy in front of the tenant
    Edge,
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

/// Shows log lines.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let since = match args.since.as_deref() {
        Some(text) => Some(point_in_time(text, context.clock().now())?),
        None => None,
    };
    let query = LogQuery {
        follow: args.follow,
        since,
        tail: args.tail,
        source: args.source.map(|source| match source {
            Source::App => LogSource::App,
            Source::Release => LogSource::Release,
            Source::Edge => LogSource::Edge,
        }),
    };
    let mut outcome = Ok(());
    let mut take = |line: crate::api::log::LogLine| {
        outcome = context
            .ui()
            .entry(&line, || format!("{}  {}", line.at, line.line));
        if outcome.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    context.client()?.read_logs(&id, &query, &mut take).await?;
    outcome
}
