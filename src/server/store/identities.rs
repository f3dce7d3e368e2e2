//! `identities`: whom a provider vouches for, and whose account that is.

use crate::api::id::AccountId;
use crate::api::time::Time;
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
