//! Follows the edge's access log: a line for each request goes to its tenant's logs and into its metrics, once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use crate::api::id::TenantId;
use crate::api::log::LogSource;
use crate::api::time::Time;
use crate::server::edge::{Access, AccessQuery};
use crate::server::provision::context::Parts;
use crate::server::provision::observe::keep::{self, Kept};
use crate::server::provision::observe::points::Counts;
use crate::server::provision::observe::position::{Entry, Position, Resume};
use crate::server::provision::observe::tail::TailError;
use crate::server::store::log_lines::KeptLine;
use crate::server::store::log_positions::{self, PositionRow};
use crate::server::store::metric_blocks::{self, COARSE, FINE};
use crate::server::store::{StoreError, Tx, log_chunks, tenants};

/// The name under which the edge's position is kept; no machine is named so.
pub(super) const EDGE: &str = "edge";
/// For how long requests are gathered before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// So many requests are written at once at most.
const BATCH: usize = 5000;
/// What is kept already comes at once; if nothing comes for so long it is another stream.
const SILENCE: Duration = Duration::from_secs(2);
/// An edge that cannot be read, or whose log has ended, is asked again after this.
const PAUSE: Duration = Duration::from_secs(2);
/// A longer path is cut.
const PATH_CHARS: usize = 200;

/// Keeps what the edge says, for ever.
pub(super) async fn follow_for_ever(parts: Parts, lines: tokio::sync::watch::Sender<()>) {
    loop {
        if let Err(error) = follow(&parts, &lines).await {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "stopped following the edge's access log");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(parts: &Parts, lines: &tokio::sync::watch::Sender<()>) -> Result<(), TailError> {
    let left = keep::left_off(parts, EDGE).await?;
    let query = AccessQuery {
        follow: true,
        // Whatever is in that second or later.
        since: left
            .position
            .since()
            .map(|second| Time::from_millis(second * 1000 - 1)),
    };
    let mut stream = parts.edge.access(query).await?;
    let mut gathering = Gathering {
        resume: Resume::new(&left.position),
        position: left.position,
        revision: left.revision,
        requests: Vec::new(),
        since: Instant::now(),
    };
    loop {
        let next = tokio::time::timeout_at(gathering.due(), stream.next()).await;
        let has_ended = matches!(next, Ok(None));
        match next {
            Ok(Some(access)) => gathering.take(access?),
            Ok(None) | Err(_) => gathering.settle(),
        }
        if has_ended || gathering.is_due() {
            if gathering.write(parts).await? == Kept::Overtaken {
                return Ok(());
            }
            lines.send_replace(());
        }
        if has_ended {
            return Ok(());
        }
    }
}

/// Requests that are not written yet.
struct Gathering {
    resume: Resume<Access>,
    position: Position,
    revision: i64,
    requests: Vec<Access>,
    since: Instant,
}

impl Gathering {
    /// When it is looked at again without a request.
    fn due(&self) -> Instant {
        if self.requests.is_empty() {
            Instant::now() + SILENCE
        } else {
            self.since + GATHER
        }
    }

    fn is_due(&self) -> bool {
        !self.requests.is_empty() && (self.requests.len() >= BATCH || self.since.elapsed() >= GATHER)
    }

    fn take(&mut self, access: Access) {
        let entry = Entry::of(access.at.as_millis() * 1_000_000, &identity(&access), access);
        for new in self.resume.take(entry) {
            self.add(new);
        }
    }

    fn settle(&mut self) {
        for new in self.resume.give_up() {
            self.add(new);
        }
    }

    fn add(&mut self, entry: Entry<Access>) {
        if self.requests.is_empty() {
            self.since = Instant::now();
        }
        self.position.advance(&entry);
        self.requests.push(entry.what);
    }

    async fn write(&mut self, parts: &Parts) -> Result<Kept, StoreError> {
        if self.requests.is_empty() {
            return Ok(Kept::Yes);
        }
        let now = parts.clock.now();
        let row = PositionRow {
            position: serde_json::to_string(&self.position).unwrap_or_default(),
            revision: self.revision,
        };
        let mut tx = parts.store.begin().await?;
        if !log_positions::advance(&mut tx, (EDGE, None), &row, now).await? {
            return Ok(Kept::Overtaken);
        }
        let mut by_label: BTreeMap<&str, Vec<&Access>> = BTreeMap::new();
        for request in &self.requests {
            by_label.entry(&request.label).or_default().push(request);
        }
        for (label, requests) in by_label {
            // Requests to a name that nobody has any more are nobody's.
            if let Some(tenant) = tenants::find_by_live_label(&mut tx, label).await? {
                keep_requests(&mut tx, &tenant, &requests, now).await?;
            }
        }
        tx.commit().await?;
        self.requests.clear();
        self.revision += 1;
        Ok(Kept::Yes)
    }
}

async fn keep_requests(
    tx: &mut Tx,
    tenant: &TenantId,
    requests: &[&Access],
    now: Time,
) -> Result<(), StoreError> {
    let lines: Vec<KeptLine> = requests.iter().map(|request| line(request)).collect();
    log_chunks::append(tx, (tenant, LogSource::Edge), &lines, now).await?;
    let mut fine: BTreeMap<(Time, u32), Counts> = BTreeMap::new();
    for request in requests {
        let counts = fine.entry(FINE.place(request.at)).or_default();
        counts.add(request.status, request.duration_ms);
    }
    for ((starts_at, place), counts) in fine {
        // What comes very late, after an hour without a server, finds no fine block any more.
        let is_late = starts_at.plus_seconds(FINE.kept_seconds) < now;
        let is_rolled =
            is_late || metric_blocks::append(tx, tenant, (&FINE, starts_at), &counts.entry(place)).await?;
        if is_rolled {
            let (day, place) = COARSE.place(starts_at);
            metric_blocks::append(tx, tenant, (&COARSE, day), &counts.entry(place)).await?;
        }
    }
    Ok(())
}

/// A request as its line of the log: nothing of its query or its headers.
fn line(request: &Access) -> KeptLine {
    let path = request.path.split('?').next().unwrap_or_default();
    let mut path: String = path.chars().filter(|c| !c.is_control()).collect();
    if let Some((cut, _)) = path.char_indices().nth(PATH_CHARS) {
        path.truncate(cut);
        path.push('…');
    }
    let Access {
        method,
        status,
        duration_ms,
        bytes,
        ..
    } = request;
    let status = if *status == 0 {
        "gone".to_owned()
    } else {
        status.to_string()
    };
    KeptLine {
        at: request.at,
        is_error: request.status >= 500,
        release: 0,
        text: format!("{method} {path} {status} {duration_ms} ms {bytes} B"),
    }
}

/// What tells one request from another of the same millisecond, as far as anything does.
fn identity(request: &Access) -> String {
    let Access {
        label,
        method,
        path,
        status,
        duration_ms,
        bytes,
        ..
    } = request;
    format!("{label} {method} {path} {status} {duration_ms} {bytes}")
}
