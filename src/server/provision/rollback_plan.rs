//! What a rollback would do, before anything is done: the difference, what ran since, and what is against it.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::release::{
    Difference, ImageConfig, MigrationsOf, Refusal, Release, ReleaseStatus, RollbackPlan,
};
use crate::server::provision::Provision;
use crate::server::provision::context::Parts;
use crate::server::provision::secrets::{SecretError, opened, require_tenant_key};
use crate::server::registry::GateError;
use crate::server::store::secret_versions::SecretScope;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{StoreError, Tx, releases, secret_versions};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// Nothing was deployed yet.
    #[error("no release serves, so there is nothing to go back from")]
    NothingServes,
    /// Everything that served before is like the release that serves, or nothing did.
    #[error("no release before v{0} served that differs from it")]
    NoEarlier(u32),
    /// There is no release of that number.
    #[error("there is no release v{0}")]
    Unknown(u32),
    /// It is the one that serves.
    #[error("v{0} serves already")]
    Serves(u32),
    /// It failed before it could serve.
    #[error("v{0} never served")]
    NeverServed(u32),
    /// The store failed.
    #[error("failed to read the releases")]
    Store(#[from] StoreError),
    /// Secrets cannot be read.
    #[error(transparent)]
    Secrets(#[from] SecretError),
    /// The registry does not answer.
    #[error(transparent)]
    Gate(#[from] GateError),
}

impl Provision {
    /// What going back to `wanted` would do; without a number, to the newest release that served before and differs.
    ///
    /// # Errors
    /// There is no such release, or it never served, or it serves; the store or the registry fails.
    pub async fn rollback_plan(
        &self,
        tx: &mut Tx,
        tenant: &TenantRow,
        wanted: Option<u32>,
    ) -> Result<RollbackPlan, RollbackError> {
        let parts = &self.0.parts;
        let current = tenant.current_release.ok_or(RollbackError::NothingServes)?;
        let from = find(tx, tenant, current).await?;
        let to = match wanted {
            Some(number) => find(tx, tenant, number).await?,
            None => newest_other(tx, tenant, &from).await?,
        };
        match to.status {
            _ if to.number == current => return Err(RollbackError::Serves(current)),
            ReleaseStatus::Superseded | ReleaseStatus::Active => {}
            ReleaseStatus::Failed | ReleaseStatus::Pending => {
                return Err(RollbackError::NeverServed(to.number));
            }
        }
        let migrations: Vec<MigrationsOf> = releases::list_after(tx, &tenant.id, to.number)
            .await?
            .into_iter()
            .filter_map(|row| {
                Some(MigrationsOf {
                    release: row.release.number,
                    mark: row.release.migrations?,
                })
            })
            .filter(|ran| !ran.mark.reported || !ran.mark.applied.is_empty())
            .collect();
        let mut refusals = Vec::new();
        refusals.extend(collected(parts, tenant, &to).await?);
        refusals.extend(unreadable(tx, parts, tenant, &to).await?);
        refusals.extend(irreversible(&to, &migrations));
        Ok(RollbackPlan {
            from: current,
            to: to.number,
            differences: differences(&from, &to),
            warnings: migrations.iter().map(warning).collect(),
            migrations,
            refusals,
            release: to,
        })
    }
}

async fn find(tx: &mut Tx, tenant: &TenantRow, number: u32) -> Result<Release, RollbackError> {
    releases::find(tx, &tenant.id, number)
        .await?
        .map(|row| row.release)
        .ok_or(RollbackError::Unknown(number))
}

async fn newest_other(tx: &mut Tx, tenant: &TenantRow, from: &Release) -> Result<Release, RollbackError> {
    releases::list_kept(tx, &tenant.id)
        .await?
        .into_iter()
        .map(|row| row.release)
        .filter(|row| row.number < from.number && row.status == ReleaseStatus::Superseded)
        .find(|row| !differences(from, row).is_empty())
        .ok_or(RollbackError::NoEarlier(from.number))
}

async fn collected(parts: &Parts, tenant: &TenantRow, to: &Release) -> Result<Option<Refusal>, GateError> {
    let gone = match to.collected_at {
        Some(at) => format!(
            "the image of v{} was removed from the registry at {at}",
            to.number
        ),
        None if parts.images.describe(&tenant.id, &to.digest).await?.is_some() => return Ok(None),
        None => format!("the image of v{} is not in the registry", to.number),
    };
    Ok(Some(Refusal {
        code: "release-collected".to_owned(),
        detail: gone,
        hint: "see which releases can run again with `systemprompt releases`, or deploy its source anew"
            .to_owned(),
    }))
}

async fn unreadable(
    tx: &mut Tx,
    parts: &Parts,
    tenant: &TenantRow,
    to: &Release,
) -> Result<Option<Refusal>, RollbackError> {
    let mut names = Vec::new();
    if !to.secret_versions.is_empty() {
        let key = require_tenant_key(tx, &tenant.id).await?;
        for (name, version) in &to.secret_versions {
            let wanted = (name.as_str(), *version);
            let row = secret_versions::find_version(tx, &tenant.id, SecretScope::User, wanted).await?;
            let value = row.map(|row| opened(&parts.vault, (&tenant.id, &key), SecretScope::User, &row));
            if !matches!(value, Some(Ok(_))) {
                names.push(format!("`{name}` (version {version})"));
            }
        }
    }
    Ok((!names.is_empty()).then(|| Refusal {
        code: "secrets-missing".to_owned(),
        detail: format!(
            "v{} had secrets whose values cannot be opened: {}",
            to.number,
            names.join(", ")
        ),
        hint: "go back to another release, or deploy the older source with new values".to_owned(),
    }))
}

fn irreversible(to: &Release, migrations: &[MigrationsOf]) -> Option<Refusal> {
    let names: Vec<String> = migrations
        .iter()
        .flat_map(|ran| {
            let names = ran.mark.irreversible.iter();
            names.map(|name| format!("`{name}` (v{})", ran.release))
        })
        .collect();
    (!names.is_empty()).then(|| Refusal {
        code: "irreversible-migration".to_owned(),
        detail: format!(
            "since v{} the database was changed by migrations that cannot be taken back: {}",
            to.number,
            names.join(", ")
        ),
        hint: format!(
            "if v{} is known to work with the database as it is now, add `--allow-irreversible`",
            to.number
        ),
    })
}

fn warning(ran: &MigrationsOf) -> String {
    let (release, mark) = (ran.release, &ran.mark);
    match (mark.finished, mark.reported) {
        (false, _) => {
            format!("the release command of v{release} did not end well; what it had done until then stays")
        }
        (true, false) => {
            format!("the release command of v{release} ran and did not say what it changed; it stays")
        }
        (true, true) => {
            let names: Vec<String> = mark.applied.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "v{release} applied {}; the database stays as it is",
                names.join(", ")
            )
        }
    }
}

/// What differs, in the order in which a person wants to see it. Who the machine is, differs in any case and is no
/// difference.
fn differences(from: &Release, to: &Release) -> Vec<Difference> {
    let mut all = Differences(Vec::new());
    all.add("image", Some(&from.digest), Some(&to.digest));
    if let (Some(from), Some(to)) = (&from.image_config, &to.image_config) {
        all.image(from, to);
    }
    let memory = |release: &Release| format!("{} MB", release.memory_mb);
    all.add("memory", Some(&memory(from)), Some(&memory(to)));
    all.add("strategy", Some(from.strategy.word()), Some(to.strategy.word()));
    all.add("health path", Some(&from.health_path), Some(&to.health_path));
    all.words("release command", &from.release_command, &to.release_command);
    if !from.environment.is_empty() && !to.environment.is_empty() {
        let kept = |release: &Release| {
            let mut variables = release.environment.clone();
            variables
                .retain(|name, _| !crate::server::provision::environment::TRUE_NOW.contains(&name.as_str()));
            variables
        };
        all.map("variable", &kept(from), &kept(to));
    }
    let versions = |release: &Release| -> BTreeMap<String, String> {
        let secrets = release.secret_versions.iter();
        secrets
            .map(|(key, version)| (key.clone(), format!("version {version}")))
            .collect()
    };
    all.map("secret", &versions(from), &versions(to));
    all.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, what: &str, from: Option<&str>, to: Option<&str>) {
        if from != to {
            self.0.push(Difference {
                what: what.to_owned(),
                from: from.map(str::to_owned),
                to: to.map(str::to_owned),
            });
        }
    }

    fn words(&mut self, what: &str, from: &[String], to: &[String]) {
        let text = |words: &[String]| (!words.is_empty()).then(|| words.join(" "));
        self.add(what, text(from).as_deref(), text(to).as_deref());
    }

    fn map(&mut self, what: &str, from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) {
        let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
        for name in names {
            let text = |map: &BTreeMap<String, String>| map.get(name).cloned();
            self.add(
                &format!("{what} {name}"),
                text(from).as_deref(),
                text(to).as_deref(),
            );
        }
    }

    fn image(&mut self, from: &ImageConfig, to: &ImageConfig) {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        self.words("entrypoint of the image", &from.entrypoint, &to.entrypoint);
        self.words("command of the image", &from.command, &to.command);
        for (what, from, to) in [
            ("user of the image", &from.user, &to.user),
            ("folder of the image", &from.working_dir, &to.working_dir),
            ("platform of the image", &from.platform, &to.platform),
        ] {
            self.add(what, text(from).as_deref(), text(to).as_deref());
        }
        self.map("variable of the image", &from.environment, &to.environment);
    }
}
