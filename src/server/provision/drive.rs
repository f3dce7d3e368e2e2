//! One operation in the hands of one worker, from its claim until it ends, waits, or is somebody else's.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::server::failpoint;
use crate::server::provision::Inner;
use crate::server::provision::context::Case;
use crate::server::provision::course::{Course, Rest};
use crate::server::provision::saga::Ending;
use crate::server::provision::standstill::give_up;
use crate::server::provision::told::{log_unrecorded, tell};
use crate::server::store::StoreError;
use crate::server::store::operations::OperationRow;

/// A place in a worker's course at which a test may hold or end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The operation is claimed.
    Claimed,
    /// A step is written down as begun; nothing was done yet.
    Begun,
    /// A step was done; it is not written down yet.
    Acted,
    /// A step is written down as done, or as failed.
    Recorded,
    /// The operation is written down as ended.
    Concluded,
}

/// How often in a row a worker tries to write down what was done.
const RECORD_ATTEMPTS: u32 = 5;

/// The worker's signals: `stop` asks waiting steps to give up, `abort` drops whatever runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Signals {
    pub(super) stop: CancellationToken,
    pub(super) abort: CancellationToken,
    /// Counts decisions of people: whoever works on an operation looks whether it is about that one.
    pub(super) turned: watch::Sender<u64>,
}

/// Works on a claimed operation until it ends, waits, or is somebody else's.
pub(super) async fn drive(inner: &Arc<Inner>, claimed: &OperationRow) {
    // What calls hold each other by value, each of their frames holds: here and below the chain is cut, since the stack
    // of a worker's thread ends before the longest of them does.
    failpoint::within(|| claimed.kind.clone(), Box::pin(go_on(inner, claimed))).await;
}

async fn go_on(inner: &Arc<Inner>, claimed: &OperationRow) {
    inner.checkpoint(Checkpoint::Claimed).await;
    let mut failures = 0;
    loop {
        let mut course = Course::of(inner, claimed);
        let rest = Box::pin(course.run()).await;
        if course.has_recorded() {
            failures = 0;
        }
        match rest {
            Ok(Rest::Ended(case, ending)) => return ended(inner, &case, ending).await,
            Ok(Rest::LetGo) => return,
            Err(StoreError::Fenced { id }) => {
                tracing::info!(operation = %id, "left to another worker");
                return;
            }
            Err(error) => {
                log_unrecorded(claimed, &error);
                failures += 1;
                if failures == RECORD_ATTEMPTS {
                    return give_up(inner, claimed, &error).await;
                }
                tokio::select! {
                    () = tokio::time::sleep(inner.parts.settings.poll) => {}
                    () = inner.signals.stop.cancelled() => return,
                }
            }
        }
    }
}

async fn ended(inner: &Inner, case: &Case, ending: Ending) {
    tell(case, ending, inner.parts.clock.now());
    inner.announce_work(case);
    inner.checkpoint(Checkpoint::Concluded).await;
}
