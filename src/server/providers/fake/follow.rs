//! What a fake machine prints, as it prints it.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::api::time::Time;
use crate::server::providers::fake::rules;
use crate::server::providers::{LogLine, LogQuery, ProviderError};
use crate::server::world::World;

/// How often the world is looked at for new lines.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was printed so far, and with `follow` what comes, until the machine ends.
pub(super) fn lines(
    world: &World,
    machine_id: &str,
    (mut written, has_more): (Vec<LogLine>, bool),
    query: &LogQuery,
) -> BoxStream<'static, Result<LogLine, ProviderError>> {
    let seen = written.len();
    let since = query.since_seconds.unwrap_or(i64::MIN);
    written.retain(|line| second(line) >= since);
    if let Some(tail) = query.tail {
        let skipped = written.len().saturating_sub(tail as usize);
        written.drain(..skipped);
    }
    let written = stream::iter(written.into_iter().map(Ok));
    if !query.follow || !has_more {
        return written.boxed();
    }
    let (world, machine_id) = (world.clone(), machine_id.to_owned());
    let new = stream::unfold(Some(seen), move |seen| {
        let (world, machine_id) = (world.clone(), machine_id.clone());
        async move {
            let mut seen = seen?;
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let count = world.peek(|state| rules::log_count(state, &machine_id));
                let (count, more) = count.ok().flatten()?;
                if count <= seen && more {
                    continue;
                }
                let now = world.peek(|state| rules::log_lines(state, &machine_id));
                let (mut lines, more) = now.ok().flatten()?;
                let new = lines.split_off(seen.min(lines.len()));
                seen += new.len();
                return Some((stream::iter(new.into_iter().map(Ok)), more.then_some(seen)));
            }
        }
    });
    written.chain(new.flatten()).boxed()
}

fn second(line: &LogLine) -> i64 {
    line.at
        .parse::<Time>()
        .map_or(0, |at| at.as_millis().div_euclid(1000))
}
