//! Follows one machine: what it prints goes to the store in batches, once and in order.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::api::time::Time;
use crate::server::edge::EdgeError;
use crate::server::providers::{LogLine, LogQuery, ProviderError};
use crate::server::provision::context::Parts;
use crate::server::provision::observe::keep::{self, Asked, Batch, Kept, Origin};
use crate::server::provision::observe::position::{Entry, Position, Resume};
use crate::server::store::StoreError;
use crate::server::store::log_lines::KeptLine;

/// For how long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// A batch is not larger.
const BATCH_BYTES: usize = 256 * 1024;
/// A line is cut here.
const LINE_BYTES: usize = 256 * 1024;
/// What is kept already comes at once; if nothing comes for so long it is another stream.
const SILENCE: Duration = Duration::from_secs(2);

/// Why a machine is not followed any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// The provider has no lines.
    #[error("failed to read what a machine prints")]
    Provider(#[from] ProviderError),
    /// The edge does not tell.
    #[error("failed to read what the edge says")]
    Edge(#[from] EdgeError),
    /// The store failed.
    #[error("failed to keep what a machine prints")]
    Store(#[from] StoreError),
    /// The writer has failed or is gone.
    #[error("failed to keep what a machine prints: the store did not take it")]
    NotKept,
}

/// How a batch is written: by the writer that many share, or at once.
pub(super) enum Writer<'a> {
    Shared(&'a mpsc::Sender<Asked>),
    Own,
}

/// Keeps what the machine has printed and prints, until its stream ends.
pub(super) async fn follow(
    parts: &Parts,
    origin: &Origin,
    writer: &Writer<'_>,
    follow: bool,
) -> Result<(), TailError> {
    loop {
        let left = keep::left_off(parts, &origin.machine_id).await?;
        let query = LogQuery {
            follow,
            since_seconds: left.position.since(),
            tail: None,
        };
        let mut stream = parts.provider.logs(&origin.machine_id, &query).await?;
        let mut gathering = Gathering::new(origin, left.position, left.revision);
        loop {
            let next = tokio::time::timeout_at(gathering.due(), stream.next()).await;
            let has_ended = matches!(next, Ok(None));
            match next {
                Ok(Some(line)) => gathering.take(line?),
                Ok(None) | Err(_) => gathering.settle(),
            }
            if (has_ended || gathering.is_due())
                && let Some(batch) = gathering.batch()
                && write(parts, writer, batch).await? == Kept::Overtaken
            {
                break;
            }
            if has_ended {
                return Ok(());
            }
        }
    }
}

async fn write(parts: &Parts, writer: &Writer<'_>, batch: Batch) -> Result<Kept, TailError> {
    match writer {
        Writer::Own => Ok(keep::keep(parts, &batch).await?),
        Writer::Shared(queue) => {
            let (asked, answer) = oneshot::channel();
            queue.send((batch, asked)).await.map_err(|_| TailError::NotKept)?;
            answer.await.map_err(|_| TailError::NotKept)
        }
    }
}

/// Lines that are not written yet.
struct Gathering<'a> {
    origin: &'a Origin,
    resume: Resume<LogLine>,
    position: Position,
    revision: i64,
    lines: Vec<KeptLine>,
    /// The last line of `stdout` and of `stderr`, while more of it may come.
    open: [Option<usize>; 2],
    has_new: bool,
    bytes: usize,
    since: Instant,
}

impl<'a> Gathering<'a> {
    fn new(origin: &'a Origin, position: Position, revision: i64) -> Self {
        Self {
            origin,
            resume: Resume::new(&position),
            position,
            revision,
            lines: Vec::new(),
            open: [None; 2],
            has_new: false,
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// When it is looked at again without a line.
    fn due(&self) -> Instant {
        if self.has_new {
            self.since + GATHER
        } else {
            Instant::now() + SILENCE
        }
    }

    fn is_due(&self) -> bool {
        self.has_new && (self.bytes >= BATCH_BYTES || self.since.elapsed() >= GATHER)
    }

    fn take(&mut self, line: LogLine) {
        let entry = Entry::of_line(line, self.position.latest());
        for new in self.resume.take(entry) {
            self.add(new);
        }
    }

    /// Nothing comes any more, or not soon.
    fn settle(&mut self) {
        if self.resume.is_waiting() {
            for new in self.resume.give_up() {
                self.add(new);
            }
        }
    }

    fn add(&mut self, entry: Entry<LogLine>) {
        if !self.has_new {
            (self.has_new, self.since) = (true, Instant::now());
        }
        self.position.advance(&entry);
        self.bytes += entry.what.line.len() + 64;
        let is_error = entry.what.stream == "stderr";
        let open = &mut self.open[usize::from(is_error)];
        let before = open.and_then(|place| self.lines.get_mut(place));
        match before.filter(|line| line.text.len() < LINE_BYTES) {
            Some(line) => line.text.push_str(&entry.what.line),
            None => {
                *open = Some(self.lines.len());
                self.lines.push(KeptLine {
                    at: Time::from_millis(entry.nanos.div_euclid(1_000_000)),
                    is_error,
                    release: self.origin.release,
                    text: entry.what.line,
                });
            }
        }
        if entry.what.is_whole {
            *open = None;
        }
    }

    /// What is to be written now. A line that has not ended is cut here: its rest may never come.
    fn batch(&mut self) -> Option<Batch> {
        if !std::mem::take(&mut self.has_new) {
            return None;
        }
        let revision = self.revision;
        // What is kept once has revision 1; every batch raises it by one.
        self.revision = revision + 1;
        self.open = [None; 2];
        self.bytes = 0;
        Some(Batch {
            origin: self.origin.clone(),
            lines: std::mem::take(&mut self.lines),
            position: self.position.clone(),
            revision,
        })
    }
}
