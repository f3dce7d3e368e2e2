//! What a token lets its bearer do, and the intersection of asked and allowed.

use serde::{Deserialize, Serialize};

use crate::api::id::TenantId;
use crate::api::registry::{REPOSITORY, tenant_tag};
use crate::api::time::Time;
use crate::server::registry::GateAccess;

/// One action on a repository, as scopes and access lists spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// Read.
    Pull,
    /// Add.
    Push,
    /// Remove.
    Delete,
}

impl GateAccess {
    /// All that it lets do.
    pub(super) fn actions(self) -> &'static [Action] {
        match self {
            Self::Pull => &[Action::Pull],
            Self::Push => &[Action::Pull, Action::Push],
            Self::Manage => &[Action::Pull, Action::Push, Action::Delete],
        }
    }
}

/// What a verified token lets its bearer do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// In whose namespace.
    pub(super) tenant: TenantId,
    /// What the credential behind it may do at most.
    pub(super) access: GateAccess,
    /// When the credential was made, in milliseconds.
    pub(super) minted_at: Time,
    /// When it ends.
    pub(super) expires_at: Time,
    /// What this token carries of that.
    pub(super) actions: Vec<Action>,
}

impl Grant {
    /// Whether this token carries `action`.
    pub(super) fn allows(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    /// Whether a new token from the same credential could carry `action`.
    pub(super) fn could_allow(&self, action: Action) -> bool {
        self.access.actions().contains(&action)
    }

    /// Whether `tag` may be written.
    pub(super) fn may_write_tag(&self, tag: &str) -> bool {
        self.access == GateAccess::Manage || tag == tenant_tag(&self.tenant)
    }
}

/// The intersection of what is asked and what the credential allows; unknown names and actions fall away.
pub(super) fn granted(scopes: &[&str], credential: &Grant) -> Vec<Action> {
    let mut actions = Vec::new();
    let asked = scopes
        .iter()
        .flat_map(|scope| scope.split_ascii_whitespace())
        .filter_map(|scope| {
            scope
                .strip_prefix("repository:")?
                .strip_prefix(REPOSITORY)?
                .strip_prefix(':')
        })
        .flat_map(|list| list.split(','));
    for word in asked {
        let wanted: &[Action] = match word {
            "pull" => &[Action::Pull],
            "push" => &[Action::Push],
            "delete" => &[Action::Delete],
            "*" => &[Action::Pull, Action::Push, Action::Delete],
            _ => &[],
        };
        for action in wanted {
            if credential.allows(*action) && !actions.contains(action) {
                actions.push(*action);
            }
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{Action, Grant, granted};
    use crate::api::id::TenantId;
    use crate::api::time::Time;
    use crate::server::registry::GateAccess;

    fn grant(access: GateAccess) -> Grant {
        Grant {
            tenant: TenantId::new(Uuid::from_u128(1)),
            access,
            minted_at: Time::from_millis(0),
            expires_at: Time::from_millis(0),
            actions: access.actions().to_vec(),
        }
    }

    fn ask(access: GateAccess, scopes: &[&str]) -> Vec<Action> {
        granted(scopes, &grant(access))
    }

    #[test]
    fn grants_what_is_both_asked_and_allowed() {
        use Action::{Pull, Push};
        assert_eq!(
            ask(GateAccess::Push, &["repository:systemprompt-images:push,pull"]),
            [Push, Pull]
        );
        assert_eq!(
            ask(GateAccess::Pull, &["repository:systemprompt-images:push,pull"]),
            [Pull]
        );
        assert_eq!(
            ask(GateAccess::Push, &["repository:systemprompt-images:*"]),
            [Pull, Push]
        );
        let two = "repository:other:pull repository:systemprompt-images:pull";
        assert_eq!(ask(GateAccess::Push, &[two, "registry:catalog:*"]), [Pull]);
    }

    #[test]
    fn grants_nothing_on_other_names() {
        for scope in [
            "repository:systemprompt-images2:pull",
            "repository:x/systemprompt-images:pull",
            "repository:systemprompt-images/x:pull",
            "registry:catalog:*",
            "repository:systemprompt-images",
            "",
        ] {
            assert!(ask(GateAccess::Manage, &[scope]).is_empty(), "{scope}");
        }
    }

    #[test]
    fn only_the_own_tag_is_written() {
        let push = grant(GateAccess::Push);
        assert!(push.may_write_tag("tenant-ten_00000000000000000000000001"));
        assert!(!push.may_write_tag("tenant-ten_00000000000000000000000002"));
        assert!(!push.may_write_tag("latest"));
        assert!(grant(GateAccess::Manage).may_write_tag("latest"));
    }
}
