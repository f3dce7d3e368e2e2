//! What is particular to SQLite: commits that share one flush to the disk, and what its failures mean.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{Error, Sqlite, SqlitePool, Transaction};

use crate::server::store::{StoreError, postgres};

/// A transaction, and the flush that makes it last.
pub struct SqliteTx {
    pub(super) tx: Transaction<'static, Sqlite>,
    pub(super) group: Arc<Group>,
}

/// Group commit: SQLite writes a commit into the write-ahead log and lets the next one begin at once
/// (`synchronous=NORMAL`); the log is then flushed once for all commits that wait for it. Nobody hears of a commit, or
/// reads what it wrote, before that flush: the promise is the one of `synchronous=FULL`.
#[derive(Debug)]
pub struct Group {
    log: PathBuf,
    /// Commits that were begun, and those that are written.
    begun: AtomicU64,
    written: AtomicU64,
    /// So many commits were begun when all of them were known to last.
    clean: AtomicU64,
    /// Whoever waits for a flush draws a number after what it waits for is written; a flush serves all numbers drawn
    /// before it.
    drawn: AtomicU64,
    served: AtomicU64,
    /// One flush at a time; whoever waits for its turn most often finds that the last one has served it too.
    turn: tokio::sync::Mutex<()>,
}

impl Group {
    /// Of the database at `path`.
    pub(super) fn new(path: &Path) -> Arc<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Arc::new(Self {
            log: PathBuf::from(log),
            begun: AtomicU64::new(0),
            written: AtomicU64::new(0),
            clean: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
            served: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Makes a transaction last.
    pub(super) async fn commit(&self, tx: Transaction<'static, Sqlite>) -> Result<(), Error> {
        let counted = Counted::begin(self);
        tx.commit().await?;
        drop(counted);
        self.flush().await
    }

    /// Waits until everything lasts that can be read now.
    pub(super) async fn settled(&self) -> Result<(), Error> {
        if self.begun.load(Ordering::SeqCst) == self.clean.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&self) -> Result<(), Error> {
        let mine = self.drawn.fetch_add(1, Ordering::SeqCst) + 1;
        let _turn = self.turn.lock().await;
        if self.served.load(Ordering::SeqCst) >= mine {
            return Ok(());
        }
        let all = self.drawn.load(Ordering::SeqCst);
        let (written, begun) = (
            self.written.load(Ordering::SeqCst),
            self.begun.load(Ordering::SeqCst),
        );
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || flush(&log))
            .await
            .map_err(|error| Error::Io(io::Error::other(error)))?
            .map_err(Error::Io)?;
        self.served.fetch_max(all, Ordering::SeqCst);
        if written == begun {
            self.clean.fetch_max(begun, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Begins a transaction that may write, on the one connection that does.
///
/// IMMEDIATE: a read that turns into a write later would otherwise fail at once, without waiting.
pub(super) async fn begin_writing(writer: &SqlitePool) -> Result<Transaction<'static, Sqlite>, Error> {
    match writer.begin_with("BEGIN IMMEDIATE").await {
        // A statement that found no space on the disk has made SQLite end the transaction, which the connection still
        // counts: it would refuse every other one.
        Err(Error::BeginFailed | Error::InvalidSavePointStatement) => {
            let _ = writer.acquire().await?.close().await;
            writer.begin_with("BEGIN IMMEDIATE").await
        }
        begun => begun,
    }
}

/// A commit that is under way; counted as written however it ends, a dropped call included.
struct Counted<'a>(&'a Group);

impl<'a> Counted<'a> {
    fn begin(group: &'a Group) -> Self {
        group.begun.fetch_add(1, Ordering::SeqCst);
        Self(group)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.written.fetch_add(1, Ordering::SeqCst);
    }
}

/// Opened anew every time: SQLite may have begun another file. When there is none, all of it is in the database, which
/// SQLite flushes before it removes the log.
fn flush(log: &Path) -> io::Result<()> {
    match std::fs::File::open(log) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl StoreError {
    /// Whether the database, or the way to it, is away for now: the same may work in a moment.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Open(error) | Self::Statement(error) => {
                postgres::is_away(error) || trouble(error).is_some()
            }
            _ => false,
        }
    }

    /// What hinders the database, in words that follow "the database".
    #[must_use]
    pub fn trouble(&self) -> Option<&'static str> {
        match self {
            Self::Open(error) | Self::Statement(error) => trouble(error),
            _ => None,
        }
    }
}

/// What hinders the database from taking writes, where that may pass.
fn trouble(error: &Error) -> Option<&'static str> {
    let code = match error {
        Error::PoolTimedOut => return Some("is busy: nobody got a turn in time"),
        // The log could not be flushed.
        Error::Io(_) => return Some("cannot be written: its disk fails"),
        Error::Database(error) => error.code()?.parse::<u32>().ok()?,
        _ => return None,
    };
    // The low byte is the kind, the rest says more.
    match code & 0xff {
        5 | 6 => Some("is locked by another program"),
        8 => Some("is read-only"),
        10 => Some("cannot be read or written: its disk fails"),
        13 => Some("has no space left on its disk"),
        14 => Some("cannot be opened"),
        _ => None,
    }
}
