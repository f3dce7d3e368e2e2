//! `systemprompt secrets history | rollback | diff`: what a secret was, and back to it. Digests tell values apart.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::json;

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::secret::{Secret, SecretVersion};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::secrets::{ChangeArgs, applied};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Table;

/// Flags of `systemprompt secrets history`.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Its name
    key: SecretKey,
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

/// Flags of `systemprompt secrets rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Its name
    key: SecretKey,
    /// The version to go back to; the last one before the present value unless told
    #[arg(long, value_name = "NUMBER")]
    to: Option<u32>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Flags of `systemprompt secrets diff`.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// The release to compare with; the one that serves unless told
    #[arg(long, value_name = "NUMBER")]
    release: Option<u32>,
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

/// Shows every value that a secret has had, without the values.
pub(super) async fn history(context: &Context, args: &HistoryArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let versions = context.client()?.list_secret_versions(&id, &args.key).await?;
    let document = json!({ "tenant_id": id, "key": args.key, "versions": versions });
    context.ui().result(&document, || {
        let mut table = Table::new(&["version", "digest", "set by", "set at", ""]);
        for version in &versions {
            table.row([
                version.version.to_string(),
                version.digest.clone(),
                version.set_by.clone(),
                version.set_at.to_string(),
                if version.removed { "removed" } else { "" }.to_owned(),
            ]);
        }
        table.render()
    })
}

/// Gives a secret an earlier value again, as a new version.
pub(super) async fn rollback(context: &Context, args: RollbackArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.change.tenant.as_deref()).await?;
    let client = context.client()?;
    let version = match args.to {
        Some(version) => version,
        None => before(&client.list_secret_versions(&id, &args.key).await?).ok_or_else(|| {
            CliError::new(Kind::Conflict, format!("`{}` has had no other value", args.key)).hint(format!(
                "see its versions with `systemprompt secrets history {}`",
                args.key
            ))
        })?,
    };
    let change = client
        .restore_secret(&id, &args.key, version, args.change.stage)
        .await?;
    let verb = format!("has the value of version {version} again");
    applied(context, &args.change, &change, vec![args.key], &verb).await
}

/// The newest version that has another value than the present one.
fn before(versions: &[SecretVersion]) -> Option<u32> {
    let (now, earlier) = versions.split_first()?;
    earlier
        .iter()
        .find(|version| !version.removed && version.digest != now.digest)
        .map(|version| version.version)
}

/// How a secret differs from what a release has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Difference {
    /// The release has no such secret.
    Added,
    /// Only the release has it.
    Removed,
    /// The release has another value.
    Changed,
    /// It was set anew, to the same value.
    Same,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Line {
    key: String,
    difference: Difference,
    in_release: Option<u32>,
    now: Option<u32>,
}

/// Shows how the secrets differ from those of a release, without values.
pub(super) async fn diff(context: &Context, args: &DiffArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    let client = context.client()?;
    let number = match args.release {
        Some(number) => number,
        None => client.get_tenant(&id).await?.current_release.ok_or_else(|| {
            CliError::new(Kind::Conflict, "nothing was released on this tenant yet")
                .hint("release something with `systemprompt deploy`")
        })?,
    };
    let of_release = client.get_release(&id, number).await?.secret_versions;
    let now = client.list_secrets(&id).await?;
    let mut lines = Vec::new();
    for line in differences(&of_release, &now) {
        let same = line.difference == Difference::Changed && same_value(context, &id, &line).await?;
        let difference = if same { Difference::Same } else { line.difference };
        lines.push(Line { difference, ..line });
    }
    let document = json!({ "tenant_id": id, "release": number, "differences": lines });
    context.ui().result(&document, || shown(&lines, number))
}

fn differences(of_release: &BTreeMap<String, u32>, now: &[Secret]) -> Vec<Line> {
    let now: BTreeMap<&str, u32> = now
        .iter()
        .map(|secret| (secret.key.as_str(), secret.version))
        .collect();
    let keys: BTreeSet<&str> = of_release
        .keys()
        .map(String::as_str)
        .chain(now.keys().copied())
        .collect();
    keys.into_iter()
        .filter_map(|key| {
            let (there, here) = (of_release.get(key).copied(), now.get(key).copied());
            let difference = match (there, here) {
                (None, _) => Difference::Added,
                (_, None) => Difference::Removed,
                (there, here) if there == here => return None,
                _ => Difference::Changed,
            };
            Some(Line {
                key: key.to_owned(),
                difference,
                in_release: there,
                now: here,
            })
        })
        .collect()
}

async fn same_value(context: &Context, id: &TenantId, line: &Line) -> Result<bool, CliError> {
    let Ok(key) = line.key.parse::<SecretKey>() else {
        return Ok(false);
    };
    let versions = context.client()?.list_secret_versions(id, &key).await?;
    let digest = |wanted: Option<u32>| {
        let found = versions.iter().find(|version| Some(version.version) == wanted);
        found.map(|version| version.digest.as_str())
    };
    Ok(digest(line.in_release) == digest(line.now))
}

fn shown(lines: &[Line], release: u32) -> String {
    if lines.is_empty() {
        return format!("the secrets are those of v{release}");
    }
    let mut table = Table::new(&["key", "difference", &format!("v{release}"), "now"]);
    let version = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for line in lines {
        let word = match line.difference {
            Difference::Added => "added",
            Difference::Removed => "removed",
            Difference::Changed => "changed",
            Difference::Same => "set anew, same value",
        };
        table.row([
            line.key.clone(),
            word.to_owned(),
            version(line.in_release),
            version(line.now),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::{Difference, before, differences};
    use crate::api::secret::{Secret, SecretVersion};
    use crate::api::time::Time;
    use std::collections::BTreeMap;

    fn version(version: u32, digest: &str) -> SecretVersion {
        SecretVersion {
            version,
            digest: digest.to_owned(),
            set_by: "ada".to_owned(),
            set_at: Time::from_millis(0),
            removed: digest.is_empty(),
        }
    }

    #[test]
    fn the_way_back_leads_to_another_value() {
        let versions = [version(5, "b"), version(4, ""), version(3, "b"), version(2, "a")];
        assert_eq!(before(&versions), Some(2));
        assert_eq!(before(&versions[..3]), None);
        // Removed by mistake: back to the last value.
        assert_eq!(before(&versions[1..]), Some(3));
        assert_eq!(before(&[]), None);
    }

    #[test]
    fn every_difference_has_its_word() {
        let of_release: BTreeMap<String, u32> = [("A", 1), ("B", 1), ("C", 2)]
            .map(|(key, version)| (key.to_owned(), version))
            .into();
        let now: Vec<Secret> = [("B", 2), ("C", 2), ("D", 1)]
            .map(|(key, version)| Secret {
                key: key.parse().expect("a key"),
                version,
                digest: String::new(),
                set_by: String::new(),
                set_at: Time::from_millis(0),
                staged: true,
            })
            .into();
        let told: Vec<_> = differences(&of_release, &now)
            .into_iter()
            .map(|line| (line.key, line.difference))
            .collect();
        assert_eq!(
            told,
            [
                ("A".to_owned(), Difference::Removed),
                ("B".to_owned(), Difference::Changed),
                ("D".to_owned(), Difference::Added),
            ]
        );
    }
}
