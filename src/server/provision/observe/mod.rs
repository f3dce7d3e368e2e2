//! What tenants print and use: one server of the installation follows every machine and keeps its lines.

mod access;
mod history;
mod keep;
mod points;
mod position;
mod sample;
mod tail;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::server::providers::{Printer, ProviderError};
use crate::server::provision::context::Parts;
pub(in crate::server::provision) use crate::server::provision::observe::keep::Origin;
pub use crate::server::provision::observe::sample::Sampler;
use crate::server::provision::observe::tail::{TailError, Writer};
use crate::server::provision::{Inner, Provision};
use crate::server::store::{Store, StoreError, duties};

/// How often the provider is asked who prints, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes long is taken less often: so many times its own duration apart.
const LOOK_SHARE: u32 = 20;
/// The same while operations go on, which start machines.
const LOOK_SOON: Duration = Duration::from_millis(100);
const SOON_SHARE: u32 = 4;
/// For how long a server that is not heard of keeps the duty.
const DUTY_SECONDS: i64 = 10;
const DUTY: &str = "observe";
/// Reading the last lines of a machine that goes must not hold up what removes it.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// Batches that wait for the writer.
const QUEUE: usize = 256;

impl Provision {
    /// Follows every machine from now on, unless another server of the installation does.
    pub fn observe(&self) {
        let inner = self.0.clone();
        self.0.tracker.spawn(async move { observe_for_ever(inner).await });
    }
}

/// Keeps the last lines of a machine that is going to be removed. Failing is not a reason to keep the machine.
pub(in crate::server::provision) async fn drain(parts: &Parts, origin: &Origin) {
    let drained = tail::follow(parts, origin, &Writer::Own, false);
    let error = match tokio::time::timeout(DRAIN_WITHIN, drained).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => TailError::NotKept,
    };
    let error: &dyn std::error::Error = &error;
    tracing::warn!(
        error,
        machine = origin.machine_id,
        "the last lines of a machine may be lost"
    );
}

async fn observe_for_ever(inner: Arc<Inner>) {
    let holder = inner.parts.clock.uuid().to_string();
    let stop = &inner.signals.stop;
    let mut followed: Option<Followed> = None;
    while !stop.is_cancelled() {
        let began = Instant::now();
        match hold(&inner.parts, &holder).await {
            Ok(true) => {
                let followed = followed.get_or_insert_with(|| Followed::new(&inner));
                if let Err(error) = followed.look().await {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "failed to ask who prints");
                }
            }
            Ok(false) => followed = None,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "failed to ask whether to follow machines");
            }
        }
        let took = began.elapsed();
        let soon = async {
            tokio::time::sleep(LOOK_SOON.max(took * SOON_SHARE)).await;
            inner.observe.notified().await;
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY.max(took * LOOK_SHARE)) => {}
            () = soon => {}
            () = stop.cancelled() => {}
        }
    }
    drop(followed);
    if let Err(error) = give_back(&inner.parts, &holder).await {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "failed to give back the duty to follow machines");
    }
}

/// One server of many follows; a file has only one server.
async fn hold(parts: &Parts, holder: &str) -> Result<bool, StoreError> {
    if matches!(parts.store, Store::Sqlite { .. }) {
        return Ok(true);
    }
    let now = parts.clock.now();
    let mut tx = parts.store.begin().await?;
    let held = duties::hold(&mut tx, DUTY, holder, (now, now.plus_seconds(DUTY_SECONDS))).await?;
    tx.commit().await?;
    Ok(held)
}

async fn give_back(parts: &Parts, holder: &str) -> Result<(), StoreError> {
    if matches!(parts.store, Store::Sqlite { .. }) {
        return Ok(());
    }
    let mut tx = parts.store.begin().await?;
    duties::give_back(&mut tx, DUTY, holder).await?;
    tx.commit().await
}

/// The machines that are followed. Dropped, nobody is.
struct Followed {
    parts: Parts,
    tails: JoinSet<()>,
    running: HashMap<String, AbortHandle>,
    /// Ended, and read to the end.
    read: HashSet<String>,
    queue: mpsc::Sender<keep::Asked>,
}

impl Followed {
    fn new(inner: &Inner) -> Self {
        let parts = &inner.parts;
        let (queue, batches) = mpsc::channel(QUEUE);
        let mut tails = JoinSet::new();
        tails.spawn(keep::keep_for_ever(parts.clone(), inner.lines.clone(), batches));
        tails.spawn(access::follow_for_ever(parts.clone(), inner.lines.clone()));
        tails.spawn(sample::sample_for_ever(parts.clone()));
        Self {
            parts: parts.clone(),
            tails,
            running: HashMap::new(),
            read: HashSet::new(),
            queue,
        }
    }

    /// Follows who prints and is not followed yet.
    async fn look(&mut self) -> Result<(), ProviderError> {
        while self.tails.try_join_next().is_some() {}
        let printers = self.parts.provider.list_printers().await?;
        let there: HashSet<&str> = printers.iter().map(|it| it.machine_id.as_str()).collect();
        self.read.retain(|machine| there.contains(machine.as_str()));
        self.running.retain(|_, tail| !tail.is_finished());
        for printer in printers {
            self.follow(printer);
        }
        Ok(())
    }

    fn follow(&mut self, printer: Printer) {
        let machine = printer.machine_id.clone();
        if printer.is_running {
            self.read.remove(&machine);
        } else if self.read.contains(&machine) {
            return;
        }
        if self.running.contains_key(&machine) {
            return;
        }
        if !printer.is_running {
            // It is read to its end by the tail that begins now; if that fails, whoever removes it reads it once more.
            self.read.insert(machine.clone());
        }
        let (parts, queue, origin) = (self.parts.clone(), self.queue.clone(), Origin::from(printer));
        let tail = self.tails.spawn(async move {
            let followed = tail::follow(&parts, &origin, &Writer::Shared(&queue), true).await;
            if let Err(error) = followed {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, machine = origin.machine_id, "stopped following a machine");
            }
        });
        self.running.insert(machine, tail);
    }
}
