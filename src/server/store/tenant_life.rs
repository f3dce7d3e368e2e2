//! The states of a tenant, and which may follow which.

use serde::{Deserialize, Serialize};

use crate::api::id::{AccountId, TenantId};
use crate::api::member::Role;
use crate::api::tenant::TenantStatus;
use crate::api::time::Time;
use crate::server::store::row::Row;
use crate::server::store::tenants::{TenantRow, read};
use crate::server::store::{StoreError, Tx};

/// Whether a tenant in state `from` may go to `to`.
#[must_use]
pub const fn may_become(from: TenantStatus, to: TenantStatus) -> bool {
    use TenantStatus::{
        AwaitingDeploy, Deleted, Deleting, Deploying, Failed, Pending, Provisioning, Running, Suspended,
    };
    match (from, to) {
        (Deleted, Deleted) => true,
        (Deleted, _) | (_, Pending) => false,
        (Deleting, to) => matches!(to, Deleting | Deleted | Failed),
        (_, Deleting | Failed) => true,
        (Pending | Provisioning, Provisioning) | (Provisioning, AwaitingDeploy) => true,
        (Failed, Provisioning | Deploying | Running | AwaitingDeploy | Suspended) => true,
        (
            AwaitingDeploy | Deploying | Running | Suspended,
            AwaitingDeploy | Deploying | Running | Suspended,
        ) => true,
        _ => false,
    }
}

/// The tenant, if there is one of that id, and what the account is to it, if anything.
///
/// # Errors
/// The database fails or the row is bad.
pub async fn find_for(
    tx: &mut Tx,
    id: &TenantId,
    account: &AccountId,
) -> Result<Option<(TenantRow, Option<Role>)>, StoreError> {
    let row = tx
        .fetch_optional(
            "SELECT tenants.*, members.role AS member_role FROM tenants
             LEFT JOIN members ON members.tenant_id = tenants.id AND members.account_id = $2
             WHERE tenants.id = $1",
            vec![id.as_str().into(), account.as_str().into()],
        )
        .await?;
    row.map(|row| {
        let role = match row.opt_text("member_role")? {
            Some(_) => Some(row.word("member_role")?),
            None => None,
        };
        Ok((read(&row)?, role))
    })
    .transpose()
}

/// So many tenants are read at once.
pub const RESTING_AT_ONCE: u32 = 500;

/// Tenants after `after` that have come into being and that nobody works on, [`RESTING_AT_ONCE`] of them at most.
///
/// # Errors
/// The database fails or a row is bad.
pub async fn list_resting(tx: &mut Tx, after: Option<&TenantId>) -> Result<Vec<TenantRow>, StoreError> {
    tx.fetch_all(
        "SELECT * FROM tenants
         WHERE id > $1 AND status IN ('awaiting_deploy', 'running', 'suspended', 'failed')
             AND NOT EXISTS (SELECT 1 FROM operations
                 WHERE operations.tenant_id = tenants.id AND operations.finished_at IS NULL)
         ORDER BY id LIMIT $2",
        vec![after.map_or("", TenantId::as_str).into(), RESTING_AT_ONCE.into()],
    )
    .await?
    .iter()
    .map(read)
    .collect()
}

/// Which versions of its signing secret a tenant's release has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtSecrets {
    /// What new tokens are signed with.
    pub version: u32,
    /// What was, while tokens of it are still good.
    pub former: Option<FormerJwt>,
}

/// A signing secret that others have followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerJwt {
    /// Which version of the secret.
    pub version: u32,
    /// How long it shall be known.
    pub until: Time,
}

impl JwtSecrets {
    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let former = match (row.opt_u32("jwt_former")?, row.opt_time("jwt_former_until")?) {
            (Some(version), Some(until)) => Some(FormerJwt { version, until }),
            _ => None,
        };
        Ok(Self {
            version: row.opt_u32("jwt_version")?.unwrap_or(1),
            former,
        })
    }
}

/// Says which signing secrets a tenant's release has from now on.
///
/// # Errors
/// The statement fails.
pub async fn set_jwt(tx: &mut Tx, id: &TenantId, jwt: &JwtSecrets, now: Time) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE tenants SET jwt_version = $2, jwt_former = $3, jwt_former_until = $4, updated_at = $5 WHERE id = $1",
        vec![
            id.as_str().into(),
            jwt.version.into(),
            jwt.former.map(|former| i64::from(former.version)).into(),
            jwt.former.map(|former| former.until.as_millis()).into(),
            now.into(),
        ],
    )
    .await
    .map(drop)
}

/// A former signing secret that has had its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlapOver {
    /// Whose.
    pub tenant_id: TenantId,
    /// How often it was to go since then.
    pub tries: i64,
    /// When the last one was begun.
    pub tried_at: Option<Time>,
}

/// Tenants whose former signing secret has had its time, and how often it was to go since then: what is done is not listed.
///
/// # Errors
/// The statement fails or a row is bad.
pub async fn list_jwt_overlaps_over(tx: &mut Tx, now: Time) -> Result<Vec<OverlapOver>, StoreError> {
    tx.fetch_all(
        "SELECT tenants.id AS tenant, COUNT(operations.id) AS tries, MAX(operations.created_at) AS tried_at \
         FROM tenants LEFT JOIN operations ON operations.tenant_id = tenants.id \
             AND operations.kind = 'end-jwt-overlap' AND operations.created_at >= tenants.jwt_former_until \
         WHERE tenants.jwt_former_until <= $1 AND tenants.status <> 'deleted' \
         GROUP BY tenants.id ORDER BY tenants.id",
        vec![now.into()],
    )
    .await?
    .iter()
    .map(|row| {
        Ok(OverlapOver {
            tenant_id: row.parse("tenant")?,
            tries: row.int("tries")?,
            tried_at: row.opt_time("tried_at")?,
        })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::may_become;
    use crate::api::tenant::TenantStatus::{
        self, AwaitingDeploy, Deleted, Deleting, Deploying, Failed, Pending, Provisioning, Running, Suspended,
    };

    const ALL: [TenantStatus; 9] = [
        Pending,
        Provisioning,
        AwaitingDeploy,
        Deploying,
        Running,
        Suspended,
        Failed,
        Deleting,
        Deleted,
    ];

    #[test]
    fn the_life_of_a_tenant() {
        let lines: Vec<String> = ALL
            .iter()
            .map(|from| {
                let to: Vec<String> = ALL
                    .iter()
                    .filter(|to| may_become(*from, **to))
                    .map(|to| format!("{to:?}"))
                    .collect();
                format!("{from:?}: {}", to.join(" "))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        Pending: Provisioning Failed Deleting
        Provisioning: Provisioning AwaitingDeploy Failed Deleting
        AwaitingDeploy: AwaitingDeploy Deploying Running Suspended Failed Deleting
        Deploying: AwaitingDeploy Deploying Running Suspended Failed Deleting
        Running: AwaitingDeploy Deploying Running Suspended Failed Deleting
        Suspended: AwaitingDeploy Deploying Running Suspended Failed Deleting
        Failed: Provisioning AwaitingDeploy Deploying Running Suspended Failed Deleting
        Deleting: Failed Deleting Deleted
        Deleted: Deleted
        ");
    }
}
