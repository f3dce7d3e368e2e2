//! Table `rate_limits`: how often callers may ask, counted for all servers of one PostgreSQL.
//!
//! The one table whose statements are PostgreSQL's own: a server with its database in a file is alone and counts in
//! memory. A count that is lost with the power does no harm, so nobody waits for the disk.

use sqlx::Row as _;

use crate::server::store::row::Value;
use crate::server::store::{Store, StoreError, Tx};

/// How a bucket is filled, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Filling {
    /// What one request takes.
    pub cost: i64,
    /// What fills an empty bucket.
    pub window: i64,
}

/// A bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Whether the request was within the limit; one that was not takes nothing.
    pub allowed: bool,
    /// When the bucket is full again.
    pub full_at: i64,
}

impl Filling {
    /// One request at `now`.
    #[must_use]
    pub fn count(&self, full_at: Option<i64>, now: i64) -> Count {
        let full_by = now.saturating_add(self.window);
        // Servers' clocks differ a little. What lies farther ahead was written before the clock was put back: it must not
        // lock anybody out.
        let before = full_at
            .filter(|full_at| *full_at <= full_by.saturating_add(self.window))
            .unwrap_or(now)
            .clamp(now, full_by);
        let after = before.saturating_add(self.cost);
        let allowed = after <= full_by;
        Count {
            allowed,
            full_at: if allowed { after } else { before },
        }
    }
}

/// Counts one request of `caller` for all servers; `None` where there is only one.
///
/// # Errors
/// The database fails.
pub async fn count(
    store: &Store,
    caller: &str,
    filling: Filling,
    now: i64,
) -> Result<Option<Count>, StoreError> {
    let Store::Postgres(connections) = store else {
        return Ok(None);
    };
    // The same arithmetic as `Filling::count`, in one statement, so that no two servers take the same token.
    let taken = sqlx::query(
        "INSERT INTO rate_limits AS known (caller, full_at)
         SELECT $1, $2 + $3 WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL
         ON CONFLICT (caller) DO UPDATE
             SET full_at = LEAST(GREATEST(CASE WHEN known.full_at > $2 + 2 * $4 THEN $2 ELSE known.full_at END, $2),
                 $2 + $4) + $3
             WHERE LEAST(GREATEST(CASE WHEN known.full_at > $2 + 2 * $4 THEN $2 ELSE known.full_at END, $2),
                 $2 + $4) + $3 <= $2 + $4
         RETURNING full_at",
    )
    .bind(caller)
    .bind(now)
    .bind(filling.cost)
    .bind(filling.window);
    let row = connections
        .alone(async |connection| taken.fetch_optional(connection).await)
        .await
        .map_err(StoreError::Statement)?;
    if let Some(row) = row {
        let full_at = row.try_get("full_at").map_err(StoreError::Statement)?;
        return Ok(Some(Count {
            allowed: true,
            full_at,
        }));
    }
    let known = sqlx::query("SELECT full_at FROM rate_limits WHERE caller = $1").bind(caller);
    let row = connections
        .alone(async |connection| known.fetch_optional(connection).await)
        .await
        .map_err(StoreError::Statement)?;
    let known = row
        .map(|row| row.try_get("full_at"))
        .transpose()
        .map_err(StoreError::Statement)?;
    let known: i64 = known.unwrap_or(now);
    Ok(Some(Count {
        allowed: false,
        full_at: known.clamp(now, now.saturating_add(filling.window)),
    }))
}

/// Forgets buckets that are full again.
///
/// # Errors
/// The database fails.
pub async fn delete_full(tx: &mut Tx, now: i64) -> Result<u64, StoreError> {
    tx.execute(
        "DELETE FROM rate_limits WHERE full_at <= $1",
        vec![Value::from(now)],
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::Filling;

    #[test]
    fn a_clock_that_went_back_locks_nobody_out() {
        let filling = Filling {
            cost: 10,
            window: 100,
        };
        let used_up = Some(1100);
        assert!(!filling.count(used_up, 1000).allowed);
        assert!(!filling.count(used_up, 950).allowed, "another server's clock");
        let far = filling.count(used_up, 800);
        assert_eq!((far.allowed, far.full_at), (true, 810));
    }
}
