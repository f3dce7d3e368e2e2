//! The names of a tenant's database and roles. Opaque: every tenant can read the names of all of them.

use crate::api::id::TenantId;
use crate::server::databases::LoginSlot;

/// A name that needs no escaping inside double quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identifier(String);

impl Identifier {
    /// `None` unless it is `[a-z][a-z0-9_]{0,62}`.
    fn new(text: String) -> Option<Self> {
        let shaped = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.len() <= 63
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        shaped.then_some(Self(text))
    }

    /// The name itself, for a bound parameter or a URL.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it is written into a statement.
    pub(super) fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

/// What one tenant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The database.
    pub(super) database: Identifier,
    /// Owns the database and cannot log in: an owner could lift the limits.
    pub(super) owner: Identifier,
    /// Owns the objects and cannot log in.
    pub(super) app: Identifier,
    logins: [Identifier; 2],
}

impl Names {
    /// The names of a tenant; `None` if its id were of another shape than ids are.
    pub(super) fn new(tenant: &TenantId) -> Option<Self> {
        let base = format!("t_{}", tenant.as_str().strip_prefix(TenantId::PREFIX)?);
        let suffixed = |suffix: &str| Identifier::new(format!("{base}_{suffix}"));
        Some(Self {
            owner: suffixed("owner")?,
            app: suffixed("app")?,
            logins: [suffixed("app_a")?, suffixed("app_b")?],
            database: Identifier::new(base)?,
        })
    }

    /// The login role of a slot.
    pub(super) const fn login(&self, slot: LoginSlot) -> &Identifier {
        let [a, b] = &self.logins;
        match slot {
            LoginSlot::A => a,
            LoginSlot::B => b,
        }
    }

    /// All roles, in the order in which they can be dropped.
    pub(super) const fn roles(&self) -> [&Identifier; 4] {
        let [a, b] = &self.logins;
        [a, b, &self.app, &self.owner]
    }
}

#[cfg(test)]
mod tests {
    use super::{Identifier, Names};
    use crate::api::id::TenantId;
    use crate::server::databases::LoginSlot;

    #[test]
    fn names_derive_from_the_id() {
        let names = Names::new(&TenantId::new(uuid::Uuid::from_u128(1))).expect("names");
        assert_eq!(names.database.as_str(), "t_00000000000000000000000001");
        assert_eq!(
            names.login(LoginSlot::B).quoted(),
            "\"t_00000000000000000000000001_app_b\""
        );
    }

    #[test]
    fn nothing_else_gets_into_a_statement() {
        for bad in ["", "1a", "a\"; DROP", "A", "a-b", &"a".repeat(64)] {
            assert_eq!(Identifier::new(bad.to_owned()), None, "{bad}");
        }
    }
}
