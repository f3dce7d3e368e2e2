//! What a deploy takes along of the user's secrets, and what it would lose of those that the running release has.

use std::collections::BTreeMap;

use crate::api::name::SecretKey;
use crate::server::provision::Provision;
use crate::server::provision::context::Parts;
use crate::server::provision::secrets::{SecretError, opened, require_tenant_key};
use crate::server::store::secret_versions::SecretScope;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, releases, secret_versions};

/// How a release would lose a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was removed.
    Removed,
    /// It would be empty.
    Emptied,
    /// Its value cannot be opened.
    Unreadable,
}

/// A secret that a release would lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostSecret {
    /// Its name.
    pub key: String,
    /// How.
    pub loss: Loss,
}

impl LostSecret {
    /// What happens to it, for people.
    #[must_use]
    pub fn told(&self) -> String {
        let key = &self.key;
        match self.loss {
            Loss::Removed => format!("`{key}` was removed"),
            Loss::Emptied => format!("`{key}` would be empty"),
            Loss::Unreadable => format!("the value of `{key}` cannot be opened"),
        }
    }
}

/// Why losses stop a deploy, in one sentence.
#[must_use]
pub fn losses_told(lost: &[LostSecret]) -> String {
    let told: Vec<String> = lost.iter().map(LostSecret::told).collect();
    format!(
        "the new release would lack secrets that the running one has: {}",
        told.join(", ")
    )
}

/// The way out of losses.
#[must_use]
pub fn losses_hint(lost: &[LostSecret]) -> String {
    let flags: Vec<String> = lost
        .iter()
        .map(|lost| format!("--allow-missing {}", lost.key))
        .collect();
    format!(
        "set them again with `systemprompt secrets set`, or let them go with `systemprompt deploy {}`",
        flags.join(" ")
    )
}

/// What the next release sees of the user's secrets.
#[derive(Debug, Default)]
pub(super) struct NextSecrets {
    /// Versions by name; what cannot be opened is left out.
    pub(super) versions: BTreeMap<String, u32>,
    /// What it loses and may not.
    pub(super) lost: Vec<LostSecret>,
}

impl Provision {
    /// What a deploy would lose of the secrets that the running release has, `allowed` ones left out.
    ///
    /// # Errors
    /// The store fails.
    pub async fn lost_secrets(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        allowed: &[SecretKey],
    ) -> Result<Vec<LostSecret>, SecretError> {
        Ok(next_secrets(tx, &self.0.parts, tenant, allowed).await?.lost)
    }
}

/// The user's secrets as they are now, each opened once to see that it can be.
pub(super) async fn next_secrets(
    tx: &mut Tx,
    parts: &Parts,
    tenant: &TenantRow,
    allowed: &[SecretKey],
) -> Result<NextSecrets, SecretError> {
    let running = match tenant.current_release {
        Some(number) => releases::find(tx, &tenant.id, number).await?,
        None => None,
    };
    let running = running.map(|row| row.release.secret_versions).unwrap_or_default();
    let rows = secret_versions::list_latest(tx, &tenant.id, SecretScope::User).await?;
    let mut next = NextSecrets::default();
    let mut losses: BTreeMap<String, Loss> = running.keys().map(|key| (key.clone(), Loss::Removed)).collect();
    if !rows.is_empty() {
        let key = require_tenant_key(tx, &tenant.id).await?;
        for row in rows {
            let loss = match opened(&parts.vault, (&tenant.id, &key), SecretScope::User, &row) {
                Err(_) => Some(Loss::Unreadable),
                Ok(value) if value.expose().is_empty() => {
                    // One that is empty already is not emptied.
                    (running
                        .get(&row.key)
                        .is_some_and(|version| *version != row.version))
                    .then_some(Loss::Emptied)
                }
                Ok(_) => None,
            };
            if loss != Some(Loss::Unreadable) {
                next.versions.insert(row.key.clone(), row.version);
            }
            match loss {
                Some(loss) => losses.insert(row.key, loss),
                None => losses.remove(&row.key),
            };
        }
    }
    let is_allowed = |key: &str| allowed.iter().any(|allowed| allowed.as_str() == key);
    next.lost = losses
        .into_iter()
        .filter(|(key, _)| !is_allowed(key))
        .map(|(key, loss)| LostSecret { key, loss })
        .collect();
    Ok(next)
}
