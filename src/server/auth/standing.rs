//! What a caller is to a tenant: a member, or an operator for whom an owner has opened a door.

use crate::api::id::{SupportGrantId, TenantId};
use crate::api::member::Role;
use crate::api::time::Time;
use crate::server::auth::Principal;
use crate::server::store::{StoreError, Tx, members, support_grants};

/// What somebody is to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What they may do.
    pub role: Role,
    /// The door by which an operator came in; of a member there is none.
    pub grant: Option<SupportGrantId>,
}

impl Standing {
    /// As the audit calls it.
    #[must_use]
    pub fn told(&self) -> String {
        match &self.grant {
            None => self.role.to_string(),
            Some(grant) => format!("support {grant}"),
        }
    }
}

impl Principal {
    /// What this caller is to the tenant now, if anything. A door counts only where it leads further than what an
    /// operator is as a member.
    ///
    /// # Errors
    /// The store fails.
    pub async fn standing(
        &self,
        tx: &mut Tx,
        tenant: &TenantId,
        now: Time,
    ) -> Result<Option<Standing>, StoreError> {
        let role = members::role_of(tx, tenant, &self.account_id).await?;
        self.standing_of(tx, (tenant, role), now).await
    }

    /// The same of an account that is `role` to the tenant.
    ///
    /// # Errors
    /// The store fails.
    pub async fn standing_of(
        &self,
        tx: &mut Tx,
        (tenant, role): (&TenantId, Option<Role>),
        now: Time,
    ) -> Result<Option<Standing>, StoreError> {
        if self.operator && role.is_none_or(|role| role < self.needs) {
            let door = support_grants::find_open(tx, tenant, now).await?;
            if let Some(door) = door.filter(|door| role.is_none_or(|role| role < door.access.role())) {
                return Ok(Some(Standing {
                    role: door.access.role(),
                    grant: Some(door.id),
                }));
            }
        }
        Ok(role.map(|role| Standing { role, grant: None }))
    }
}
