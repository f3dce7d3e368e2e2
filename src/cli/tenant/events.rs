//! `systemprompt tenant events`: a tenant's history, and what happens next.

use std::ops::ControlFlow;

use crate::api::event::Event;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;
use crate::client::follow::Update;

/// Nothing happens to a tenant after this.
const LAST: &str = "tenant_deleted";

/// Flags of `systemprompt tenant events`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Only events after this number
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    since: u64,
    /// Stay, and show what happens
    #[arg(long, short)]
    follow: bool,
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

/// Shows events, one a line.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let client = context.client()?;
    let ui = context.ui();
    if args.follow {
        let (mut outcome, mut is_over) = (Ok(()), false);
        let go_on = |since: u64| {
            context.set_go_on(format!(
                "systemprompt tenant events {id} --follow --since {since}"
            ));
        };
        go_on(args.since);
        let mut listener = |update: Update<'_>| {
            match update {
                Update::Event(event) => {
                    outcome = ui.entry(event, || line(event));
                    is_over = event.event == LAST;
                    go_on(event.seq);
                }
                Update::Waiting(error) => ui.status(format!("{error}; still trying")),
                Update::Back => ui.status("the server answers again"),
                Update::Operation(_) => {}
            }
            if outcome.is_ok() && !is_over {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        client.follow_events(&id, args.since, &mut listener).await?;
        if is_over {
            ui.status("the tenant is deleted: nothing more comes");
        }
        return outcome;
    }
    let mut since = args.since;
    loop {
        let events = client.list_events(&id, since, Some(200)).await?;
        let Some(last) = events.last().filter(|last| last.seq > since) else {
            return Ok(());
        };
        since = last.seq;
        for event in &events {
            ui.entry(event, || line(event))?;
        }
    }
}

fn line(event: &Event) -> String {
    format!(
        "{:>4}  {}  {:<24} {}",
        event.seq, event.at, event.event, event.message
    )
    .trim_end()
    .to_owned()
}
