//! `systemprompt releases`: what ran, what one release is made of, and which images are kept.

use std::str::FromStr;

use clap::Subcommand;
use serde_json::json;

use crate::api::id::TenantId;
use crate::api::release::{ImageConfig, MigrationMark, Release, ReleaseStatus};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::{Prompt, Table};
use crate::image::context::size;

/// Flags of `systemprompt releases`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT", global = true)]
    tenant: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the releases, newest first; what `releases` alone does
    List,
    /// Show everything that a release is made of
    Show {
        /// The release: `v3` or `3`
        release: ReleaseNumber,
    },
    /// Keep the image of a release whatever its age
    Pin {
        /// The release: `v3` or `3`
        release: ReleaseNumber,
    },
    /// Keep the image of a release only as long as it is one of the last 20
    Unpin {
        /// The release: `v3` or `3`
        release: ReleaseNumber,
    },
}

/// A release as people write it: `v3` or `3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseNumber(pub u32);

impl FromStr for ReleaseNumber {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix(['v', 'V'])
            .unwrap_or(text)
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .map(Self)
            .ok_or_else(|| "write it like `v3` or `3`".to_owned())
    }
}

/// What is done with one release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Act {
    /// Show it.
    Show,
    /// Keep its image.
    Pin,
    /// Let its image go with its age.
    Unpin,
}

/// Runs the verb; without one, lists.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.as_deref()).await?;
    match args.verb {
        None | Some(Verb::List) => list(context, &id).await,
        Some(Verb::Show { release }) => act(context, &id, (Act::Show, release.0)).await,
        Some(Verb::Pin { release }) => act(context, &id, (Act::Pin, release.0)).await,
        Some(Verb::Unpin { release }) => act(context, &id, (Act::Unpin, release.0)).await,
    }
}

/// Lists a tenant's releases, newest first.
pub(in crate::cli) async fn list(context: &Context, id: &TenantId) -> Result<(), CliError> {
    let releases = context.client()?.list_releases(id).await?;
    let document = json!({ "tenant_id": id, "releases": releases });
    context.ui().result(&document, || table(&releases))
}

/// Asks which release is meant: the menu's way in.
pub(in crate::cli) async fn act_asked(context: &Context, id: &TenantId, what: Act) -> Result<(), CliError> {
    let number = ask(context, id, |_| true).await?;
    act(context, id, (what, number)).await
}

/// Asks for one of the releases that are `wanted`.
pub(in crate::cli) async fn ask(
    context: &Context,
    id: &TenantId,
    wanted: impl Fn(&Release) -> bool,
) -> Result<u32, CliError> {
    let mut releases = context.client()?.list_releases(id).await?;
    releases.retain(wanted);
    if releases.is_empty() {
        return Err(
            CliError::new(Kind::NotFound, "there is no release to choose from")
                .hint("make one with `systemprompt deploy`"),
        );
    }
    let lines = releases.iter().map(one_line).collect();
    let prompt = Prompt::new("Which release?", "name it, as in `v3`");
    let place = context.ui().ask_choice(prompt, lines).await?;
    Ok(releases.get(place).map_or(0, |release| release.number))
}

async fn act(context: &Context, id: &TenantId, (what, number): (Act, u32)) -> Result<(), CliError> {
    let client = context.client()?;
    if what == Act::Show {
        let release = client
            .get_release(id, number)
            .await
            .map_err(|error| named(error.into(), number))?;
        return context.ui().result(&release, || text(&release));
    }
    let pinned = what == Act::Pin;
    let release = client
        .pin_release(id, number, pinned)
        .await
        .map_err(|error| named(error.into(), number))?;
    let told = if pinned {
        format!("v{number} is pinned: its image is kept whatever its age")
    } else {
        format!("v{number} is not pinned: its image is kept while it is one of the last 20")
    };
    context.ui().done(&release, told)
}

/// A release that is not there is best told by its number.
fn named(error: CliError, number: u32) -> CliError {
    match error.kind {
        Kind::NotFound => CliError::new(Kind::NotFound, format!("there is no release v{number}"))
            .code("not-found")
            .hint("see all releases with `systemprompt releases`"),
        _ => error,
    }
}

fn one_line(release: &Release) -> String {
    let message = release.message.as_deref().unwrap_or_default();
    let line = format!(
        "v{} {} {} {message}",
        release.number,
        status_word(release.status),
        release.created_at
    );
    line.trim_end().to_owned()
}

fn table(releases: &[Release]) -> String {
    if releases.is_empty() {
        return "no releases; make one with `systemprompt deploy`".to_owned();
    }
    let mut table = Table::new(&[
        "release", "status", "image", "memory", "by", "at", "message", "notes",
    ]);
    for release in releases {
        table.row([
            format!("v{}", release.number),
            status_word(release.status).to_owned(),
            short(&release.digest),
            format!("{} MB", release.memory_mb),
            release.created_by.clone(),
            release.created_at.to_string(),
            release.message.clone().unwrap_or_default(),
            notes(release).join(", "),
        ]);
    }
    table.render()
}

/// Enough of a digest to tell two apart.
pub(in crate::cli) fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn notes(release: &Release) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(old) = release.restores {
        notes.push(format!("restores v{old}"));
    }
    if let Some(mark) = &release.migrations {
        match (mark.finished, mark.applied.len()) {
            (false, _) => notes.push("its command failed".to_owned()),
            (true, 0) => {}
            (true, 1) => notes.push("1 migration".to_owned()),
            (true, count) => notes.push(format!("{count} migrations")),
        }
    }
    if release.pinned {
        notes.push("pinned".to_owned());
    }
    if release.collected_at.is_some() {
        notes.push("image removed".to_owned());
    }
    notes
}

fn text(release: &Release) -> String {
    let mut lines = Lines(String::new());
    lines.add("release", format!("v{}", release.number));
    lines.add("status", status_word(release.status));
    lines.add("message", release.message.as_deref().unwrap_or_default());
    lines.add("by", &release.created_by);
    lines.add("at", release.created_at.to_string());
    lines.add("operation", release.operation_id.to_string());
    lines.add(
        "restores",
        release.restores.map(|old| format!("v{old}")).unwrap_or_default(),
    );
    lines.add("digest", &release.digest);
    lines.add("image", &release.image);
    lines.add("kept", kept(release));
    if let Some(image) = &release.image_config {
        image_lines(&mut lines, image);
    }
    lines.add("memory", format!("{} MB", release.memory_mb));
    lines.add("strategy", release.strategy.word());
    lines.add("health path", &release.health_path);
    lines.add("release command", release.release_command.join(" "));
    lines.add("migrations", migrations(release.migrations.as_ref()));
    lines.map(
        "secrets",
        release
            .secret_versions
            .iter()
            .map(|(key, version)| (key, format!("version {version}"))),
    );
    lines.map(
        "variables",
        release
            .environment
            .iter()
            .map(|(name, value)| (name, value.clone())),
    );
    lines.0
}

fn image_lines(lines: &mut Lines, image: &ImageConfig) {
    lines.add("size", size(image.size_bytes));
    lines.add("platform", &image.platform);
    lines.add("entrypoint", image.entrypoint.join(" "));
    lines.add("command", image.command.join(" "));
    lines.add("user", &image.user);
    lines.add("folder", &image.working_dir);
    lines.map(
        "image variables",
        image
            .environment
            .iter()
            .map(|(name, value)| (name, value.clone())),
    );
}

fn kept(release: &Release) -> String {
    match release.collected_at {
        Some(at) => format!("no: its image was removed from the registry at {at}"),
        None if release.pinned => "yes, pinned".to_owned(),
        None => "yes, while it is one of the last 20".to_owned(),
    }
}

fn migrations(mark: Option<&MigrationMark>) -> String {
    let Some(mark) = mark else {
        return "no release command ran".to_owned();
    };
    let mut text = match (mark.finished, mark.reported, mark.applied.as_slice()) {
        (false, ..) => {
            return "the release command did not end well; what it had done until then stays".to_owned();
        }
        (_, false, _) => return "the release command did not say what it changed".to_owned(),
        (_, _, []) => "none applied".to_owned(),
        (_, _, applied) => format!("applied {}", applied.join(", ")),
    };
    if let Some(total) = mark.total {
        text.push_str(&format!(" ({total} in all)"));
    }
    if !mark.irreversible.is_empty() {
        text.push_str(&format!(
            "; cannot be taken back: {}",
            mark.irreversible.join(", ")
        ));
    }
    text
}

/// `name: value`, aligned; what is empty is left out.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            let name = format!("{name}:");
            self.0.push_str(&format!("{name:<17} {value}\n"));
        }
    }

    fn map<'a>(&mut self, name: &str, entries: impl Iterator<Item = (&'a String, String)>) {
        for (at, (key, value)) in entries.enumerate() {
            let name = if at == 0 {
                format!("{name}:")
            } else {
                String::new()
            };
            self.0.push_str(&format!("{name:<17} {key} = {value}\n"));
        }
    }
}

/// The status as people and documents write it.
const fn status_word(status: ReleaseStatus) -> &'static str {
    match status {
        ReleaseStatus::Pending => "pending",
        ReleaseStatus::Active => "active",
        ReleaseStatus::Superseded => "superseded",
        ReleaseStatus::Failed => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::ReleaseNumber;

    #[test]
    fn a_release_is_written_with_and_without_its_letter() {
        assert_eq!("v3".parse(), Ok(ReleaseNumber(3)));
        assert_eq!("12".parse(), Ok(ReleaseNumber(12)));
        for wrong in ["", "v", "v0", "0", "-1", "v1.2", "latest"] {
            assert!(wrong.parse::<ReleaseNumber>().is_err(), "{wrong}");
        }
    }
}
