//! `systemprompt init`: packaging for any project, written once and then the project's own.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::Prompt;
use crate::workspace::file::{self, Mode};
use crate::workspace::{FOLDER, Workspace};

/// What is written, by its path in the project.
const FILES: &[(&str, &str)] = &[
    (
        ".systemprompt/config.yaml",
        include_str!("../../templates/workspace/config.yaml"),
    ),
    (
        ".systemprompt/Dockerfile",
        include_str!("../../templates/workspace/Dockerfile"),
    ),
    (
        ".systemprompt/Dockerfile.dockerignore",
        include_str!("../../templates/workspace/Dockerfile.dockerignore"),
    ),
    (
        ".systemprompt/entrypoint.sh",
        include_str!("../../templates/workspace/entrypoint.sh"),
    ),
    (
        "services/README.md",
        include_str!("../../templates/workspace/services/README.md"),
    ),
    (
        "services/migrations/0001_visits.sql",
        include_str!("../../templates/workspace/services/0001_visits.sql"),
    ),
];

/// Flags of `systemprompt init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The project's folder, unless the current one
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Replace files that are there and differ
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Written,
    Replaced,
    /// It is there and differs: the project's own.
    Kept,
    Unchanged,
}

#[derive(Debug, Serialize)]
struct Outcome {
    path: &'static str,
    action: Action,
}

#[derive(Debug, Serialize)]
struct Document {
    folder: PathBuf,
    files: Vec<Outcome>,
}

/// Writes the `.systemprompt` folder into a project.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let workspace = Workspace::at(project(context, args.folder.as_deref())?);
    let plan = plan(workspace.root(), args.force)?;
    let changes = plan
        .iter()
        .filter(|file| matches!(file.action, Action::Written | Action::Replaced))
        .count();
    if changes > 0 && !args.yes && context.ui().interactive() {
        for file in &plan {
            context.ui().status(line(file));
        }
        let question = format!("Write {changes} files into `{}`?", workspace.root().display());
        if !context
            .ui()
            .ask_confirm(Prompt::new(&question, "--yes"), true)
            .await?
        {
            return Err(CliError::new(Kind::Interrupted, "nothing was written"));
        }
    }
    write(&workspace, &plan)?;
    let files: Vec<Outcome> = plan;
    let kept = files.iter().any(|file| file.action == Action::Kept);
    let document = Document {
        folder: workspace.root().to_owned(),
        files,
    };
    context.ui().result(&document, || {
        document.files.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    if kept {
        context
            .ui()
            .hint("files that differ were kept; `systemprompt init --force` replaces them");
    }
    context
        .ui()
        .hint("name what your build makes in `.systemprompt/config.yaml`, then run `systemprompt doctor`");
    Ok(())
}

/// The folder to write into. A folder inside a project that has a workspace is most likely a slip.
fn project(context: &Context, folder: Option<&Path>) -> Result<PathBuf, CliError> {
    let current = context.environment().current_dir();
    let Some(folder) = folder else {
        return match Workspace::find(current) {
            Some(above) if above.root() != current => Err(CliError::usage(format!(
                "`{}` has a workspace already, and this folder is inside it",
                above.root().display()
            ))
            .hint("run `systemprompt init` there, or `systemprompt init .` for one of its own here")),
            _ => Ok(current.to_owned()),
        };
    };
    let folder = current.join(folder);
    let real = std::fs::canonicalize(&folder);
    real.ok().filter(|folder| folder.is_dir()).ok_or_else(|| {
        CliError::new(
            Kind::NotFound,
            format!("there is no folder `{}`", folder.display()),
        )
        .hint(format!("make it first: `mkdir -p {}`", folder.display()))
    })
}

fn plan(root: &Path, force: bool) -> Result<Vec<Outcome>, CliError> {
    let mut plan = Vec::with_capacity(FILES.len());
    // A project that has services of its own needs no example of them.
    let has_services = root.join("services").exists();
    for (path, text) in FILES {
        if has_services && !path.starts_with(FOLDER) {
            continue;
        }
        let action = match file::read(&root.join(path))? {
            None => Action::Written,
            Some(there) if there == *text => Action::Unchanged,
            Some(_) if force => Action::Replaced,
            Some(_) => Action::Kept,
        };
        plan.push(Outcome { path, action });
    }
    Ok(plan)
}

fn write(workspace: &Workspace, plan: &[Outcome]) -> Result<(), CliError> {
    workspace.ensure_ignored()?;
    for Outcome { path, action } in plan {
        if !matches!(action, Action::Written | Action::Replaced) {
            continue;
        }
        if let Some((_, text)) = FILES.iter().find(|(known, _)| known == path) {
            file::write(&workspace.root().join(path), text.as_bytes(), Mode::Open)?;
        }
    }
    Ok(())
}

fn line(file: &Outcome) -> String {
    let action = match file.action {
        Action::Written => "write",
        Action::Replaced => "replace",
        Action::Kept => "keep (differs)",
        Action::Unchanged => "keep (same)",
    };
    format!("{action:<15} {}", file.path)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Action, FILES, Outcome, plan, write};
    use crate::workspace::Workspace;

    fn actions(plan: &[Outcome]) -> Vec<(&str, Action)> {
        plan.iter().map(|file| (file.path, file.action)).collect()
    }

    #[test]
    fn this_repository_is_packed_as_its_template_says() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (path, text) in FILES.iter().filter(|(path, _)| {
            // Its own choices: another build profile.
            path.ends_with("Dockerfile") || path.ends_with("entrypoint.sh") || path.ends_with(".sql")
        }) {
            let own = std::fs::read_to_string(root.join(path)).expect(path);
            assert_eq!(own, *text, "{path} and its template say different things");
        }
    }

    #[test]
    fn what_is_there_is_kept_unless_forced() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        let first = plan(folder.path(), false).expect("a plan");
        assert!(first.iter().all(|file| file.action == Action::Written));
        write(&workspace, &first).expect("written");

        let own = folder.path().join(".systemprompt/Dockerfile");
        crate::workspace::file::write(&own, b"FROM scratch\n", crate::workspace::file::Mode::Open)
            .expect("edited");
        let second = plan(folder.path(), false).expect("a plan");
        assert!(actions(&second).contains(&(".systemprompt/Dockerfile", Action::Kept)));
        assert!(actions(&second).contains(&(".systemprompt/config.yaml", Action::Unchanged)));
        write(&workspace, &second).expect("nothing to do");
        assert_eq!(std::fs::read_to_string(&own).expect("kept"), "FROM scratch\n");

        let forced = plan(folder.path(), true).expect("a plan");
        assert!(actions(&forced).contains(&(".systemprompt/Dockerfile", Action::Replaced)));
        write(&workspace, &forced).expect("replaced");
        assert_eq!(std::fs::read_to_string(&own).expect("replaced"), FILES[1].1);
    }

    #[test]
    fn a_project_with_services_gets_no_example_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("services")).expect("services/");
        let plan = plan(folder.path(), false).expect("a plan");
        assert!(plan.iter().all(|file| file.path.starts_with(".systemprompt/")));
    }
}
