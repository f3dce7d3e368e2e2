//! Who may do what to a tenant: its members, and the doors that an owner opens for the server's operators.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::{AccountId, SupportGrantId};
use crate::api::time::Time;

/// The longest that a support grant lasts, in seconds.
pub const MAX_SUPPORT_SECONDS: u64 = 7 * 24 * 3600;
/// The shortest.
pub const MIN_SUPPORT_SECONDS: u64 = 60;

/// What somebody is to a tenant; each may do what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything but values of secrets.
    Viewer,
    /// Deploys, restarts, goes back, sets secrets.
    Developer,
    /// Everything: members, support, size, credentials, the end of it.
    Owner,
}

impl Role {
    /// Every role, from the one that may do least.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Developer, Self::Owner];

    /// As it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| "a role is `viewer`, `developer` or `owner`".to_owned())
    }
}

/// Somebody who may do something to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Who.
    pub account_id: AccountId,
    /// By which address people know them.
    pub email: String,
    /// As what.
    pub role: Role,
    /// Who added them or gave them this role; absent of the account that made the tenant.
    pub added_by: Option<String>,
    /// When.
    pub added_at: Time,
}

/// `POST /tenants/{id}/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// The address of an account of this server.
    pub email: String,
    /// As what.
    pub role: Role,
}

/// `PATCH /tenants/{id}/members/{account_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateMember {
    /// As what from now on.
    pub role: Role,
}

/// How far a door for operators is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SupportAccess {
    /// What a viewer sees.
    Read,
    /// What a developer may do; never members, support, credentials, deletion.
    Full,
}

impl SupportAccess {
    /// As it is written everywhere.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Full => "full",
        }
    }

    /// What an operator is to the tenant meanwhile.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Read => Role::Viewer,
            Self::Full => Role::Developer,
        }
    }
}

impl std::str::FromStr for SupportAccess {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(Self::Read),
            "full" => Ok(Self::Full),
            _ => Err("access is `read` or `full`".to_owned()),
        }
    }
}

/// A door that an owner has opened for the server's operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SupportGrant {
    /// Names it; every use is in the audit with it.
    pub id: SupportGrantId,
    /// How far it is open.
    pub access: SupportAccess,
    /// Whether it is open now.
    pub open: bool,
    /// Which owner opened it.
    pub opened_by: String,
    /// When.
    pub opened_at: Time,
    /// When it closes by itself.
    pub expires_at: Time,
    /// Who closed it before that.
    pub closed_by: Option<String>,
    /// When.
    pub closed_at: Option<Time>,
}

/// `POST /tenants/{id}/support-grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSupport {
    /// How far.
    pub access: SupportAccess,
    /// For how long: a minute to seven days.
    pub expires_in_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::{Role, SupportAccess};

    #[test]
    fn each_role_may_do_what_the_one_before_may() {
        assert!(Role::Viewer < Role::Developer && Role::Developer < Role::Owner);
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("Owner".parse::<Role>().is_err());
    }

    #[test]
    fn support_is_never_an_owner() {
        for access in [SupportAccess::Read, SupportAccess::Full] {
            assert!(access.role() < Role::Owner);
            assert_eq!(access.as_str().parse(), Ok(access));
        }
    }
}
