//! `device_grants`: device logins under way (RFC 8628); the device code is stored as its SHA-256.

use crate::api::id::AccountId;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// What the person has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing yet.
    Pending,
    /// Yes, as this account.
    Approved(AccountId),
    /// No.
    Denied,
}

/// One device login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceGrantRow {
    /// SHA-256 of the device code.
    pub device_code_hash: String,
    /// What the person types; letters only, upper case.
    pub user_code: String,
    /// Which program asks.
    pub client_id: String,
    /// What it asks for, space-separated.
    pub scopes: String,
    /// How the program named its machine.
    pub device_name: String,
    /// What the person has said.
    pub decision: Decision,
    /// Least seconds between polls; grows by `slow_down`.
    pub interval_seconds: u32,
    /// When the program asked last.
    pub last_polled_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
    /// When both codes end.
    pub expires_at: Time,
}

fn read(row: &Row) -> Result<DeviceGrantRow, StoreError> {
    let status = row.text("status")?;
    let decision = match status.as_str() {
        "approved" => Decision::Approved(row.parse("account_id")?),
        "denied" => Decision::Denied,
        _ => Decision::Pending,
    };
    Ok(DeviceGrantRow {
        device_code_hash: row.text("device_code_hash")?,
        user_code: row.text("user_code")?,
        client_id: row.text("client_id")?,
        scopes: row.text("scopes")?,
        device_name: row.text("device_name")?,
        decision,
        interval_seconds: row.u32("interval_seconds")?,
        last_polled_at: row.opt_time("last_polled_at")?,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
    })
}

/// Inserts a login that waits; a user code in use is [`StoreError::Duplicate`].
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, grant: &DeviceGrantRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO device_grants (device_code_hash, user_code, client_id, scopes, device_name, status, \
         interval_seconds, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, $8)",
        vec![
            grant.device_code_hash.as_str().into(),
            grant.user_code.as_str().into(),
            grant.client_id.as_str().into(),
            grant.scopes.as_str().into(),
            grant.device_name.as_str().into(),
            grant.interval_seconds.into(),
            grant.created_at.into(),
            grant.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The login of that device code, if there is one, ended or not.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, device_code_hash: &str) -> Result<Option<DeviceGrantRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM device_grants WHERE device_code_hash = $1",
        vec![device_code_hash.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The login that shows this user code, while it waits and has not ended by `now`.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find_waiting(
    tx: &mut Tx,
    user_code: &str,
    now: Time,
) -> Result<Option<DeviceGrantRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM device_grants WHERE user_code = $1 AND status = 'pending' AND expires_at > $2",
        vec![user_code.into(), now.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// Writes down what `account` said; `false` where the login does not wait any more.
///
/// # Errors
/// The statement fails.
pub async fn decide(
    tx: &mut Tx,
    user_code: &str,
    account: &AccountId,
    approved: bool,
    now: Time,
) -> Result<bool, StoreError> {
    let status = if approved { "approved" } else { "denied" };
    let changed = tx
        .execute(
            "UPDATE device_grants SET status = $1, account_id = $2 \
             WHERE user_code = $3 AND status = 'pending' AND expires_at > $4",
            vec![
                status.into(),
                account.as_str().into(),
                user_code.into(),
                now.into(),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Writes down a poll and the interval that holds from now on.
///
/// # Errors
/// The statement fails.
pub async fn record_poll(
    tx: &mut Tx,
    device_code_hash: &str,
    interval_seconds: u32,
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE device_grants SET last_polled_at = $1, interval_seconds = $2 WHERE device_code_hash = $3",
        vec![now.into(), interval_seconds.into(), device_code_hash.into()],
    )
    .await
    .map(drop)
}

/// Removes the login (its codes work once); `false` where somebody else was first.
///
/// # Errors
/// The statement fails.
pub async fn consume(tx: &mut Tx, device_code_hash: &str) -> Result<bool, StoreError> {
    let removed = tx
        .execute(
            "DELETE FROM device_grants WHERE device_code_hash = $1",
            vec![device_code_hash.into()],
        )
        .await?;
    Ok(removed == 1)
}

/// Removes what ended before `now`.
///
/// # Errors
/// The statement fails.
pub async fn delete_expired(tx: &mut Tx, now: Time) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM device_grants WHERE expires_at <= $1",
        vec![now.into()],
    )
    .await
}
