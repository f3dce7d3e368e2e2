//! `identities`: whom a provider vouches for, and whose account that is.

use crate::api::id::AccountId;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::{StoreError, Tx};

/// One identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRow {
    /// Who vouches.
    pub issuer: String,
    /// Under which name, which never changes there.
    pub subject: String,
    /// How the operator has called that provider.
    pub provider: String,
    /// Whose it is.
    pub account_id: AccountId,
    /// The address that the provider named when it was connected.
    pub email: String,
    /// When it was connected.
    pub created_at: Time,
}

/// One identity, and when it last let somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedIdentity {
    /// Which.
    pub identity: IdentityRow,
    /// When.
    pub last_used_at: Time,
}

fn read(row: &Row) -> Result<UsedIdentity, StoreError> {
    Ok(UsedIdentity {
        identity: IdentityRow {
            issuer: row.text("issuer")?,
            subject: row.text("subject")?,
            provider: row.text("provider")?,
            account_id: row.parse("account_id")?,
            email: row.text("email")?,
            created_at: row.time("created_at")?,
        },
        last_used_at: row.time("last_used_at")?,
    })
}

/// Connects an identity with an account.
///
/// # Errors
/// It is connected with one already (`Duplicate`), or the statement fails.
pub async fn insert(tx: &mut Tx, identity: &IdentityRow) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO identities (issuer, subject, provider, account_id, email, created_at, last_used_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6)",
        vec![
            identity.issuer.as_str().into(),
            identity.subject.as_str().into(),
            identity.provider.as_str().into(),
            identity.account_id.as_str().into(),
            identity.email.as_str().into(),
            identity.created_at.into(),
        ],
    )
    .await
    .map(drop)
}

/// Whose identity that is, if it is connected; its use is written down.
///
/// # Errors
/// The statement fails or the row is damaged.
pub async fn use_it(
    tx: &mut Tx,
    (issuer, subject): (&str, &str),
    now: Time,
) -> Result<Option<AccountId>, StoreError> {
    tx.fetch_optional(
        "UPDATE identities SET last_used_at = $1 WHERE issuer = $2 AND subject = $3 RETURNING account_id",
        vec![now.into(), issuer.into(), subject.into()],
    )
    .await?
    .map(|row| row.parse("account_id"))
    .transpose()
}

/// The identities that let in to an account, the first one first.
///
/// # Errors
/// The statement fails or a row is damaged.
pub async fn list(tx: &mut Tx, account: &AccountId) -> Result<Vec<UsedIdentity>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM identities WHERE account_id = $1 ORDER BY created_at, issuer, subject LIMIT 200",
        vec![account.as_str().into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Keeps everybody else from changing how the account is let in to, until the transaction ends.
///
/// # Errors
/// The statement fails.
pub async fn hold(tx: &mut Tx, account: &AccountId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE accounts SET operator = operator WHERE id = $1",
        vec![account.as_str().into()],
    )
    .await
    .map(drop)
}

/// Takes an identity from the account that it lets in to, and ends the browsers that its provider has let in there.
///
/// # Errors
/// A statement fails.
pub async fn remove(tx: &mut Tx, identity: &IdentityRow) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM identities WHERE issuer = $1 AND subject = $2",
        vec![identity.issuer.as_str().into(), identity.subject.as_str().into()],
    )
    .await?;
    tx.execute(
        "DELETE FROM web_sessions WHERE account_id = $1 AND signed_in_by = $2",
        vec![
            identity.account_id.as_str().into(),
            identity.provider.as_str().into(),
        ],
    )
    .await
    .map(drop)
}
