//! What a container uses, as `docker stats` counts it.

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt as _;

use crate::server::containers::{Engine, EngineError, EngineFault};
use crate::server::providers::Usage;

/// One look, without the second that the engine would wait to tell a rate.
pub(super) async fn read(engine: &Engine, container: &str) -> Result<Option<Usage>, EngineError> {
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let mut answers = engine.docker().await?.stats(container, Some(options));
    let action = || format!("read what `{container}` uses");
    match answers.next().await {
        Some(Ok(stats)) => Ok(usage(&stats)),
        Some(Err(source)) => {
            let error = EngineError::engine(action(), source);
            match error.fault {
                // It ended, or went, since it was listed.
                EngineFault::NotFound | EngineFault::Conflict => Ok(None),
                _ => Err(error),
            }
        }
        None => Ok(None),
    }
}

fn usage(stats: &ContainerStatsResponse) -> Option<Usage> {
    let memory = stats.memory_stats.as_ref()?;
    // A container that does not run is answered with zeros.
    let used = memory.usage.filter(|used| *used > 0)?;
    let cpu = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let details = memory.stats.as_ref();
    // The page cache that nobody uses: `total_inactive_file` of cgroup v1, `inactive_file` of v2.
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .find_map(|name| details.and_then(|details| details.get(*name)).copied())
        .unwrap_or(0);
    Some(Usage {
        cpu_micros: cpu / 1000,
        memory_bytes: used.saturating_sub(cache),
        memory_limit_bytes: memory.limit.unwrap_or(0),
    })
}
