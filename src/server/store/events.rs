//! Table `events`: the numbered lines of a tenant's history. SSE replays this table and nothing else.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::api::event::Event;
use crate::api::id::{OperationId, TenantId};
use crate::api::time::Time;
use crate::server::store::row::{Row, Value};
use crate::server::store::{StoreError, Tx};

/// A line that is to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// A name of the contract's table.
    pub event: Cow<'static, str>,
    /// For people; nothing secret.
    pub message: String,
    /// More, by event; nothing secret.
    pub detail: Json,
}

impl NewEvent {
    /// A line without detail.
    #[must_use]
    pub fn new(event: &'static str, message: impl Into<String>) -> Self {
        Self {
            event: Cow::Borrowed(event),
            message: message.into(),
            detail: Json::Object(serde_json::Map::new()),
        }
    }

    /// The same line with detail.
    #[must_use]
    pub fn with(mut self, detail: Json) -> Self {
        self.detail = detail;
        self
    }
}

/// Writes the tenant's next line: its number is one more than the last, its status the tenant's status now.
///
/// # Errors
/// There is no such tenant, or the database fails.
pub async fn append(
    tx: &mut Tx,
    tenant: &TenantId,
    operation: Option<&OperationId>,
    new: &NewEvent,
    now: Time,
) -> Result<Event, StoreError> {
    let missing = || StoreError::Missing {
        what: "tenant",
        id: tenant.to_string(),
    };
    let written = if tx.is_sqlite() {
        count_and_insert(tx, tenant, operation, (new, now)).await?
    } else {
        // In one round trip; SQLite is in this process and has no such statement.
        tx.fetch_optional(
            "WITH counted AS (
                 UPDATE tenants SET last_event_seq = last_event_seq + 1 WHERE id = $1
                 RETURNING last_event_seq, status)
             INSERT INTO events (tenant_id, seq, operation_id, event, status, message, detail, at)
             SELECT $1, last_event_seq, $2, $3, status, $4, $5, $6 FROM counted
             RETURNING seq, status",
            arguments(tenant, operation, (new, now)),
        )
        .await?
    };
    let written = written.ok_or_else(missing)?;
    Ok(Event {
        seq: written.u64("seq")?,
        tenant_id: tenant.clone(),
        operation_id: operation.cloned(),
        event: new.event.clone().into_owned(),
        status: written.text("status")?,
        message: new.message.clone(),
        at: now,
        detail: new.detail.clone(),
    })
}

fn arguments(
    tenant: &TenantId,
    operation: Option<&OperationId>,
    (new, now): (&NewEvent, Time),
) -> Vec<Value> {
    vec![
        tenant.as_str().into(),
        operation.map(OperationId::as_str).into(),
        new.event.as_ref().into(),
        new.message.as_str().into(),
        new.detail.to_string().into(),
        now.into(),
    ]
}

async fn count_and_insert(
    tx: &mut Tx,
    tenant: &TenantId,
    operation: Option<&OperationId>,
    what: (&NewEvent, Time),
) -> Result<Option<Row>, StoreError> {
    let counted = tx
        .execute(
            "UPDATE tenants SET last_event_seq = last_event_seq + 1 WHERE id = $1",
            vec![tenant.as_str().into()],
        )
        .await?;
    if counted == 0 {
        return Ok(None);
    }
    tx.fetch_optional(
        "INSERT INTO events (tenant_id, seq, operation_id, event, status, message, detail, at)
         SELECT $1, last_event_seq, $2, $3, status, $4, $5, $6 FROM tenants WHERE id = $1
         RETURNING seq, status",
        arguments(tenant, operation, what),
    )
    .await
}

/// Writes the tenant's next lines, in this order.
///
/// # Errors
/// There is no such tenant, or the database fails.
pub async fn append_all(
    tx: &mut Tx,
    tenant: &TenantId,
    operation: Option<&OperationId>,
    new: &[NewEvent],
    now: Time,
) -> Result<(), StoreError> {
    if new.len() < 2 || tx.is_sqlite() {
        for event in new {
            append(tx, tenant, operation, event, now).await?;
        }
        return Ok(());
    }
    let lines = (1_i64..).zip(new).map(|(number, event)| {
        serde_json::json!({
            "number": number,
            "event": event.event,
            "message": event.message,
            "detail": event.detail.to_string(),
        })
    });
    let args = vec![
        tenant.as_str().into(),
        operation.map(OperationId::as_str).into(),
        Json::from_iter(lines).to_string().into(),
        i64::try_from(new.len()).unwrap_or(i64::MAX).into(),
        now.into(),
    ];
    let written = tx
        .execute(
            "WITH counted AS (
                 UPDATE tenants SET last_event_seq = last_event_seq + $4 WHERE id = $1
                 RETURNING last_event_seq - $4 AS seq, status)
             INSERT INTO events (tenant_id, seq, operation_id, event, status, message, detail, at)
             SELECT $1, counted.seq + new.number, $2, new.event, counted.status, new.message, new.detail, $5
             FROM counted, json_to_recordset($3::json)
                 AS new (number bigint, event text, message text, detail text)",
            args,
        )
        .await?;
    if written == new.len() as u64 {
        return Ok(());
    }
    Err(StoreError::Missing {
        what: "tenant",
        id: tenant.to_string(),
    })
}

/// The lines after number `since`, in order.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_after(
    tx: &mut Tx,
    tenant: &TenantId,
    since: u64,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM events WHERE tenant_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        vec![
            tenant.as_str().into(),
            i64::try_from(since).unwrap_or(i64::MAX).into(),
            limit.into(),
        ],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

fn read(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        seq: row.u64("seq")?,
        tenant_id: row.parse("tenant_id")?,
        operation_id: row.opt_parse("operation_id")?,
        event: row.text("event")?,
        status: row.text("status")?,
        message: row.text("message")?,
        at: row.time("at")?,
        detail: row.json("detail")?,
    })
}
