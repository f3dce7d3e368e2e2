//! Labels: they say to which installation, tenant and role a thing belongs.

use std::collections::HashMap;

use crate::api::id::{OperationId, TenantId};
use crate::server::containers::Engine;

/// The names of the labels.
pub mod key {
    /// The installation.
    pub const INSTANCE: &str = "io.systemprompt.instance";
    /// The tenant's id.
    pub const TENANT: &str = "io.systemprompt.tenant";
    /// The tenant's DNS label.
    pub const LABEL: &str = "io.systemprompt.label";
    /// The operation that made it.
    pub const OPERATION: &str = "io.systemprompt.operation";
    /// The release that it runs.
    pub const RELEASE: &str = "io.systemprompt.release";
    /// What it is for.
    pub const ROLE: &str = "io.systemprompt.role";
    /// Digest of everything it was made of.
    pub const CONFIG: &str = "io.systemprompt.config";
    /// The image that wrote the volume first.
    pub const IMAGE: &str = "io.systemprompt.image";
}

/// To whom something belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// What it is for: `machine`, `command`, `private-network`, `edge-network`, `volume`, `postgres`, `edge`.
    pub role: &'static str,
    /// Whose; `None` for what the installation itself needs.
    pub tenant: Option<TenantId>,
    /// The tenant's DNS label.
    pub label: Option<String>,
    /// On whose behalf it was made. The only label that two equal things may differ in.
    pub operation: Option<OperationId>,
    /// The release that it runs.
    pub release: Option<u32>,
}

impl Labels {
    /// Labels of something that the installation itself needs.
    #[must_use]
    pub const fn of_installation(role: &'static str) -> Self {
        Self {
            role,
            tenant: None,
            label: None,
            operation: None,
            release: None,
        }
    }

    pub(crate) fn write(&self, instance: &str) -> HashMap<String, String> {
        let mut labels = HashMap::from([
            (key::INSTANCE.to_owned(), instance.to_owned()),
            (key::ROLE.to_owned(), self.role.to_owned()),
        ]);
        let optional = [
            (key::TENANT, self.tenant.as_ref().map(ToString::to_string)),
            (key::LABEL, self.label.clone()),
            (key::OPERATION, self.operation.as_ref().map(ToString::to_string)),
            (key::RELEASE, self.release.map(|release| release.to_string())),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                labels.insert(name.to_owned(), value);
            }
        }
        labels
    }

    /// Whether a thing with these labels is the one that we would have made.
    pub(crate) fn own(&self, instance: &str, found: &HashMap<String, String>) -> bool {
        let is = |name: &str, wanted: Option<&str>| found.get(name).map(String::as_str) == wanted;
        is(key::INSTANCE, Some(instance))
            && is(key::ROLE, Some(self.role))
            && is(key::TENANT, self.tenant.as_ref().map(TenantId::as_str))
    }
}

impl Engine {
    /// The filter that finds this installation's things with these further labels.
    pub(crate) fn filter(&self, labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
        let mut wanted = vec![format!("{}={}", key::INSTANCE, self.instance())];
        wanted.extend(labels.iter().map(|(name, value)| format!("{name}={value}")));
        HashMap::from([("label".to_owned(), wanted)])
    }
}
