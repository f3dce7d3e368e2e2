//! `edge_sessions`, `edge_codes`: browsers that are known at tenants' hosts, and what carries a sign-in there. Neither
//! a cookie nor a code is stored itself.

use crate::api::edge_session::EdgeSessions;
use crate::api::id::TenantId;
use crate::api::time::Time;
use crate::server::store::web_sessions::WebSessionRow;
use crate::server::store::{StoreError, Tx, web_sessions};

/// A sign-in on its way to a tenant's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeCodeRow {
    /// SHA-256 of the code.
    pub code_hash: String,
    /// SHA-256 of what the browser was sent here with.
    pub state_hash: String,
    /// For which tenant.
    pub tenant_id: TenantId,
    /// The browser's session at this server.
    pub web_session_hash: String,
    /// When it ends.
    pub expires_at: Time,
}

/// Inserts a code.
///
/// # Errors
/// The statement fails.
pub async fn create_code(tx: &mut Tx, code: &EdgeCodeRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO edge_codes (code_hash, state_hash, tenant_id, web_session_hash, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
        vec![
            code.code_hash.as_str().into(),
            code.state_hash.as_str().into(),
            code.tenant_id.as_str().into(),
            code.web_session_hash.as_str().into(),
            code.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// Uses a code up, whoever brings it and with whatever; answers it while it is good.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn use_code(tx: &mut Tx, code_hash: &str, now: Time) -> Result<Option<EdgeCodeRow>, StoreError> {
    let found = tx
        .fetch_optional(
            "DELETE FROM edge_codes WHERE code_hash = $1 RETURNING *",
            vec![code_hash.into()],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let code = EdgeCodeRow {
        code_hash: row.text("code_hash")?,
        state_hash: row.text("state_hash")?,
        tenant_id: row.parse("tenant_id")?,
        web_session_hash: row.text("web_session_hash")?,
        expires_at: row.time("expires_at")?,
    };
    Ok(Some(code).filter(|code| code.expires_at > now))
}

/// Begins the session of a browser at a tenant's host; `until` it ends at the latest.
///
/// # Errors
/// The statement fails.
pub async fn create(
    tx: &mut Tx,
    token_hash: &str,
    (tenant, browser): (&TenantId, &WebSessionRow),
    now: Time,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO edge_sessions (token_hash, tenant_id, web_session_hash, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
        vec![
            token_hash.into(),
            tenant.as_str().into(),
            browser.token_hash.as_str().into(),
            now.into(),
            browser.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The browser that is known at the tenant's host by this, while its own session lasts too.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(
    tx: &mut Tx,
    (token_hash, tenant): (&str, &TenantId),
    now: Time,
) -> Result<Option<WebSessionRow>, StoreError> {
    let browser = tx
        .fetch_optional(
            "SELECT web_session_hash FROM edge_sessions \
             WHERE token_hash = $1 AND tenant_id = $2 AND expires_at > $3",
            vec![token_hash.into(), tenant.as_str().into(), now.into()],
        )
        .await?;
    match browser {
        Some(row) => web_sessions::find(tx, &row.text("web_session_hash")?, now).await,
        None => Ok(None),
    }
}

/// Ends one session.
///
/// # Errors
/// The statement fails.
pub async fn delete(tx: &mut Tx, token_hash: &str) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM edge_sessions WHERE token_hash = $1",
        vec![token_hash.into()],
    )
    .await
    .map(drop)
}

/// Removes what ended before `now`, and what has nothing behind it any more.
///
/// # Errors
/// A statement fails.
pub async fn delete_expired(tx: &mut Tx, now: Time) -> Result<(), StoreError> {
    tx.execute("DELETE FROM edge_codes WHERE expires_at <= $1", vec![now.into()])
        .await?;
    tx.execute(
        "DELETE FROM edge_sessions WHERE expires_at <= $1 \
         OR web_session_hash NOT IN (SELECT token_hash FROM web_sessions)",
        vec![now.into()],
    )
    .await
    .map(drop)
}

/// Says who is let in to a tenant from now on; nobody is asked where it is nothing.
///
/// # Errors
/// The statement fails.
pub async fn set(
    tx: &mut Tx,
    tenant: &TenantId,
    sessions: Option<&EdgeSessions>,
    now: Time,
) -> Result<(), StoreError> {
    let document = sessions.map(|sessions| serde_json::json!(sessions).to_string());
    tx.execute(
        "UPDATE tenants SET edge_sessions = $2, updated_at = $3 WHERE id = $1",
        vec![tenant.as_str().into(), document.into(), now.into()],
    )
    .await
    .map(drop)
}
