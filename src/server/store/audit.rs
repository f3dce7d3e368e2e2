//! Tables `audit` and `audit_head`: every act in a chain of hashes, and the end of that chain.
//!
//! Writers take the row of `audit_head` before they add to the chain and keep it until they commit, so several
//! servers write one chain. Triggers refuse every change; who gets past them is found by [`verify`].

use crate::api::audit::{AuditEntry, AuditFault, AuditResult, AuditVerdict};
use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::acts::Act;
use crate::server::store::row::{Row, Value};
use crate::server::store::{Store, StoreError, Tx};

/// How many rows are verified in one go.
pub const STRETCH: u32 = 20_000;
/// After this many faults nothing more is told.
const MAX_FAULTS: usize = 20;

/// Adds an act to the chain. The last statement of a transaction: every other writer waits for its end.
pub(super) async fn append(tx: &mut Tx, act: &Act) -> Result<(), StoreError> {
    let head = tx
        .fetch_optional(
            "UPDATE audit_head SET seq = seq WHERE id = 1 RETURNING seq, hash",
            vec![],
        )
        .await?
        .ok_or(StoreError::Missing {
            what: "end of the audit",
            id: "1".to_owned(),
        })?;
    let mut entry = AuditEntry {
        seq: head.u64("seq")? + 1,
        at: act.at,
        actor: act.actor.clone(),
        credential_id: act.credential_id.clone(),
        account_id: act.account_id.clone(),
        email: None,
        role: act.role.clone(),
        action: act.action.clone(),
        tenant_id: act.tenant_id.clone(),
        target: act.target.clone(),
        address: act.address.clone(),
        result: act.result,
        code: act.code.clone(),
        request_id: act.request_id.clone(),
        previous_hash: head.text("hash")?,
        hash: String::new(),
    };
    entry.hash = entry.chained();
    tx.execute(
        "INSERT INTO audit (seq, at, actor, credential_id, account_id, role, action, tenant_id, target, address,
             result, code, request_id, previous_hash, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        columns(&entry),
    )
    .await?;
    tx.execute(
        "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1",
        vec![(entry.seq as i64).into(), entry.hash.into()],
    )
    .await?;
    Ok(())
}

fn columns(entry: &AuditEntry) -> Vec<Value> {
    vec![
        (entry.seq as i64).into(),
        entry.at.into(),
        entry.actor.as_str().into(),
        entry.credential_id.clone().into(),
        entry.account_id.as_ref().map(|id| id.as_str()).into(),
        entry.role.clone().into(),
        entry.action.as_str().into(),
        entry.tenant_id.as_ref().map(TenantId::as_str).into(),
        entry.target.clone().into(),
        entry.address.clone().into(),
        entry.result.as_str().into(),
        entry.code.clone().into(),
        entry.request_id.as_str().into(),
        entry.previous_hash.as_str().into(),
        entry.hash.as_str().into(),
    ]
}

impl Store {
    /// Records an act that no transaction has carried, by itself.
    ///
    /// # Errors
    /// The database fails.
    pub async fn record(&self, act: &Act) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        append(&mut tx, act).await?;
        tx.commit().await
    }
}

/// Acts after row `after` that began at `since` or later, in their order; of one tenant or of all.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list(
    tx: &mut Tx,
    tenant: Option<&TenantId>,
    (after, since): (u64, Option<Time>),
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut args = vec![
        (after as i64).into(),
        since.map_or(i64::MIN, Time::as_millis).into(),
        limit.into(),
    ];
    let sql = match tenant {
        Some(id) => {
            args.push(id.as_str().into());
            "SELECT audit.*, accounts.email FROM audit LEFT JOIN accounts ON accounts.id = audit.account_id
             WHERE audit.seq > $1 AND audit.at >= $2 AND audit.tenant_id = $4 ORDER BY audit.seq LIMIT $3"
        }
        None => {
            "SELECT audit.*, accounts.email FROM audit LEFT JOIN accounts ON accounts.id = audit.account_id
             WHERE audit.seq > $1 AND audit.at >= $2 ORDER BY audit.seq LIMIT $3"
        }
    };
    tx.fetch_all(sql, args).await?.iter().map(read).collect()
}

/// Verifies [`STRETCH`] rows of the chain after row `after`, and the end of the chain where it is reached.
///
/// # Errors
/// The database fails.
pub async fn verify(tx: &mut Tx, after: u64) -> Result<AuditVerdict, StoreError> {
    let mut verdict = AuditVerdict {
        verified_to: after,
        hash: String::new(),
        finished: false,
        faults: Vec::new(),
    };
    let sql = "SELECT audit.*, NULL AS email FROM audit WHERE seq >= $1 ORDER BY seq LIMIT $2";
    let rows = tx
        .fetch_all(sql, vec![(after as i64).into(), (STRETCH + 1).into()])
        .await?;
    let full = rows.len() > STRETCH as usize;
    let mut rows = rows.iter();
    if after > 0 {
        verdict.hash = rows
            .next()
            .and_then(|row| read(row).ok())
            .filter(|row| row.seq == after)
            .map(|row| row.hash)
            .ok_or_else(|| StoreError::Missing {
                what: "row of the audit",
                id: after.to_string(),
            })?;
    }
    for row in rows {
        follow(&mut verdict, row)?;
        if verdict.faults.len() >= MAX_FAULTS {
            verdict.finished = true;
            return Ok(verdict);
        }
    }
    if !full {
        finish(tx, &mut verdict).await?;
    }
    Ok(verdict)
}

/// Looks at the next row.
fn follow(verdict: &mut AuditVerdict, row: &Row) -> Result<(), StoreError> {
    let seq = row.u64("seq")?;
    let mut fault = |seq, what: String| verdict.faults.push(AuditFault { seq, what });
    let expected = verdict.verified_to + 1;
    if seq > expected {
        let last = seq - 1;
        fault(
            expected,
            if last == expected {
                format!("row {expected} is missing")
            } else {
                format!("rows {expected} to {last} are missing")
            },
        );
    }
    match read(row) {
        Ok(entry) => {
            if entry.hash != entry.chained() {
                fault(seq, format!("row {seq} was changed"));
            }
            if seq == expected && entry.previous_hash != verdict.hash {
                fault(
                    seq,
                    format!("row {seq} does not follow row {}: one was replaced", seq - 1),
                );
            }
            verdict.hash = entry.hash;
        }
        Err(_) => {
            fault(seq, format!("row {seq} was changed: it cannot be read"));
            verdict.hash = row.opt_text("hash")?.unwrap_or_default();
        }
    }
    verdict.verified_to = seq;
    Ok(())
}

/// Compares the end of the chain with what the head says.
async fn finish(tx: &mut Tx, verdict: &mut AuditVerdict) -> Result<(), StoreError> {
    verdict.finished = true;
    let head = tx
        .fetch_optional("SELECT seq, hash FROM audit_head WHERE id = 1", vec![])
        .await?;
    let (seq, hash) = match &head {
        Some(head) => (head.u64("seq")?, head.text("hash")?),
        None => (0, String::new()),
    };
    if (seq, hash.as_str()) != (verdict.verified_to, verdict.hash.as_str()) {
        verdict.faults.push(AuditFault {
            seq: verdict.verified_to + 1,
            what: format!(
                "the end is missing or was replaced: the chain was written up to row {seq} (`{hash}`), \
                 and is there up to row {} (`{}`)",
                verdict.verified_to, verdict.hash
            ),
        });
    }
    Ok(())
}

fn read(row: &Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: row.u64("seq")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        credential_id: row.opt_text("credential_id")?,
        account_id: row.opt_parse("account_id")?,
        email: row.opt_text("email")?,
        role: row.opt_text("role")?,
        action: row.text("action")?,
        tenant_id: row.opt_parse("tenant_id")?,
        target: row.opt_text("target")?,
        address: row.opt_text("address")?,
        result: row.word::<AuditResult>("result")?,
        code: row.opt_text("code")?,
        request_id: row.text("request_id")?,
        previous_hash: row.text("previous_hash")?,
        hash: row.text("hash")?,
    })
}
