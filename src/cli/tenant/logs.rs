//! `systemprompt tenant logs`: what a tenant prints.

use std::ops::ControlFlow;

use clap::ValueEnum as _;
use console::{AnsiCodeIterator, style};

use crate::api::log::{LogLine, LogQuery, LogSource};
use crate::api::time::Time;
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
    /// Only the last so many lines [default: 100, or all with `--since`]
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(..=10_000))]
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
    /// The releases
    App,
    /// The commands that ran once before a release served
    Release,
    /// The proxy in front of the tenant: a line for every request
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
        after: None,
        tail: args.tail,
        source: args.source.map(|source| match source {
            Source::App => LogSource::App,
            Source::Release => LogSource::Release,
            Source::Edge => LogSource::Edge,
        }),
    };
    let (mut outcome, mut count) = (Ok(()), 0_u64);
    let source = args.source.and_then(|source| source.to_possible_value());
    let source = source.map(|source| format!(" --source {}", source.get_name()));
    let source = source.unwrap_or_default();
    let go_on = |since: Option<Time>| {
        let since = since.map(|since| format!(" --since {since}")).unwrap_or_default();
        context.set_go_on(format!("systemprompt tenant logs {id} --follow{source}{since}"));
    };
    if args.follow {
        go_on(since);
    }
    let mut take = |line: LogLine| {
        count += 1;
        if args.follow {
            go_on(Some(line.at));
        }
        outcome = context.ui().entry(&line, || text(&line));
        if outcome.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    context.client()?.read_logs(&id, &query, &mut take).await?;
    if count == 0 && !context.ui().json() {
        context
            .ui()
            .status("there are no such lines; they are kept for 7 days");
    }
    outcome
}

/// A line as people read it: when, which release, what.
fn text(line: &LogLine) -> String {
    let release = line
        .release
        .map(|number| format!("v{number}"))
        .unwrap_or_default();
    let release = match (release.is_empty(), line.stream == "stderr") {
        (true, _) => String::new(),
        (false, true) => format!("  {}", style(format!("{release:<3}")).red()),
        (false, false) => format!("  {}", style(format!("{release:<3}")).green()),
    };
    format!("{}{release}  {}", style(line.at).dim(), harmless(&line.line))
        .trim_end()
        .to_owned()
}

/// What a tenant prints must not move the cursor of whoever reads it: colours stay where there are colours,
/// everything else that a terminal would obey is taken out.
fn harmless(line: &str) -> String {
    let has_colors = console::colors_enabled();
    let mut text = String::with_capacity(line.len());
    let mut is_colored = false;
    for (part, is_code) in AnsiCodeIterator::new(line) {
        if !is_code {
            let visible = |c: char| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            };
            text.extend(part.chars().map(visible));
        } else if has_colors && part.ends_with('m') {
            text.push_str(part);
            is_colored = true;
        }
    }
    if is_colored {
        text.push_str("\u{1b}[0m");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn a_line_cannot_move_the_cursor() {
        console::set_colors_enabled(false);
        assert_eq!(harmless("\u{1b}[31mred\u{1b}[0m\tand"), "red\tand");
        assert_eq!(harmless("50 %\r100 %\u{7}\u{1b}[2J"), "50 %\u{fffd}100 %\u{fffd}");
        console::set_colors_enabled(true);
        assert_eq!(harmless("\u{1b}[31mred\u{1b}[2K"), "\u{1b}[31mred\u{1b}[0m");
    }
}
