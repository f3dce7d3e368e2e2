//! `accounts`: people who sign in.

use crate::api::id::AccountId;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Names the account.
    pub id: AccountId,
    /// Signs in with it; lower case.
    pub email: String,
    /// Argon2id in PHC form; `None` while only one-time links let the person in.
    pub password_hash: Option<String>,
    /// Whether it may operate the server.
    pub operator: bool,
    /// When it was made.
    pub created_at: Time,
}

fn read(row: &Row) -> Result<AccountRow, StoreError> {
    Ok(AccountRow {
        id: row.parse("id")?,
        email: row.text("email")?,
        password_hash: row.opt_text("password_hash")?,
        operator: row.flag("operator")?,
        created_at: row.time("created_at")?,
    })
}

/// Inserts an account; a known e-mail address is [`StoreError::Duplicate`].
///
/// # Errors
/// The statement fails.
pub async fn create(tx: &mut Tx, account: &AccountRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO accounts (id, email, password_hash, operator, created_at) VALUES ($1, $2, $3, $4, $5)",
        vec![
            account.id.as_str().into(),
            account.email.as_str().into(),
            account.password_hash.clone().into(),
            account.operator.into(),
            account.created_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// The account of that id, if there is one.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find(tx: &mut Tx, id: &AccountId) -> Result<Option<AccountRow>, StoreError> {
    tx.fetch_optional(
        "SELECT id, email, password_hash, operator, created_at FROM accounts WHERE id = $1",
        vec![id.as_str().into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// The account that signs in with `email`, if there is one.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn find_by_email(tx: &mut Tx, email: &str) -> Result<Option<AccountRow>, StoreError> {
    tx.fetch_optional(
        "SELECT id, email, password_hash, operator, created_at FROM accounts WHERE email = $1",
        vec![email.into()],
    )
    .await?
    .map(|row| read(&row))
    .transpose()
}

/// Gives the account a password.
///
/// # Errors
/// The statement fails.
pub async fn set_password(tx: &mut Tx, id: &AccountId, password_hash: &str) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE accounts SET password_hash = $1 WHERE id = $2",
        vec![password_hash.into(), id.as_str().into()],
    )
    .await
    .map(drop)
}

/// Everybody who may operate the server.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list_operators(tx: &mut Tx) -> Result<Vec<AccountRow>, StoreError> {
    tx.fetch_all(
        "SELECT id, email, password_hash, operator, created_at FROM accounts WHERE operator = 1 ORDER BY email",
        vec![],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Whether anybody can sign in at all.
///
/// # Errors
/// The statement fails.
pub async fn exist(tx: &mut Tx) -> Result<bool, StoreError> {
    Ok(tx
        .fetch_optional("SELECT id FROM accounts LIMIT 1", vec![])
        .await?
        .is_some())
}
