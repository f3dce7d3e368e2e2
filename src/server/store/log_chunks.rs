//! Tables `log_chunks` and `log_streams`: what tenants print, numbered per source, bounded in age and size.
//!
//! A chunk holds whole lines with numbers that follow each other. Small chunks are packed into one when there are
//! many, so that a tenant that prints little has few rows, and one that prints much has small ones.

use crate::api::id::TenantId;
use crate::api::log::LogSource;
use crate::api::time::Time;
use crate::server::store::log_lines::{self, KeptLine};
use crate::server::store::row::{Row, word_of};
use crate::server::store::{StoreError, Tx};

/// For how long lines are kept.
pub const KEPT_SECONDS: i64 = 7 * 24 * 3600;

/// How many bytes of a source are kept: 50 MB a tenant.
#[must_use]
pub const fn kept_bytes(source: LogSource) -> i64 {
    match source {
        LogSource::App => 30_000_000,
        LogSource::Edge => 15_000_000,
        LogSource::Release => 5_000_000,
    }
}

/// So many loose chunks, or bytes in them, are packed into one.
const LOOSE_CHUNKS: i64 = 64;
const LOOSE_BYTES: i64 = 128 * 1024;
/// A chunk of this size is packed as it comes.
const PACKED_AT: usize = 32 * 1024;

/// Lines whose numbers follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The number of its first line.
    pub first_seq: u64,
    /// The number of its last line.
    pub last_seq: u64,
    /// The lines.
    pub lines: Vec<KeptLine>,
}

/// Adds lines to a source; answers the number of the last. What is too much is forgotten at the other end.
///
/// # Errors
/// The database fails.
pub async fn append(
    tx: &mut Tx,
    (tenant, source): (&TenantId, LogSource),
    lines: &[KeptLine],
    now: Time,
) -> Result<(), StoreError> {
    let Some(last_at) = lines.iter().map(|line| line.at).max() else {
        return Ok(());
    };
    let (key, word) = (tenant.as_str(), word_of(&source));
    let text = log_lines::write(lines);
    let packed = text.len() >= PACKED_AT;
    let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
    let (loose, loose_bytes) = if packed { (0_i64, 0) } else { (1, bytes) };
    let stream = tx
        .fetch_optional(
            "INSERT INTO log_streams (tenant_id, source, last_seq, bytes, loose, loose_bytes)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant_id, source) DO UPDATE SET
                 last_seq = log_streams.last_seq + excluded.last_seq,
                 bytes = log_streams.bytes + excluded.bytes,
                 loose = log_streams.loose + excluded.loose,
                 loose_bytes = log_streams.loose_bytes + excluded.loose_bytes
             RETURNING last_seq, bytes, loose, loose_bytes",
            vec![
                key.into(),
                word.as_str().into(),
                count.into(),
                bytes.into(),
                loose.into(),
                loose_bytes.into(),
            ],
        )
        .await?
        .ok_or_else(|| missing(tenant))?;
    let last_seq = stream.int("last_seq")?;
    let row = NewRow {
        first_seq: last_seq - count + 1,
        last_seq,
        last_at,
        kept_at: now,
        bytes,
        packed,
    };
    insert(tx, (key, &word), &row, &text).await?;
    if stream.int("loose")? >= LOOSE_CHUNKS || stream.int("loose_bytes")? >= LOOSE_BYTES {
        pack(tx, (key, &word)).await?;
    }
    let too_much = stream.int("bytes")? - kept_bytes(source);
    if too_much > 0 {
        trim(tx, (key, &word), too_much).await?;
    }
    Ok(())
}

struct NewRow {
    first_seq: i64,
    last_seq: i64,
    last_at: Time,
    kept_at: Time,
    bytes: i64,
    packed: bool,
}

async fn insert(
    tx: &mut Tx,
    (tenant, source): (&str, &str),
    row: &NewRow,
    text: &str,
) -> Result<(), StoreError> {
    let lines = if row.packed {
        log_lines::pack(text)
    } else {
        text.to_owned()
    };
    tx.execute(
        "INSERT INTO log_chunks (tenant_id, source, last_seq, first_seq, last_at, kept_at, bytes, packed, lines)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        vec![
            tenant.into(),
            source.into(),
            row.last_seq.into(),
            row.first_seq.into(),
            row.last_at.into(),
            row.kept_at.into(),
            row.bytes.into(),
            row.packed.into(),
            lines.into(),
        ],
    )
    .await
    .map(drop)
}

/// Makes one chunk of the loose ones, which are the last of the stream, one after the other.
async fn pack(tx: &mut Tx, (tenant, source): (&str, &str)) -> Result<(), StoreError> {
    let rows = tx
        .fetch_all(
            "SELECT * FROM log_chunks WHERE tenant_id = $1 AND source = $2 AND packed = 0 ORDER BY last_seq",
            vec![tenant.into(), source.into()],
        )
        .await?;
    let mut from = 0;
    // A packed chunk that came between two loose ones parts them.
    while from < rows.len() {
        let mut text = String::new();
        let (mut bytes, mut last_at, mut to) = (0, Time::from_millis(i64::MIN), from);
        while to < rows.len()
            && (to == from || rows[to].int("first_seq")? == rows[to - 1].int("last_seq")? + 1)
        {
            text.push_str(&rows[to].text("lines")?);
            bytes += rows[to].int("bytes")?;
            last_at = last_at.max(rows[to].time("last_at")?);
            to += 1;
        }
        let row = NewRow {
            first_seq: rows[from].int("first_seq")?,
            last_seq: rows[to - 1].int("last_seq")?,
            last_at,
            kept_at: rows[to - 1].time("kept_at")?,
            bytes,
            packed: true,
        };
        tx.execute(
            "DELETE FROM log_chunks WHERE tenant_id = $1 AND source = $2 AND last_seq >= $3 AND last_seq <= $4",
            vec![tenant.into(), source.into(), row.first_seq.into(), row.last_seq.into()],
        )
        .await?;
        insert(tx, (tenant, source), &row, &text).await?;
        from = to;
    }
    tx.execute(
        "UPDATE log_streams SET loose = 0, loose_bytes = 0 WHERE tenant_id = $1 AND source = $2",
        vec![tenant.into(), source.into()],
    )
    .await
    .map(drop)
}

/// Forgets the oldest chunks until `too_much` bytes are gone.
async fn trim(tx: &mut Tx, (tenant, source): (&str, &str), too_much: i64) -> Result<(), StoreError> {
    let rows = tx
        .fetch_all(
            "SELECT last_seq, bytes FROM log_chunks WHERE tenant_id = $1 AND source = $2 ORDER BY last_seq LIMIT 100",
            vec![tenant.into(), source.into()],
        )
        .await?;
    let (mut gone, mut up_to) = (0, 0);
    for row in &rows {
        if gone >= too_much {
            break;
        }
        gone += row.int("bytes")?;
        up_to = row.int("last_seq")?;
    }
    tx.execute(
        "DELETE FROM log_chunks WHERE tenant_id = $1 AND source = $2 AND last_seq <= $3",
        vec![tenant.into(), source.into(), up_to.into()],
    )
    .await?;
    tx.execute(
        "UPDATE log_streams SET bytes = bytes - $3 WHERE tenant_id = $1 AND source = $2",
        vec![tenant.into(), source.into(), gone.into()],
    )
    .await
    .map(drop)
}

/// Forgets what came here before `cutoff`.
///
/// # Errors
/// The database fails.
pub async fn delete_before(tx: &mut Tx, cutoff: Time) -> Result<u64, StoreError> {
    tx.execute(
        "UPDATE log_streams SET bytes = bytes - (
             SELECT COALESCE(SUM(chunk.bytes), 0) FROM log_chunks AS chunk
             WHERE chunk.tenant_id = log_streams.tenant_id AND chunk.source = log_streams.source
                 AND chunk.kept_at < $1)
         WHERE EXISTS (SELECT 1 FROM log_chunks AS old
             WHERE old.tenant_id = log_streams.tenant_id AND old.source = log_streams.source AND old.kept_at < $1)",
        vec![cutoff.into()],
    )
    .await?;
    tx.execute("DELETE FROM log_chunks WHERE kept_at < $1", vec![cutoff.into()])
        .await
}

/// Forgets everything of a tenant.
///
/// # Errors
/// The database fails.
pub async fn remove_all(tx: &mut Tx, tenant: &TenantId) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM log_chunks WHERE tenant_id = $1",
        "DELETE FROM log_streams WHERE tenant_id = $1",
    ] {
        tx.execute(sql, vec![tenant.as_str().into()]).await?;
    }
    Ok(())
}

/// The number of a source's last line; 0 before the first.
///
/// # Errors
/// The database fails.
pub async fn last_seq(tx: &mut Tx, tenant: &TenantId, source: LogSource) -> Result<u64, StoreError> {
    tx.fetch_optional(
        "SELECT last_seq FROM log_streams WHERE tenant_id = $1 AND source = $2",
        vec![tenant.as_str().into(), word_of(&source).into()],
    )
    .await?
    .map_or(Ok(0), |row| row.u64("last_seq"))
}

/// Chunks with lines after number `after` that were printed after `since`, in order.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_after(
    tx: &mut Tx,
    (tenant, source): (&TenantId, LogSource),
    (after, since): (u64, Option<Time>),
    limit: u32,
) -> Result<Vec<Chunk>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM log_chunks WHERE tenant_id = $1 AND source = $2 AND last_seq > $3 AND last_at > $4
         ORDER BY last_seq LIMIT $5",
        vec![
            tenant.as_str().into(),
            word_of(&source).into(),
            seq(after).into(),
            since.map_or(i64::MIN, Time::as_millis).into(),
            limit.into(),
        ],
    )
    .await?
    .iter()
    .map(chunk)
    .collect()
}

/// Chunks with lines before number `before`, the last first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_before(
    tx: &mut Tx,
    (tenant, source): (&TenantId, LogSource),
    before: u64,
    limit: u32,
) -> Result<Vec<Chunk>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM log_chunks WHERE tenant_id = $1 AND source = $2 AND last_seq < $3
         ORDER BY last_seq DESC LIMIT $4",
        vec![
            tenant.as_str().into(),
            word_of(&source).into(),
            seq(before).into(),
            limit.into(),
        ],
    )
    .await?
    .iter()
    .map(chunk)
    .collect()
}

fn seq(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn missing(tenant: &TenantId) -> StoreError {
    StoreError::Missing {
        what: "log stream",
        id: tenant.to_string(),
    }
}

fn chunk(row: &Row) -> Result<Chunk, StoreError> {
    let text = row.text("lines")?;
    let bad = || StoreError::BadRow {
        column: "lines",
        value: String::new(),
        source: "it holds no lines".into(),
    };
    let text = if row.flag("packed")? {
        log_lines::unpack(&text).ok_or_else(bad)?
    } else {
        text
    };
    Ok(Chunk {
        first_seq: row.u64("first_seq")?,
        last_seq: row.u64("last_seq")?,
        lines: log_lines::read(&text).ok_or_else(bad)?,
    })
}
