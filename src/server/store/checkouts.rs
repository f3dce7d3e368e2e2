//! `checkouts`: purchases, open and done.

use crate::api::checkout::{CheckoutRequest, CheckoutStatus};
use crate::api::id::{AccountId, CheckoutId, OperationId, TenantId};
use crate::api::name::TenantName;
use crate::api::tenant::DatabaseKind;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckoutRow {
    /// Names the purchase.
    pub id: CheckoutId,
    /// Who buys.
    pub account_id: AccountId,
    /// How it stands in the table; an open one may have ended by time.
    pub status: CheckoutStatus,
    /// What is bought.
    pub request: CheckoutRequest,
    /// SHA-256 of what the pay page's address carries; absent for free plans.
    pub pay_token_hash: Option<String>,
    /// What it made.
    pub made: Option<Made>,
    /// When it was begun.
    pub created_at: Time,
    /// Until when it can be paid.
    pub expires_at: Time,
}

/// What a completed purchase made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The operation that creates it.
    pub operation_id: OperationId,
}

/// A request as it is stored: a later version may have put more into it, which the API itself refuses.
#[derive(serde::Deserialize)]
struct StoredRequest {
    price_id: String,
    name: TenantName,
    region: String,
    #[serde(default)]
    memory_mb: Option<u32>,
    #[serde(default)]
    database: DatabaseKind,
    #[serde(default)]
    redirect_uri: Option<String>,
}

impl From<StoredRequest> for CheckoutRequest {
    fn from(stored: StoredRequest) -> Self {
        Self {
            price_id: stored.price_id,
            name: stored.name,
            region: stored.region,
            memory_mb: stored.memory_mb,
            database: stored.database,
            redirect_uri: stored.redirect_uri,
        }
    }
}

fn read(row: &Row) -> Result<CheckoutRow, StoreError> {
    let made = match row.opt_text("tenant_id")? {
        Some(_) => Some(Made {
            tenant_id: row.parse("tenant_id")?,
            operation_id: row.parse("operation_id")?,
        }),
        None => None,
    };
    Ok(CheckoutRow {
        id: row.parse("id")?,
        account_id: row.parse("account_id")?,
        status: row.word("status")?,
        request: row.json::<StoredRequest>("request")?.into(),
        pay_token_hash: row.opt_text("pay_token_hash")?,
        made,
        created_at: row.time("created_at")?,
        expires_at: row.time("expires_at")?,
    })
}

/// Inserts an open purchase.
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, checkout: &CheckoutRow) -> Result<(), StoreError> {
    let request = serde_json::to_string(&checkout.request).unwrap_or_default();
    tx.execute(
        "INSERT INTO checkouts (id, account_id, status, request, pay_token_hash, created_at, expires_at) \
         VALUES ($1, $2, 'open', $3, $4, $5, $6)",
        vec![
            checkout.id.as_str().into(),
            checkout.account_id.as_str().into(),
            request.into(),
            checkout.pay_token_hash.clone().into(),
            checkout.created_at.into(),
            checkout.expires_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The purchase of that id, if there is one.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, id: &CheckoutId) -> Result<Option<CheckoutRow>, StoreError> {
    tx.fetch_optional("SELECT * FROM checkouts WHERE id = $1", vec![id.as_str().into()])
        .await?
        .map(|row| read(&row))
        .transpose()
}

/// The purchase of that id, held against every other writer until the commit.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find_locked(tx: &mut Tx, id: &CheckoutId) -> Result<Option<CheckoutRow>, StoreError> {
    tx.fetch_optional(
        "UPDATE checkouts SET status = status WHERE id = $1 RETURNING *",
        vec![id.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The purchase whose pay page carries this token.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find_by_pay_token(tx: &mut Tx, token_hash: &str) -> Result<Option<CheckoutRow>, StoreError> {
    tx.fetch_optional(
        "SELECT * FROM checkouts WHERE pay_token_hash = $1",
        vec![token_hash.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// Completes an open purchase; `false` where it is not open any more.
///
/// # Errors
/// The statement fails.
pub async fn complete(tx: &mut Tx, id: &CheckoutId, made: &Made) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE checkouts SET status = 'complete', tenant_id = $1, operation_id = $2 \
             WHERE id = $3 AND status = 'open'",
            vec![
                made.tenant_id.as_str().into(),
                made.operation_id.as_str().into(),
                id.as_str().into(),
            ],
        )
        .await?;
    Ok(changed == 1)
}
