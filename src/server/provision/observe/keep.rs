//! Keeps lines: many machines' batches in one transaction, each with the position that it leads to.

use tokio::sync::{mpsc, oneshot, watch};

use crate::api::id::TenantId;
use crate::api::log::LogSource;
use crate::api::time::Time;
use crate::server::providers::Printer;
use crate::server::provision::context::Parts;
use crate::server::provision::observe::position::Position;
use crate::server::store::log_lines::KeptLine;
use crate::server::store::log_positions::{self, PositionRow};
use crate::server::store::{StoreError, Tx, log_chunks};

/// So many batches share a transaction at most.
const TOGETHER: usize = 256;

/// Who prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server::provision) struct Origin {
    /// The machine.
    pub(in crate::server::provision) machine_id: String,
    /// Whose.
    pub(in crate::server::provision) tenant: TenantId,
    /// What it runs.
    pub(in crate::server::provision) release: u32,
    /// Where its lines go.
    pub(in crate::server::provision) source: LogSource,
}

impl From<Printer> for Origin {
    fn from(printer: Printer) -> Self {
        Self {
            machine_id: printer.machine_id,
            tenant: printer.tenant_id,
            release: printer.release,
            source: if printer.is_command {
                LogSource::Release
            } else {
                LogSource::App
            },
        }
    }
}

/// Lines of one machine that follow what is kept of it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) origin: Origin,
    pub(super) lines: Vec<KeptLine>,
    /// Where they lead to.
    pub(super) position: Position,
    /// The revision of the position from which they follow.
    pub(super) revision: i64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is on disk.
    Yes,
    /// Somebody else has kept these lines: read the position again.
    Overtaken,
}

/// A batch and where its answer goes; no answer means that the store failed.
pub(super) type Asked = (Batch, oneshot::Sender<Kept>);

/// Where a machine's output was left off.
pub(super) async fn left_off(parts: &Parts, machine: &str) -> Result<PositionRow<Position>, StoreError> {
    let mut tx = parts.store.begin_read().await?;
    let found = log_positions::find(&mut tx, machine).await?;
    Ok(found.unwrap_or_else(|| PositionRow {
        position: Position::default(),
        revision: 0,
    }))
}

/// Keeps one batch.
pub(super) async fn keep(parts: &Parts, batch: &Batch) -> Result<Kept, StoreError> {
    let mut tx = parts.store.begin().await?;
    let kept = keep_in(&mut tx, batch, parts.clock.now()).await?;
    tx.commit().await?;
    Ok(kept)
}

/// Keeps batches as they come, until nobody sends any.
pub(super) async fn keep_for_ever(
    parts: Parts,
    lines: watch::Sender<()>,
    mut batches: mpsc::Receiver<Asked>,
) {
    let mut together = Vec::new();
    while batches.recv_many(&mut together, TOGETHER).await > 0 {
        match keep_all(&parts, &together).await {
            Ok(all) => {
                lines.send_replace(());
                for ((batch, asked), kept) in together.drain(..).zip(all) {
                    tracing::trace!(machine = batch.origin.machine_id, ?kept, "lines");
                    let _ = asked.send(kept);
                }
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "failed to keep log lines; they are read again");
                together.clear();
            }
        }
    }
}

async fn keep_all(parts: &Parts, batches: &[Asked]) -> Result<Vec<Kept>, StoreError> {
    let now = parts.clock.now();
    let mut tx = parts.store.begin().await?;
    let mut all = Vec::with_capacity(batches.len());
    for (batch, _) in batches {
        all.push(keep_in(&mut tx, batch, now).await?);
    }
    tx.commit().await?;
    Ok(all)
}

async fn keep_in(tx: &mut Tx, batch: &Batch, now: Time) -> Result<Kept, StoreError> {
    let origin = &batch.origin;
    let row = PositionRow {
        position: serde_json::to_string(&batch.position).unwrap_or_default(),
        revision: batch.revision,
    };
    let key = (origin.machine_id.as_str(), Some(&origin.tenant));
    if !log_positions::advance(tx, key, &row, now).await? {
        return Ok(Kept::Overtaken);
    }
    log_chunks::append(tx, (&origin.tenant, origin.source), &batch.lines, now).await?;
    Ok(Kept::Yes)
}
