//! `systemprompt tenant create`: on a server, or a database on this machine.

use clap::ValueEnum;

use crate::api::name::TenantName;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::WaitArgs;
use crate::cli::tenant::{cloud, local};
use crate::cli::ui::Prompt;

/// Flags of `systemprompt tenant create`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Where it runs: on a server, or as a database on this machine
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    /// Its name: 3 to 40 of a-z, 0-9 and `-`
    #[arg(value_name = "NAME", id = "name_position")]
    name_position: Option<TenantName>,
    /// The same, as a flag
    #[arg(long = "name", value_name = "NAME", conflicts_with = "name_position")]
    name: Option<TenantName>,
    /// The plan, by name or price id
    #[arg(long)]
    pub(super) plan: Option<String>,
    /// Where the server shall run it
    #[arg(long)]
    pub(super) region: Option<String>,
    /// Its database
    #[arg(long, value_enum)]
    pub(super) database: Option<Database>,
    /// Memory in MB: 256, 512, 1024 or 2048
    #[arg(long, value_name = "MB")]
    pub(super) memory: Option<u32>,
    /// Image of a local database
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Do not check that the project was built
    #[arg(long)]
    pub(super) skip_build_check: bool,
    /// Print the link to the pay page instead of opening a browser
    #[arg(long)]
    pub(super) no_browser: bool,
    /// Take every default and do not ask, not even for a price
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Where a tenant runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// On a server
    Cloud,
    /// A database on this machine
    Local,
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Database {
    /// A PostgreSQL database of its own
    Postgres,
    /// An encrypted file on its volume
    Sqlite,
}

/// Creates a tenant.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match kind(context, &args).await? {
        Kind::Cloud => cloud::create(context, &args).await,
        Kind::Local => local::create(context, &args).await,
    }
}

async fn kind(context: &Context, args: &Args) -> Result<Kind, CliError> {
    if let Some(kind) = args.kind {
        return Ok(kind);
    }
    // What only makes sense in the cloud says that the cloud is meant.
    if args.yes || args.plan.is_some() || args.region.is_some() || !context.ui().interactive() {
        return Ok(Kind::Cloud);
    }
    let items = vec![
        "Cloud: on a server, with a hostname, secrets and releases".to_owned(),
        "Local: a PostgreSQL database on this machine".to_owned(),
    ];
    let place = context
        .ui()
        .ask_choice(Prompt::new("Which kind of tenant?", "--type cloud|local"), items)
        .await?;
    Ok(if place == 0 { Kind::Cloud } else { Kind::Local })
}

/// The name: from the flag, else asked for; the project's folder is the proposal.
pub(super) async fn name(context: &Context, args: &Args) -> Result<TenantName, CliError> {
    if let Some(name) = args.name_position.as_ref().or(args.name.as_ref()) {
        return Ok(name.clone());
    }
    let folder = context.workspace()?.root().file_name().unwrap_or_default();
    let proposal = proposed_name(&folder.to_string_lossy());
    if args.yes {
        return proposal.ok_or_else(|| {
            CliError::usage("the folder's name cannot be the tenant's name")
                .code("answer-missing")
                .hint("give it with `--name NAME`")
        });
    }
    context
        .ui()
        .ask_text(
            Prompt::new("Name of the tenant", "--name NAME"),
            proposal.map(|name| name.to_string()),
        )
        .await
}

/// A folder's name as a tenant's name, if that can be.
fn proposed_name(folder: &str) -> Option<TenantName> {
    let mut text = String::new();
    for character in folder.to_lowercase().chars() {
        match character {
            'a'..='z' | '0'..='9' => text.push(character),
            _ if text.ends_with('-') || text.is_empty() => {}
            _ => text.push('-'),
        }
    }
    text.truncate(40);
    text.trim_end_matches('-').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::proposed_name;

    #[test]
    fn a_folder_proposes_a_name() {
        let name = |folder| proposed_name(folder).map(|name| name.to_string());
        assert_eq!(name("My Project_2"), Some("my-project-2".to_owned()));
        assert_eq!(name("--x--"), None);
        assert_eq!(name("2024"), None);
    }
}
