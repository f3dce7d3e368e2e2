//! The environment of a tenant's machines: the platform's variables and the user's secrets at the release's versions.

use std::collections::BTreeMap;

use crate::api::id::TenantId;
use crate::api::name::FORMER_JWT_SECRET;
use crate::api::release::Release;
use crate::api::secret::SecretText;
use crate::api::tenant::{DatabaseKind, EnvironmentEntry};
use crate::server::provision::Provision;
use crate::server::provision::context::Parts;
use crate::server::provision::secrets::{
    JWT_SECRET, SecretError, database_slot, opened, password_key, platform_value, platform_version,
    require_tenant_key,
};
use crate::server::store::secret_versions::SecretScope;
use crate::server::store::tenants::{LoginSlot, TenantRow};
use crate::server::store::{Tx, releases, secret_versions};

/// The port on which every release listens.
pub(super) const PORT: u16 = 8080;
const MASK: &str = "••••••••";
const SECRET_VARIABLES: [&str; 3] = ["DATABASE_URL", "JWT_SECRET", FORMER_JWT_SECRET];

/// What the platform's variables are made of.
pub(super) struct Facts<'a> {
    pub(super) tenant_id: &'a TenantId,
    pub(super) tenant_name: &'a str,
    pub(super) url: &'a str,
    pub(super) release: u32,
    pub(super) database: DatabaseKind,
}

/// What a release pins of its environment.
#[derive(Clone, Copy)]
pub(super) struct Pinned<'a> {
    /// Its number.
    pub(super) release: u32,
    /// Versions of the user's secrets.
    pub(super) secrets: &'a BTreeMap<String, u32>,
    /// The platform's variables.
    pub(super) environment: &'a BTreeMap<String, String>,
}

impl<'a> Pinned<'a> {
    /// What this release pins.
    pub(super) const fn of(release: &'a Release) -> Self {
        Self {
            release: release.number,
            secrets: &release.secret_versions,
            environment: &release.environment,
        }
    }
}

/// What tells a machine where and who it is: true for the machine of today, whatever release it restores.
pub(super) const TRUE_NOW: [&str; 9] = [
    "HOST",
    "PORT",
    "SYSTEMPROMPT_RELEASE",
    "DATABASE_TYPE",
    "API_SERVER_URL",
    "API_EXTERNAL_URL",
    "APP_URL",
    "TENANT_ID",
    "TENANT_NAME",
];

/// The platform's variables that are no secrets: as `restored` (a release's own; empty for a new one) had them, but for
/// what must be true now.
pub(super) fn plain(facts: &Facts<'_>, restored: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let database_type = match facts.database {
        DatabaseKind::Postgres => "postgres",
        DatabaseKind::Sqlite => "sqlite",
    };
    let release = facts.release.to_string();
    let port = PORT.to_string();
    let server = format!("http://0.0.0.0:{PORT}");
    let now = [
        ("HOST", "0.0.0.0"),
        ("PORT", &port),
        ("RUST_LOG", "info"),
        ("SYSTEMPROMPT_SERVICES_PATH", "/app/services"),
        ("SYSTEMPROMPT_RELEASE", &release),
        ("WEB_DIR", "/app/web"),
        ("DATABASE_TYPE", database_type),
        ("JWT_ISSUER", "systemprompt"),
        ("JWT_ACCESS_TOKEN_EXPIRATION", "3600"),
        ("API_SERVER_URL", &server),
        ("API_EXTERNAL_URL", facts.url),
        ("APP_URL", facts.url),
        ("TENANT_ID", facts.tenant_id.as_str()),
        ("TENANT_NAME", facts.tenant_name),
    ];
    let mut all = restored.clone();
    for (name, value) in now {
        if restored.is_empty() || TRUE_NOW.contains(&name) {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    all
}

/// The whole environment. A secret never shadows a platform variable: the platform's own is written last.
pub(super) fn environment(
    plain: BTreeMap<String, String>,
    own: Own,
    secrets: BTreeMap<String, SecretText>,
) -> BTreeMap<String, SecretText> {
    let mut all = secrets;
    all.extend(
        plain
            .into_iter()
            .map(|(name, value)| (name, SecretText::new(value))),
    );
    all.insert("DATABASE_URL".to_owned(), own.database_url);
    all.insert("JWT_SECRET".to_owned(), own.jwt_secret);
    if let Some(former) = own.former_jwt_secret {
        all.insert(FORMER_JWT_SECRET.to_owned(), former);
    }
    all
}

/// The platform's own secrets.
pub(super) struct Own {
    pub(super) database_url: SecretText,
    pub(super) jwt_secret: SecretText,
    /// While tokens that it has signed are good.
    pub(super) former_jwt_secret: Option<SecretText>,
}

/// The platform's variables of a release of this tenant; see [`plain`].
pub(super) fn plain_of(
    parts: &Parts,
    tenant: &TenantRow,
    release: u32,
    restored: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let facts = Facts {
        tenant_id: &tenant.id,
        tenant_name: tenant.name.as_str(),
        url: &parts.edge.url(&tenant.label),
        release,
        database: tenant.database,
    };
    plain(&facts, restored)
}

/// The same as it may be shown: names and sources, everything secret masked.
pub(super) fn masked(
    environment: &BTreeMap<String, SecretText>,
    secrets: &[String],
) -> Vec<EnvironmentEntry> {
    environment
        .iter()
        .map(|(name, value)| {
            let user = secrets.contains(name);
            let hidden = user || SECRET_VARIABLES.contains(&name.as_str());
            EnvironmentEntry {
                name: name.clone(),
                source: if user { "secret" } else { "platform" }.to_owned(),
                value: if hidden { MASK } else { value.expose() }.to_owned(),
            }
        })
        .collect()
}

/// Opens everything that a release of the tenant must see. A value that cannot be opened is an error, never left out.
pub(super) async fn read_environment(
    tx: &mut Tx,
    parts: &Parts,
    tenant: &TenantRow,
    slot: LoginSlot,
    pinned: Pinned<'_>,
) -> Result<BTreeMap<String, SecretText>, SecretError> {
    let key = require_tenant_key(tx, &tenant.id).await?;
    let whose = (&tenant.id, &key);
    let mut secrets = BTreeMap::new();
    for (name, version) in pinned.secrets {
        let wanted = (name.as_str(), *version);
        let row = secret_versions::find_version(tx, &tenant.id, SecretScope::User, wanted)
            .await?
            .ok_or_else(|| SecretError::Missing {
                key: name.clone(),
                version: *version,
            })?;
        secrets.insert(
            name.clone(),
            opened(&parts.vault, whose, SecretScope::User, &row)?,
        );
    }
    let database_url = match tenant.database {
        DatabaseKind::Postgres => {
            let password = platform_value(tx, parts, whose, password_key(slot)).await?;
            parts.databases.url(&tenant.id, database_slot(slot), &password)
        }
        DatabaseKind::Sqlite => SecretText::new("sqlite:///app/data/tenant.db"),
    };
    let jwt_secret = platform_version(tx, parts, whose, (JWT_SECRET, tenant.jwt.version)).await?;
    let former_jwt_secret = match tenant.jwt.former {
        None => None,
        Some(former) => Some(platform_version(tx, parts, whose, (JWT_SECRET, former.version)).await?),
    };
    let own = Own {
        database_url,
        jwt_secret,
        former_jwt_secret,
    };
    let plain = plain_of(parts, tenant, pinned.release, pinned.environment);
    Ok(environment(plain, own, secrets))
}

impl Provision {
    /// The environment that the tenant's release sees (or its next one would), with everything secret masked.
    ///
    /// # Errors
    /// The store or the vault fails.
    pub async fn environment(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
    ) -> Result<Vec<EnvironmentEntry>, SecretError> {
        let parts = &self.0.parts;
        // Before its creation has got that far, and after its deletion, there is nothing to show.
        let made = secret_versions::find_latest(tx, &tenant.id, SecretScope::Platform, JWT_SECRET).await?;
        if made.is_none() {
            return Ok(Vec::new());
        }
        let release = match tenant.current_release {
            Some(number) => releases::find(tx, &tenant.id, number).await?,
            None => None,
        };
        let (number, secrets, environment) = match release.map(|row| row.release) {
            Some(release) => (release.number, release.secret_versions, release.environment),
            None => (1, latest_versions(tx, &tenant.id).await?, BTreeMap::new()),
        };
        let pinned = Pinned {
            release: number,
            secrets: &secrets,
            environment: &environment,
        };
        let all = read_environment(tx, parts, tenant, tenant.login_slot, pinned).await?;
        let names: Vec<String> = secrets.into_keys().collect();
        Ok(masked(&all, &names))
    }
}

/// The user's secrets as they are now, by version: what a new release pins.
pub(super) async fn latest_versions(
    tx: &mut Tx,
    tenant: &TenantId,
) -> Result<BTreeMap<String, u32>, crate::server::store::StoreError> {
    let rows = secret_versions::list_latest(tx, tenant, SecretScope::User).await?;
    Ok(rows.into_iter().map(|row| (row.key, row.version)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::{Facts, Own, environment, masked, plain};
    use crate::api::id::TenantId;
    use crate::api::name::PLATFORM_VARIABLES;
    use crate::api::secret::SecretText;
    use crate::api::tenant::DatabaseKind;

    fn whole(secrets: BTreeMap<String, SecretText>) -> BTreeMap<String, SecretText> {
        let own = Own {
            database_url: SecretText::new("postgresql://u:hunter2@h/d"),
            jwt_secret: SecretText::new("swordfish"),
            former_jwt_secret: Some(SecretText::new("catfish")),
        };
        environment(now(&BTreeMap::new()), own, secrets)
    }

    fn now(restored: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let facts = Facts {
            tenant_id: &TenantId::new(Uuid::from_u128(1)),
            tenant_name: "acme",
            url: "http://acme.localhost:8080",
            release: 3,
            database: DatabaseKind::Postgres,
        };
        plain(&facts, restored)
    }

    fn secret(name: &str, value: &str) -> BTreeMap<String, SecretText> {
        BTreeMap::from([(name.to_owned(), SecretText::new(value))])
    }

    #[test]
    fn every_platform_variable_is_there_and_wins() {
        let all = whole(secret("PORT", "1"));
        for name in PLATFORM_VARIABLES {
            assert!(all.contains_key(name), "{name}");
        }
        assert_eq!(all["PORT"].expose(), "8080");
    }

    #[test]
    fn a_restored_release_has_its_own_variables_and_knows_who_it_is_now() {
        let mut old = now(&BTreeMap::new());
        assert_eq!(now(&old), old);
        for (name, value) in [
            ("RUST_LOG", "debug"),
            ("GONE_SINCE", "1"),
            ("SYSTEMPROMPT_RELEASE", "1"),
            ("APP_URL", "http://acme.localhost:9090"),
        ] {
            old.insert(name.to_owned(), value.to_owned());
        }
        old.remove("WEB_DIR");
        let restored = now(&old);
        let value = |name: &str| restored.get(name).map(String::as_str);
        assert_eq!(value("RUST_LOG"), Some("debug"));
        assert_eq!(value("GONE_SINCE"), Some("1"));
        assert_eq!(value("WEB_DIR"), None);
        assert_eq!(value("SYSTEMPROMPT_RELEASE"), Some("3"));
        assert_eq!(value("APP_URL"), Some("http://acme.localhost:8080"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let all = whole(secret("OPENAI_API_KEY", "sk-1"));
        let shown = masked(&all, &["OPENAI_API_KEY".to_owned()]);
        let text = serde_json::to_string(&shown).expect("JSON");
        for value in ["sk-1", "hunter2", "swordfish", "catfish"] {
            assert!(!text.contains(value), "{value}");
        }
        assert!(text.contains("http://acme.localhost:8080"));
        let sources: Vec<&str> = shown
            .iter()
            .filter(|entry| entry.source == "secret")
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(sources, ["OPENAI_API_KEY"]);
    }
}
