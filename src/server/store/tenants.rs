//! Table `tenants`: one row per isolated stack, from its purchase on and for ever.

use crate::api::edge_session::EdgeSessions;
use crate::api::id::{AccountId, TenantId};
use crate::api::name::TenantName;
use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::api::time::Time;
use crate::server::store::row::{Row, word_of};
use crate::server::store::tenant_life::{JwtSecrets, may_become};
use crate::server::store::{StoreError, Tx};

/// Which of a tenant's two login roles is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginSlot {
    /// The first.
    A,
    /// The second.
    B,
}

impl LoginSlot {
    /// The one that is not this one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRow {
    /// Names the tenant for ever.
    pub id: TenantId,
    /// Chosen by the owner.
    pub name: TenantName,
    /// The DNS label: its name at creation.
    pub label: String,
    /// Who pays for it: one of its owners.
    pub owner_id: AccountId,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// The plan it is on.
    pub plan: String,
    /// Where it runs.
    pub region: String,
    /// What runs it.
    pub provider: String,
    /// Memory of its machine, in MB.
    pub memory_mb: u32,
    /// Its database.
    pub database: DatabaseKind,
    /// Its number in the address pool, while it lives.
    pub network_slot: Option<u32>,
    /// The login role in use.
    pub login_slot: LoginSlot,
    /// The release that serves.
    pub current_release: Option<u32>,
    /// The number of its last event.
    pub last_event_seq: u64,
    /// The secrets that its own tokens are signed with.
    pub jwt: JwtSecrets,
    /// Who is let in by the edge; where there is nothing, nobody is asked.
    pub edge_sessions: Option<EdgeSessions>,
    /// When it was bought.
    pub created_at: Time,
    /// When its row last changed.
    pub updated_at: Time,
}

/// What must be known to make a tenant.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, and its label too.
    pub name: TenantName,
    /// Who pays.
    pub owner_id: AccountId,
    /// The plan.
    pub plan: String,
    /// Where it shall run.
    pub region: String,
    /// What shall run it.
    pub provider: String,
    /// Memory in MB.
    pub memory_mb: u32,
    /// Its database.
    pub database: DatabaseKind,
}

pub(super) fn read(row: &Row) -> Result<TenantRow, StoreError> {
    Ok(TenantRow {
        id: row.parse("id")?,
        name: row.parse("name")?,
        label: row.text("label")?,
        owner_id: row.parse("owner_id")?,
        status: row.word("status")?,
        plan: row.text("plan")?,
        region: row.text("region")?,
        provider: row.text("provider")?,
        memory_mb: row.u32("memory_mb")?,
        database: row.word("database_kind")?,
        network_slot: row.opt_u32("network_slot")?,
        login_slot: row.word("login_slot")?,
        current_release: row.opt_u32("current_release")?,
        last_event_seq: row.u64("last_event_seq")?,
        jwt: JwtSecrets::read(row)?,
        edge_sessions: row.opt_json("edge_sessions")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Inserts a tenant as `pending` with the lowest free network slot.
///
/// # Errors
/// [`StoreError::Duplicate`]: a living tenant has that name or label.
pub async fn insert(tx: &mut Tx, new: &NewTenant, now: Time) -> Result<TenantRow, StoreError> {
    // Two inserts at once would draw the same slot: this row is the lock, held until the commit.
    tx.execute(
        "INSERT INTO settings (key, value) VALUES ('lock:network-slot', '')
         ON CONFLICT (key) DO UPDATE SET value = settings.value",
        vec![],
    )
    .await?;
    let row = tx
        .fetch_optional(
            "INSERT INTO tenants (id, name, live_name, live_label, label, owner_id, status, plan, region,
                 provider, memory_mb, database_kind, network_slot, login_slot, current_release,
                 last_event_seq, created_at, updated_at)
             VALUES ($1, $2, $2, $2, $2, $3, 'pending', $4, $5, $6, $7, $8,
                 (SELECT COALESCE(MIN(free.slot), 0) FROM (
                     SELECT 0 AS slot
                     UNION ALL SELECT network_slot + 1 FROM tenants WHERE network_slot IS NOT NULL
                 ) AS free WHERE free.slot NOT IN (
                     SELECT network_slot FROM tenants WHERE network_slot IS NOT NULL)),
                 'a', NULL, 0, $9, $9)
             RETURNING *",
            vec![
                new.id.as_str().into(),
                new.name.as_str().into(),
                new.owner_id.as_str().into(),
                new.plan.as_str().into(),
                new.region.as_str().into(),
                new.provider.as_str().into(),
                new.memory_mb.into(),
                word_of(&new.database).into(),
                now.into(),
            ],
        )
        .await?;
    match row {
        Some(row) => read(&row),
        None => Err(missing(&new.id)),
    }
}

/// The last one that was made.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_last_id(tx: &mut Tx) -> Result<Option<TenantId>, StoreError> {
    tx.fetch_optional("SELECT id FROM tenants ORDER BY id DESC LIMIT 1", vec![])
        .await?
        .map(|row| row.parse("id"))
        .transpose()
}

/// The tenant, if there is one of that id.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find(tx: &mut Tx, id: &TenantId) -> Result<Option<TenantRow>, StoreError> {
    tx.fetch_optional("SELECT * FROM tenants WHERE id = $1", vec![id.as_str().into()])
        .await?
        .map(|row| read(&row))
        .transpose()
}

/// The tenant that must be there.
///
/// # Errors
/// [`StoreError::Missing`]: there is none.
pub async fn get(tx: &mut Tx, id: &TenantId) -> Result<TenantRow, StoreError> {
    find(tx, id).await?.ok_or_else(|| missing(id))
}

/// The tenant, held against every other writer until the commit.
///
/// # Errors
/// [`StoreError::Missing`]: there is none.
pub async fn get_locked(tx: &mut Tx, id: &TenantId) -> Result<TenantRow, StoreError> {
    tx.fetch_optional(
        "UPDATE tenants SET updated_at = updated_at WHERE id = $1 RETURNING *",
        vec![id.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()?
    .ok_or_else(|| missing(id))
}

/// The living tenant that has this name or label.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_by_live_name(tx: &mut Tx, name: &TenantName) -> Result<Option<TenantRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM tenants WHERE live_name = $1 OR live_label = $1",
        vec![name.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The living tenant of that label.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_by_live_label(tx: &mut Tx, label: &str) -> Result<Option<TenantId>, StoreError> {
    tx.fetch_optional("SELECT id FROM tenants WHERE live_label = $1", vec![label.into()])
        .await?
        .map(|row| row.parse("id"))
        .transpose()
}

/// Ids of all living tenants after `after`, oldest first.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_ids(
    tx: &mut Tx,
    after: Option<&TenantId>,
    limit: u32,
) -> Result<Vec<TenantId>, StoreError> {
    tx.fetch_all(
        "SELECT id FROM tenants WHERE id > $1 AND status <> 'deleted' ORDER BY id LIMIT $2",
        vec![after.map_or("", TenantId::as_str).into(), limit.into()],
    )
    .await?
    .iter()
    .map(|row| row.parse("id"))
    .collect()
}

/// How many living tenants an account has on a plan.
///
/// # Errors
/// The database fails.
pub async fn count_by_plan(tx: &mut Tx, owner: &AccountId, plan: &str) -> Result<u64, StoreError> {
    tx.fetch_optional(
        "SELECT COUNT(*) AS total FROM tenants WHERE owner_id = $1 AND plan = $2 AND status <> 'deleted'",
        vec![owner.as_str().into(), plan.into()],
    )
    .await?
    .map_or(Ok(0), |row| row.u64("total"))
}

/// Moves a tenant to another state.
///
/// # Errors
/// [`StoreError::IllegalTransition`]: it may not go there from where it is.
pub async fn set_status(tx: &mut Tx, id: &TenantId, to: TenantStatus, now: Time) -> Result<(), StoreError> {
    let from = get_locked(tx, id).await?.status;
    if !may_become(from, to) {
        return Err(StoreError::IllegalTransition {
            what: "tenant",
            from: word_of(&from),
            to: word_of(&to),
        });
    }
    tx.execute(
        "UPDATE tenants SET status = $2, updated_at = $3 WHERE id = $1",
        vec![id.as_str().into(), word_of(&to).into(), now.into()],
    )
    .await?;
    Ok(())
}

/// Gives a tenant another name; its label stays.
///
/// # Errors
/// [`StoreError::Duplicate`]: a living tenant has that name.
pub async fn rename(tx: &mut Tx, id: &TenantId, name: &TenantName, now: Time) -> Result<(), StoreError> {
    changed_one(
        id,
        tx.execute(
            "UPDATE tenants SET name = $2, live_name = $2, updated_at = $3
             WHERE id = $1 AND live_name IS NOT NULL",
            vec![id.as_str().into(), name.as_str().into(), now.into()],
        )
        .await?,
    )
}

/// Has another account pay for it from now on.
///
/// # Errors
/// There is no such tenant.
pub async fn set_owner(tx: &mut Tx, id: &TenantId, owner: &AccountId, now: Time) -> Result<(), StoreError> {
    changed_one(
        id,
        tx.execute(
            "UPDATE tenants SET owner_id = $2, updated_at = $3 WHERE id = $1",
            vec![id.as_str().into(), owner.as_str().into(), now.into()],
        )
        .await?,
    )
}

/// Sets the memory that its next release gets.
///
/// # Errors
/// There is no such tenant.
pub async fn set_memory(tx: &mut Tx, id: &TenantId, memory_mb: u32, now: Time) -> Result<(), StoreError> {
    changed_one(
        id,
        tx.execute(
            "UPDATE tenants SET memory_mb = $2, updated_at = $3 WHERE id = $1",
            vec![id.as_str().into(), memory_mb.into(), now.into()],
        )
        .await?,
    )
}

/// Says which release serves.
///
/// # Errors
/// There is no such tenant.
pub async fn set_current_release(
    tx: &mut Tx,
    id: &TenantId,
    number: Option<u32>,
    now: Time,
) -> Result<(), StoreError> {
    changed_one(
        id,
        tx.execute(
            "UPDATE tenants SET current_release = $2, updated_at = $3 WHERE id = $1",
            vec![id.as_str().into(), number.map(i64::from).into(), now.into()],
        )
        .await?,
    )
}

/// Says which login role is in use.
///
/// # Errors
/// There is no such tenant.
pub async fn set_login_slot(
    tx: &mut Tx,
    id: &TenantId,
    slot: LoginSlot,
    now: Time,
) -> Result<(), StoreError> {
    changed_one(
        id,
        tx.execute(
            "UPDATE tenants SET login_slot = $2, updated_at = $3 WHERE id = $1",
            vec![id.as_str().into(), word_of(&slot).into(), now.into()],
        )
        .await?,
    )
}

/// Gives back what is unique while a tenant lives: its name, its label, its network slot.
///
/// # Errors
/// There is no such tenant.
pub async fn give_back_names(tx: &mut Tx, id: &TenantId, now: Time) -> Result<(), StoreError> {
    changed_one(
        id,
        tx.execute(
            "UPDATE tenants SET live_name = NULL, live_label = NULL, network_slot = NULL,
                 current_release = NULL, updated_at = $2 WHERE id = $1",
            vec![id.as_str().into(), now.into()],
        )
        .await?,
    )
}

fn changed_one(id: &TenantId, rows: u64) -> Result<(), StoreError> {
    if rows == 1 { Ok(()) } else { Err(missing(id)) }
}

fn missing(id: &TenantId) -> StoreError {
    StoreError::Missing {
        what: "tenant",
        id: id.to_string(),
    }
}
