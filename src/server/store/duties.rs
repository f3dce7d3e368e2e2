//! Table `duties`: work that one server of an installation does for all of them.

use crate::api::time::Time;
use crate::server::store::operation_leases::FARTHEST_SECONDS;
use crate::server::store::{StoreError, Tx};

/// Takes the duty until `until`, or keeps it: `false` while somebody else has it.
///
/// # Errors
/// The database fails.
pub async fn hold(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    (now, until): (Time, Time),
) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "INSERT INTO duties (name, holder, held_until) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
             WHERE duties.holder = excluded.holder OR duties.held_until < $4 OR duties.held_until > $5",
            vec![
                name.into(),
                holder.into(),
                until.into(),
                now.into(),
                // Written before the clock went back.
                now.plus_seconds(FARTHEST_SECONDS).into(),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Gives the duty back, so that another server takes it at once.
///
/// # Errors
/// The database fails.
pub async fn give_back(tx: &mut Tx, name: &str, holder: &str) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM duties WHERE name = $1 AND holder = $2",
        vec![name.into(), holder.into()],
    )
    .await
    .map(drop)
}
