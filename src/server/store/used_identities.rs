//! `used_identities`: identities of CI jobs that were exchanged, until they have expired by themselves.

use crate::api::time::Time;
use crate::server::store::{StoreError, Tx};

/// Writes down that an identity is used; `false` where it was before.
///
/// # Errors
/// The statement fails.
pub async fn use_up(tx: &mut Tx, identity_hash: &str, expires_at: Time) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "INSERT INTO used_identities (identity_hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            vec![identity_hash.into(), expires_at.into()],
        )
        .await?;
    Ok(changed == 1)
}

/// Forgets those that would be refused for their age.
///
/// # Errors
/// The statement fails.
pub async fn delete_expired(tx: &mut Tx, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM used_identities WHERE expires_at < $1",
        vec![now.into()],
    )
    .await
    .map(drop)
}
