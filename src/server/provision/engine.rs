//! The workers: they claim operations, a handful at once, and stop in order when the server stops.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::api::time::Time;
use crate::server::clock::Clock;
use crate::server::provision::drive::drive;
use crate::server::provision::saga::known_steps;
use crate::server::provision::{Inner, Provision};
use crate::server::store::operation_leases::Claimer;
use crate::server::store::operations::OperationRow;
use crate::server::store::{Store, StoreError, operation_leases};

/// For how long a step may go on once the server stops.
const STOP_WITHIN: Duration = Duration::from_secs(7);
/// How often it is said again that something is left to others.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// A clock is set right by small steps all the time.
const JUMP_MILLIS: i64 = 2000;
/// The clock and the time that passes are read at once, as far as that goes.
const READ_WITHIN: Duration = Duration::from_millis(100);
/// For how long the lease of a dropped step may take to be given back.
const ABORT_WITHIN: Duration = Duration::from_secs(1);

impl Provision {
    /// Starts the workers. What another process of the same server left in the middle is taken up at once.
    ///
    /// # Errors
    /// The store fails.
    pub async fn start(&self) -> Result<(), StoreError> {
        let inner = self.0.clone();
        if matches!(inner.parts.store, Store::Sqlite { .. }) {
            // A file has one server: whoever held a lease is gone. The fence holds if that is ever wrong.
            let mut tx = inner.parts.store.begin().await?;
            let resumed = operation_leases::release_all(&mut tx).await?;
            tx.commit().await?;
            if resumed > 0 {
                tracing::info!(resumed, "took up what was left in the middle");
            }
        }
        let tracker = inner.tracker.clone();
        let listener = inner.clone();
        tracker.spawn(async move {
            let (bell, stop) = (listener.bell.clone(), listener.signals.stop.clone());
            // After the stop too, until the last worker is done: what it writes is news.
            tokio::select! {
                () = bell.run(|ring| listener.hear(&ring)) => {}
                () = stop.cancelled() => {}
            }
        });
        tracker.spawn(async move { claim_for_ever(inner).await });
        let reconciler = self.clone();
        tracker.spawn(async move { reconciler.reconcile_for_ever().await });
        let watcher = self.clone();
        tracker.spawn(async move { watcher.watch_edge_for_ever().await });
        Ok(())
    }

    /// Stops claiming, lets running steps finish or gives their operations back. Ends within 8 seconds.
    pub async fn stop(&self) {
        let inner = &self.0;
        inner.signals.stop.cancel();
        inner.tracker.close();
        if tokio::time::timeout(STOP_WITHIN, inner.tracker.wait())
            .await
            .is_ok()
        {
            return;
        }
        inner.signals.abort.cancel();
        if tokio::time::timeout(ABORT_WITHIN, inner.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("left an operation in the middle; the next start takes it up");
        }
    }
}

async fn claim_for_ever(inner: std::sync::Arc<Inner>) {
    let slots = std::sync::Arc::new(Semaphore::new(inner.parts.settings.workers.max(1)));
    let owner = inner.parts.settings.worker.clone();
    let mut looked: Option<tokio::time::Instant> = None;
    let mut pace = Pace::look(&inner.parts.clock);
    loop {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = inner.signals.stop.cancelled() => return,
        };
        let Ok(slot) = slot else { return };
        if inner.signals.stop.is_cancelled() {
            return;
        }
        if let Some(seconds) = pace.jumped(&inner.parts.clock) {
            drop(slot);
            hold_still(&inner, seconds).await;
            continue;
        }
        // In one transaction as many as can be worked on now.
        let mut free = vec![slot];
        while let Ok(slot) = slots.clone().try_acquire_owned() {
            free.push(slot);
        }
        match claim(&inner, &owner, free.len()).await {
            Ok(claimed) if !claimed.is_empty() => {
                for (operation, slot) in claimed.into_iter().zip(free) {
                    let worker = inner.clone();
                    inner.tracker.spawn(async move {
                        drive(&worker, &operation).await;
                        drop(slot);
                        worker.wake.notify_one();
                    });
                }
            }
            Ok(_) => {
                drop(free);
                if looked.is_none_or(|looked| looked.elapsed() >= TELL_AGAIN) {
                    looked = Some(tokio::time::Instant::now());
                    tell_unknown(&inner).await;
                }
                let idle = idle_time(&inner).await;
                tokio::select! {
                    () = inner.wake.notified() => {}
                    () = tokio::time::sleep(idle) => {}
                    () = inner.signals.stop.cancelled() => return,
                }
            }
            Err(error) => {
                drop(free);
                log_failure(&error);
                tokio::time::sleep(inner.parts.settings.poll).await;
            }
        }
    }
}

/// Tells a clock that was put back, or forward; so does a machine that slept.
struct Pace {
    looked: tokio::time::Instant,
    clock: Time,
}

impl Pace {
    fn look(clock: &Clock) -> Self {
        let mut before = tokio::time::Instant::now();
        loop {
            let (clock, looked) = (clock.now(), tokio::time::Instant::now());
            // A thread that waits for its turn between the two would take its wait for a jump.
            if looked - before <= READ_WITHIN {
                return Self { looked, clock };
            }
            before = tokio::time::Instant::now();
        }
    }

    /// By how many seconds the clock was moved since it was looked at last, if it was.
    fn jumped(&mut self, clock: &Clock) -> Option<i64> {
        let before = std::mem::replace(self, Self::look(clock));
        let passed = i64::try_from((self.looked - before.looked).as_millis()).unwrap_or(i64::MAX);
        let moved = self.clock.as_millis() - before.clock.as_millis().saturating_add(passed);
        (moved.abs() > JUMP_MILLIS).then_some(moved / 1000)
    }
}

/// What is held now looks as if it were held for too long: whoever holds it, here or elsewhere, says so anew first.
async fn hold_still(inner: &Inner, seconds: i64) {
    tracing::warn!(
        seconds,
        "the clock was moved; nothing new is begun until every lease is renewed"
    );
    inner
        .signals
        .turned
        .send_modify(|count| *count = count.wrapping_add(1));
    tokio::select! {
        () = tokio::time::sleep(inner.parts.settings.heartbeat * 2) => {}
        () = inner.signals.stop.cancelled() => {}
    }
}

fn log_failure(error: &StoreError) {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "failed to claim an operation");
}

async fn claim(inner: &Inner, owner: &str, at_most: usize) -> Result<Vec<OperationRow>, StoreError> {
    let parts = &inner.parts;
    let now = parts.clock.now();
    let mut tx = parts.store.begin().await?;
    let claimer = Claimer {
        owner,
        lease_seconds: parts.settings.lease_seconds,
        steps: known_steps(),
        at_most,
    };
    let claimed = operation_leases::claim(&mut tx, claimer, now).await?;
    tx.commit().await?;
    Ok(claimed)
}

/// Says what is left to a newer server, which may be on its way: people can give it up.
async fn tell_unknown(inner: &Inner) {
    let unknown = async {
        let mut tx = inner.parts.store.begin_read().await?;
        operation_leases::list_unknown(&mut tx, known_steps()).await
    };
    // What cannot be read now is read the next time.
    for operation in unknown.await.unwrap_or_default() {
        tracing::warn!(
            operation = %operation.id,
            kind = operation.kind,
            "left an operation to a server of another version: this one does not know its kind or one of its steps; \
             `systemprompt operation abandon` gives it up"
        );
    }
}

/// Until the next operation is due, and not longer than the poll.
async fn idle_time(inner: &Inner) -> Duration {
    let parts = &inner.parts;
    let next = async {
        let mut tx = parts.store.begin_read().await?;
        operation_leases::next_run_at(&mut tx, known_steps()).await
    };
    let Ok(Some(next)) = next.await else {
        return parts.settings.poll;
    };
    let millis = next.as_millis() - parts.clock.now().as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(1).max(1)).min(parts.settings.poll)
}
