//! Log lines of a tenant, as they are kept: whoever asks whichever server sees the same.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use crate::api::id::TenantId;
use crate::api::log::{LogLine, LogQuery, LogSource};
use crate::api::tenant::TenantStatus;
use crate::api::time::Time;
use crate::server::provision::Provision;
use crate::server::store::log_chunks::{self, Chunk};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Store, StoreError, Tx, releases, tenants};

const DEFAULT_TAIL: u32 = 100;
/// Chunks that are in memory at once for one reader.
const PAGE: u32 = 8;
/// The table is looked at this often without a signal: another server may have written.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);

/// Lines as they come.
pub type LogLines = BoxStream<'static, Result<LogLine, LogError>>;

/// Why there are no lines.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing has ever run.
    #[error(
        "failed to read the logs: nothing has run yet\n\
         hint: deploy a release with `systemprompt deploy`, or wait for the first line with `--follow`"
    )]
    NothingRan,
    /// The lines went with the tenant.
    #[error("failed to read the logs: the tenant is deleted, and its lines with it")]
    Deleted,
    /// There is no such line yet.
    #[error("is later than the last line, which is {last}")]
    FromTheFuture {
        /// The number of the last line.
        last: u64,
    },
    /// The store failed.
    #[error("failed to read the lines that are kept")]
    Store(#[from] StoreError),
}

impl Provision {
    /// What the tenant prints, as the query wants it.
    ///
    /// # Errors
    /// Nothing has run, the tenant is deleted, or the store fails.
    pub async fn logs(&self, tenant: &TenantRow, query: &LogQuery) -> Result<LogLines, LogError> {
        if tenant.status == TenantStatus::Deleted {
            return Err(LogError::Deleted);
        }
        // Subscribed before the first look, so that nothing written in between goes unnoticed.
        let changes = self.0.lines.subscribe();
        let mut reading = Reading {
            store: self.0.parts.store.clone(),
            tenant: tenant.id.clone(),
            source: query.source.unwrap_or_default(),
            since: query.since,
            follow: query.follow,
            is_complete: false,
            after: 0,
            read: VecDeque::new(),
            changes,
        };
        reading.begin(query).await?;
        Ok(stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

struct Reading {
    store: Store,
    tenant: TenantId,
    source: LogSource,
    since: Option<Time>,
    follow: bool,
    /// Whether all that is wanted has been read.
    is_complete: bool,
    /// The number of the last line that was read.
    after: u64,
    read: VecDeque<LogLine>,
    changes: watch::Receiver<()>,
}

impl Reading {
    /// Finds where to begin.
    async fn begin(&mut self, query: &LogQuery) -> Result<(), LogError> {
        let mut tx = self.store.begin_read().await?;
        let last = log_chunks::last_seq(&mut tx, &self.tenant, self.source).await?;
        if last == 0
            && !self.follow
            && self.source != LogSource::Edge
            && releases::last_number(&mut tx, &self.tenant).await? == 0
        {
            return Err(LogError::NothingRan);
        }
        if let Some(after) = query.after {
            if after > last {
                return Err(LogError::FromTheFuture { last });
            }
            self.after = after;
            return Ok(());
        }
        let tail = match (query.tail, query.since) {
            (Some(tail), _) => tail,
            (None, None) => DEFAULT_TAIL,
            (None, Some(_)) => return Ok(()),
        };
        self.read_last(&mut tx, tail as usize).await?;
        self.after = last;
        // What comes from now on is not among the last lines that were asked for.
        self.is_complete = !self.follow;
        Ok(())
    }

    /// Reads backwards until there are `wanted` lines.
    async fn read_last(&mut self, tx: &mut Tx, wanted: usize) -> Result<(), LogError> {
        let mut before = u64::MAX;
        while self.read.len() < wanted {
            let chunks = log_chunks::list_before(tx, (&self.tenant, self.source), before, PAGE).await?;
            let Some(first) = chunks.last() else { break };
            before = first.first_seq;
            let mut is_older = false;
            for chunk in chunks {
                let lines: Vec<LogLine> = self.shown(chunk).collect();
                is_older |= lines.is_empty();
                for line in lines.into_iter().rev() {
                    if self.read.len() < wanted {
                        self.read.push_front(line);
                    }
                }
            }
            if is_older {
                break;
            }
        }
        Ok(())
    }

    /// The next line; `None` at the end of what there is, or with `follow` when the tenant is deleted.
    async fn next(&mut self) -> Result<Option<LogLine>, LogError> {
        loop {
            if let Some(line) = self.read.pop_front() {
                self.after = self.after.max(line.seq);
                return Ok(Some(line));
            }
            if self.is_complete {
                return Ok(None);
            }
            if self.look().await? {
                continue;
            }
            if !self.follow || self.is_deleted().await? {
                return Ok(None);
            }
            if let Ok(Err(_)) = tokio::time::timeout(LOOK_ANYWAY, self.changes.changed()).await {
                tokio::time::sleep(LOOK_ANYWAY).await;
            }
        }
    }

    /// Reads what is new; `false` when nothing is.
    async fn look(&mut self) -> Result<bool, LogError> {
        let mut tx = self.store.begin_read().await?;
        let key = (&self.tenant, self.source);
        let chunks = log_chunks::list_after(&mut tx, key, (self.after, self.since), PAGE).await?;
        let Some(last) = chunks.last().map(|chunk| chunk.last_seq) else {
            return Ok(false);
        };
        for chunk in chunks {
            let after = self.after;
            let lines: Vec<LogLine> = self.shown(chunk).filter(|line| line.seq > after).collect();
            self.read.extend(lines);
        }
        if self.read.is_empty() {
            self.after = last;
        }
        Ok(true)
    }

    async fn is_deleted(&self) -> Result<bool, LogError> {
        let mut tx = self.store.begin_read().await?;
        let tenant = tenants::find(&mut tx, &self.tenant).await?;
        Ok(tenant.is_none_or(|tenant| tenant.status == TenantStatus::Deleted))
    }

    fn shown(&self, chunk: Chunk) -> impl Iterator<Item = LogLine> + use<> {
        let (source, since) = (self.source, self.since);
        chunk
            .lines
            .into_iter()
            .zip(chunk.first_seq..)
            .filter(move |(line, _)| since.is_none_or(|since| line.at > since))
            .map(move |(line, seq)| LogLine {
                seq,
                at: line.at,
                source,
                release: (line.release > 0).then_some(line.release),
                stream: if line.is_error { "stderr" } else { "stdout" }.to_owned(),
                line: line.text,
            })
    }
}
