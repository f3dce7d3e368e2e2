//! `systemprompt secrets export`: a `.env` file of the values that this project has, and the names of the others.
//!
//! The server never gives a value out again, to nobody: what is written is what this machine was given or was filled in
//! in the profile's `secrets.json`. Names without a value here stand there as comments, so that nothing is left out silently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::process::Command;

use crate::api::secret::SecretText;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::secrets::dotenv;
use crate::cli::tenant::pick::{Picked, pick};
use crate::cli::ui::Prompt;
use crate::workspace::file::{self, Mode};

/// What the keys of `secrets.json` are called as variables.
const NAMES: [(&str, &str); 6] = [
    ("database_url", "DATABASE_URL"),
    ("jwt_secret", "JWT_SECRET"),
    ("anthropic", "ANTHROPIC_API_KEY"),
    ("openai", "OPENAI_API_KEY"),
    ("gemini", "GEMINI_API_KEY"),
    ("github", "GITHUB_TOKEN"),
];

/// Flags of `systemprompt secrets export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Write to this file, which only you can read, instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show values on a terminal, or replace a file that is there, without being asked
    #[arg(long, short)]
    yes: bool,
}

/// What is exported.
#[derive(Default)]
struct Export {
    /// By variable.
    values: BTreeMap<String, SecretText>,
    /// Set on the server, with no value here: the name, and which version it has there.
    elsewhere: BTreeMap<String, u32>,
}

/// Exports secrets.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let picked = pick(context, args.tenant.as_deref()).await?;
    let export = collect(context, &picked).await?;
    allow(context, &args).await?;
    let missing: Vec<&String> = export.elsewhere.keys().collect();
    let Some(path) = &args.output else {
        let document = json!({ "values": export.values, "missing": missing });
        return context.ui().result(&document, || export.text());
    };
    file::write(path, export.text().as_bytes(), Mode::Private)?;
    if seen_by_git(path).await {
        context.ui().warning(format!(
            "git would add `{}`: name it in `.gitignore`",
            path.display()
        ));
    }
    let keys: Vec<&String> = export.values.keys().collect();
    let without = match missing.len() {
        0 => String::new(),
        count => format!("; named there without a value: {count}"),
    };
    context.ui().done(
        &json!({ "file": path, "keys": keys, "missing": missing }),
        format!("{} values in `{}`{without}", keys.len(), path.display()),
    )
}

async fn collect(context: &Context, picked: &Picked) -> Result<Export, CliError> {
    let mut export = Export::default();
    let profile = match picked {
        Picked::Cloud(id) => {
            let listed = context.client()?.list_secrets(id).await?;
            let listed = listed
                .into_iter()
                .map(|secret| (secret.key.to_string(), secret.version));
            export.elsewhere = listed.collect();
            id.to_string()
        }
        Picked::Local(entry) => entry.name.to_string(),
    };
    if let Some(workspace) = context.find_workspace() {
        for (key, value) in workspace.read_secrets(&profile)? {
            let Some(name) = variable(&key) else {
                context.ui().warning(format!(
                    "`{key}` of `secrets.json` is left out: it is no name of a variable"
                ));
                continue;
            };
            export.elsewhere.remove(&name);
            export.values.insert(name, value);
        }
    }
    if export.values.is_empty() && export.elsewhere.is_empty() {
        return Err(
            CliError::new(Kind::NotFound, "this project has no secrets of the tenant")
                .hint("set one with `systemprompt secrets set KEY`"),
        );
    }
    Ok(export)
}

/// Nobody sees values by mistake, and no file is lost by mistake.
async fn allow(context: &Context, args: &Args) -> Result<(), CliError> {
    let ui = context.ui();
    if args.yes {
        return Ok(());
    }
    let (question, refusal) = match &args.output {
        Some(path) if path.exists() => {
            let shown = path.display();
            (
                format!("Replace `{shown}`?"),
                CliError::new(Kind::Conflict, format!("`{shown}` is there already"))
                    .hint("replace it with `--yes`, or name another file"),
            )
        }
        None if ui.result_is_seen() => (
            "Show the values on this terminal?".to_owned(),
            CliError::usage("the values would be shown on this terminal")
                .hint("write them to a file that only you can read: `--output FILE`")
                .hint("show them all the same with `--yes`"),
        ),
        _ => return Ok(()),
    };
    if ui.interactive() && ui.ask_confirm(Prompt::new(&question, "--yes"), false).await? {
        return Ok(());
    }
    Err(refusal)
}

/// The variable of a key of `secrets.json`; `None` where it can be none.
fn variable(key: &str) -> Option<String> {
    if let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == key) {
        return Some((*name).to_owned());
    }
    let name = key.to_ascii_uppercase();
    let begins_well = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    let goes_well = name
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    (begins_well && goes_well).then_some(name)
}

/// Whether the file is in a repository whose rules do not leave it out.
async fn seen_by_git(path: &Path) -> bool {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name() else {
        return false;
    };
    let asked = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["check-ignore", "--quiet", "--no-index", "--"])
        .arg(name)
        .output()
        .await;
    // 0: left out. 1: not. 128: no repository.
    asked.is_ok_and(|output| output.status.code() == Some(1))
}

impl Export {
    fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.values {
            text.push_str(&dotenv::entry(name, value.expose()));
        }
        if !self.elsewhere.is_empty() {
            text.push_str("# set on the server, which gives no value out again:\n");
        }
        for (name, version) in &self.elsewhere {
            text.push_str(&format!("# {name}= (version {version})\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Export, variable};
    use crate::api::secret::SecretText;

    #[test]
    fn keys_become_variables() {
        assert_eq!(variable("openai").as_deref(), Some("OPENAI_API_KEY"));
        assert_eq!(variable("database_url").as_deref(), Some("DATABASE_URL"));
        assert_eq!(variable("stripe_key").as_deref(), Some("STRIPE_KEY"));
        assert_eq!(variable("a-b"), None);
        assert_eq!(variable("1a"), None);
        assert_eq!(variable(""), None);
    }

    #[test]
    fn names_without_values_are_comments() {
        let export = Export {
            values: [("A".to_owned(), SecretText::new("b c"))].into(),
            elsewhere: [("STRIPE_KEY".to_owned(), 3)].into(),
        };
        assert_eq!(
            export.text(),
            "A='b c'\n# set on the server, which gives no value out again:\n# STRIPE_KEY= (version 3)\n"
        );
    }
}
