//! `settings`: facts of this installation that outlive a start (key to value).

use crate::server::store::{StoreError, Tx};

/// The value of `key`, if it was ever set.
///
/// # Errors
/// The statement fails.
pub async fn find(tx: &mut Tx, key: &str) -> Result<Option<String>, StoreError> {
    tx.fetch_optional("SELECT value FROM settings WHERE key = $1", vec![key.into()])
        .await?
        .map(|row| row.text("value"))
        .transpose()
}

/// Sets `key` to `value`, whatever it was before.
///
/// # Errors
/// The statement fails.
pub async fn put(tx: &mut Tx, key: &str, value: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        vec![key.into(), value.into()],
    )
    .await
    .map(drop)
}

/// Sets `key` to `value` where it was never set; answers what holds now, whoever set it.
///
/// # Errors
/// The statement fails.
pub async fn keep_first(tx: &mut Tx, key: &str, value: &str) -> Result<String, StoreError> {
    tx.execute(
        "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING",
        vec![key.into(), value.into()],
    )
    .await?;
    find(tx, key).await?.ok_or_else(|| StoreError::Missing {
        what: "setting",
        id: key.to_owned(),
    })
}
