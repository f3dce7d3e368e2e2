//! Looks at what every machine uses, every 15 seconds, and sums up what is older.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;

use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::providers::{Printer, ProviderError, Usage};
use crate::server::provision::Provision;
use crate::server::provision::context::Parts;
use crate::server::provision::observe::access::EDGE;
use crate::server::provision::observe::points::{self, Sample, Seen};
use crate::server::store::metric_blocks::{self, COARSE, FINE};
use crate::server::store::{StoreError, log_chunks, log_positions};

/// Machines that are looked at side by side.
const AT_ONCE: usize = 16;
/// A machine that does not answer is left out of this round.
const WITHIN: Duration = Duration::from_secs(5);
/// A block is summed up when nothing more is expected in it.
const SETTLED_SECONDS: i64 = 30;
/// Blocks that are summed up in one transaction.
const TOGETHER: u32 = 200;
/// A machine that was read so long ago and is not there is gone.
const GONE_SECONDS: i64 = 3600;
/// How often what is too old is forgotten, in rounds.
const FORGET_EVERY: u64 = 40;

/// Samples for ever, in step with the clock.
pub(super) async fn sample_for_ever(parts: Parts) {
    let mut sampler = Sampler::default();
    let mut round = 0_u64;
    loop {
        let step = FINE.step_seconds * 1000;
        let left = step - parts.clock.now().as_millis().rem_euclid(step);
        tokio::time::sleep(Duration::from_millis(left.unsigned_abs())).await;
        if let Err(error) = sampler.round(&parts).await {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "failed to sample what tenants use");
        }
        if let Err(error) = tidy(&parts, round).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "failed to sum up metrics");
        }
        round += 1;
    }
}

impl Provision {
    /// Looks at what every machine uses, once; answers how many tenants it saw.
    ///
    /// # Errors
    /// The provider does not tell who runs, or the store fails.
    pub async fn sample(&self, sampler: &mut Sampler) -> Result<usize, SampleError> {
        sampler.round(&self.0.parts).await
    }
}

/// Why nothing was sampled.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// The provider does not tell who runs.
    #[error("failed to ask who runs")]
    Provider(#[from] ProviderError),
    /// The store failed.
    #[error("failed to keep what tenants use")]
    Store(#[from] StoreError),
}

/// What was seen of each machine the last time.
#[derive(Debug, Default)]
pub struct Sampler {
    before: HashMap<String, (Time, u64)>,
}

impl Sampler {
    /// Looks at every machine once.
    async fn round(&mut self, parts: &Parts) -> Result<usize, SampleError> {
        let mut machines = parts.provider.list_printers().await?;
        machines.retain(|machine| machine.is_running && !machine.is_command);
        let looks = machines.into_iter().map(|machine| async move {
            let usage = tokio::time::timeout(WITHIN, parts.provider.usage(&machine.machine_id)).await;
            let usage = usage.ok()?.ok()??;
            Some((machine, usage, parts.clock.now()))
        });
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let mut samples: BTreeMap<TenantId, Sample> = BTreeMap::new();
        let mut seen = HashMap::new();
        for (machine, usage, at) in looks.into_iter().flatten() {
            seen.insert(machine.machine_id.clone(), (at, usage.cpu_micros));
            self.add(&mut samples, &machine, (usage, at));
        }
        self.before = seen;
        // The time that was sampled ends now.
        let (starts_at, place) = FINE.place(Time::from_millis(parts.clock.now().as_millis() - 1000));
        let mut tx = parts.store.begin().await?;
        for (tenant, sample) in &samples {
            metric_blocks::append(&mut tx, tenant, (&FINE, starts_at), &sample.entry(place)).await?;
        }
        tx.commit().await?;
        Ok(samples.len())
    }

    /// Two machines of a tenant, in a cut-over, use what they use together.
    fn add(&self, samples: &mut BTreeMap<TenantId, Sample>, machine: &Printer, (usage, at): (Usage, Time)) {
        let cpu_permille = self.before.get(&machine.machine_id).and_then(|(then, micros)| {
            let millis = u64::try_from(at.as_millis() - then.as_millis()).ok()?;
            // Micros in a milli are thousandths. A counter that went back belongs to a machine that was started again.
            usage.cpu_micros.checked_sub(*micros)?.checked_div(millis)
        });
        let sum = samples.entry(machine.tenant_id.clone()).or_insert(Sample {
            cpu_permille: None,
            memory_bytes: 0,
        });
        sum.memory_bytes += usage.memory_bytes;
        if let Some(cpu) = cpu_permille {
            sum.cpu_permille = Some(sum.cpu_permille.unwrap_or(0) + cpu);
        }
    }
}

/// Sums up blocks that have ended, and forgets what is too old.
pub(super) async fn tidy(parts: &Parts, round: u64) -> Result<(), StoreError> {
    let now = parts.clock.now();
    let ended = now.plus_seconds(-FINE.block_seconds - SETTLED_SECONDS);
    loop {
        let mut tx = parts.store.begin().await?;
        let blocks = metric_blocks::list_unrolled(&mut tx, ended, TOGETHER).await?;
        for block in &blocks {
            let mut sum = Seen::default();
            for seen in points::read(&block.points).values() {
                sum.merge(seen);
            }
            let (day, place) = COARSE.place(block.starts_at);
            metric_blocks::append(&mut tx, &block.tenant, (&COARSE, day), &sum.entries(place)).await?;
            metric_blocks::set_rolled(&mut tx, &block.tenant, block.starts_at).await?;
        }
        tx.commit().await?;
        if blocks.len() < TOGETHER as usize {
            break;
        }
    }
    if round.is_multiple_of(FORGET_EVERY) {
        let mut tx = parts.store.begin().await?;
        metric_blocks::delete_old(&mut tx, now).await?;
        log_chunks::delete_before(&mut tx, now.plus_seconds(-log_chunks::KEPT_SECONDS)).await?;
        tx.commit().await?;
        forget_machines(parts, now).await?;
    }
    Ok(())
}

/// Forgets up to where machines were read that are gone. One that is there keeps its position, however long it is silent.
async fn forget_machines(parts: &Parts, now: Time) -> Result<(), StoreError> {
    let mut tx = parts.store.begin_read().await?;
    let mut still = log_positions::list_still(&mut tx, now.plus_seconds(-GONE_SECONDS)).await?;
    drop(tx);
    let Ok(printers) = parts.provider.list_printers().await else {
        return Ok(());
    };
    still.retain(|id| id != EDGE && printers.iter().all(|printer| printer.machine_id != *id));
    let mut tx = parts.store.begin().await?;
    for machine in &still {
        log_positions::remove(&mut tx, machine).await?;
    }
    tx.commit().await
}
