//! The checks of `systemprompt doctor`.

use std::path::Path;

use tokio::process::Command;

use crate::cli::context::{Context, server_name};
use crate::cli::doctor::{Check, Status};
use crate::cli::error::CliError;
use crate::image::context::Context as BuildContext;
use crate::image::endpoint::EngineEnvironment;
use crate::image::engine::Engine;
use crate::workspace::{FOLDER, Workspace};

/// What git must not see.
const SECRETS: [&str; 3] = ["credentials.json", "profiles/x/secrets.json", "docker/x.env"];

pub(super) async fn engine(environment: &EngineEnvironment) -> Check {
    match Engine::connect(environment).await {
        Ok(engine) => {
            let info = engine.info();
            let builder = if info.buildkit {
                "BuildKit"
            } else {
                "the classic builder"
            };
            let endpoint = engine.endpoint();
            let detail = format!(
                "Docker Engine {} (API {}, {}, {builder}) at {}",
                info.version, info.api_version, info.platform, endpoint.host
            );
            Check::ok("engine", detail)
        }
        Err(error) => Check::fail("engine", error),
    }
}

pub(super) async fn server(context: &Context) -> Check {
    let look = async {
        let client = context.client()?;
        Ok::<_, CliError>((client.server().to_owned(), client.health().await?))
    };
    match look.await {
        Ok((server, health)) if health.status == "ok" => {
            Check::ok("server", format!("{server}, version {}", health.version))
        }
        Ok((server, health)) => {
            let parts = [
                ("database", &health.database),
                ("provider", &health.provider),
                ("registry", &health.registry),
                ("edge", &health.edge),
            ];
            let broken = parts.iter().filter(|(_, state)| !state.starts_with("ok"));
            let broken: Vec<String> = broken.map(|(part, state)| format!("{part}: {state}")).collect();
            Check::warn(
                "server",
                format!("{server} is {}: {}", health.status, broken.join(", ")),
                "its operator sees more in the server's log",
            )
        }
        Err(error) => Check::fail("server", error),
    }
}

pub(super) async fn sign_in(context: &Context) -> Check {
    let look = async { Ok::<_, CliError>(context.client()?.me().await?) };
    match look.await {
        Ok(me) => Check::ok(
            "sign-in",
            format!("{} by {}", me.email, me.credential.replace('_', " ")),
        ),
        Err(error) => Check::fail("sign-in", error),
    }
}

pub(super) async fn keyring(context: &Context) -> Check {
    let look = async {
        let credentials = context.credentials()?;
        credentials.check_keyring().await?;
        Ok::<_, CliError>(())
    };
    match look.await {
        Ok(()) => Check::ok("keyring", "keeps sessions of this machine"),
        Err(error) => {
            let kept = match (
                context.environment().variable("SYSTEMPROMPT_TOKEN"),
                context.server_url(),
            ) {
                (Some(_), _) => Some("the token comes from `SYSTEMPROMPT_TOKEN`".to_owned()),
                (None, Ok(url)) => kept_in_file(context, &server_name(&url)).await,
                (None, Err(_)) => None,
            };
            match kept {
                Some(kept) => Check::ok("keyring", format!("none here, and none needed: {kept}")),
                None => Check::warn(
                    "keyring",
                    error.message(),
                    "keep the session in a file with `systemprompt login --store file`",
                ),
            }
        }
    }
}

async fn kept_in_file(context: &Context, server: &str) -> Option<String> {
    let store = context.credentials().ok()?;
    store.find(server).await.ok()??;
    Some(format!("the session is in `{}`", store.file_path().display()))
}

pub(super) fn workspace(context: &Context) -> Check {
    let look = || {
        let workspace = context.workspace()?;
        workspace.read_config()?;
        let tenants = workspace.read_tenants()?;
        let tenant = match tenants.default_tenant() {
            Some(tenant) => format!("tenant `{}`", tenant.name),
            None => format!("{} tenants, none selected", tenants.tenants.len()),
        };
        Ok::<_, CliError>(format!("{}, {tenant}", workspace.folder().display()))
    };
    match look() {
        Ok(detail) => Check::ok("workspace", detail),
        Err(error) => Check::fail("workspace", error),
    }
}

/// Asks git itself, since its rules come from many files. What is committed already it would go on seeing.
pub(super) async fn git_ignore(workspace: &Workspace) -> Check {
    let name = "git-ignore";
    let paths: Vec<String> = SECRETS.iter().map(|path| format!("{FOLDER}/{path}")).collect();
    let git = |arguments: Vec<String>| async move {
        let output = Command::new("git")
            .arg("-C")
            .arg(workspace.root())
            .args(arguments)
            .output()
            .await
            .ok()?;
        Some((
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ))
    };
    let inside = git(vec!["rev-parse".to_owned(), "--is-inside-work-tree".to_owned()]).await;
    if !matches!(inside, Some((Some(0), _))) {
        return Check::ok(name, "this project is not in a git repository");
    }
    let tracked = git(["ls-files", "--", FOLDER].map(str::to_owned).to_vec()).await;
    let tracked = tracked.map(|(_, text)| text).unwrap_or_default();
    let committed: Vec<&str> = tracked.lines().filter(|path| is_secret(path)).collect();
    if !committed.is_empty() {
        let listed = committed.join(" ");
        return Check::fail(
            name,
            CliError::failed(format!("git has secrets in it: {}", committed.join(", ")))
                .hint(format!("take them out with `git rm --cached {listed}`"))
                .hint("and replace them: `systemprompt tenant edit --rotate-credentials`; history keeps what was committed"),
        );
    }
    let mut open = Vec::new();
    for path in paths {
        let arguments = ["check-ignore", "--quiet", "--no-index", path.as_str()]
            .map(str::to_owned)
            .to_vec();
        if !matches!(git(arguments).await, Some((Some(0), _))) {
            open.push(path);
        }
    }
    if open.is_empty() {
        return Check::ok(name, "git does not see what is secret");
    }
    let error = CliError::failed(format!("git would add {}", open.join(", ")));
    Check::fail(
        name,
        error.hint("`systemprompt init` writes the rules into `.systemprompt/.gitignore`"),
    )
}

fn is_secret(path: &str) -> bool {
    let Some((_, inside)) = path.rsplit_once(&format!("{FOLDER}/")) else {
        return false;
    };
    inside == "credentials.json"
        || (inside.starts_with("profiles/") && inside.ends_with("/secrets.json"))
        || (inside.starts_with("docker/") && Path::new(inside).extension().is_some_and(|end| end == "env"))
}

pub(super) fn artifacts(workspace: &Workspace) -> Check {
    let name = "artifacts";
    let config = match workspace.read_config() {
        Ok(config) => config,
        Err(error) => return Check::fail(name, error),
    };
    let missing = workspace.missing_artifacts(&config);
    if missing.is_empty() {
        return Check::ok(name, format!("all {} are there", config.artifacts.len() + 1));
    }
    let paths: Vec<String> = missing
        .iter()
        .map(|artifact| artifact.path.display().to_string())
        .collect();
    let error = CliError::failed(format!("not built: {}", paths.join(", ")));
    let hinted = missing.iter().fold(error, |error, artifact| {
        error.hint(format!(
            "build `{}` with `{}`",
            artifact.path.display(),
            artifact.build
        ))
    });
    Check::fail(name, hinted)
}

pub(super) async fn dockerfile(workspace: &Workspace) -> Check {
    let name = "dockerfile";
    let workspace = workspace.clone();
    let look = move || {
        let config = workspace.read_config()?;
        let root = workspace.root().join(&config.context);
        let root = root.canonicalize().unwrap_or(root);
        let dockerfile = workspace.root().join(&config.dockerfile);
        let dockerfile = dockerfile.canonicalize().unwrap_or(dockerfile);
        let files = BuildContext::scan(&root, &dockerfile)?;
        files.dockerfile().check_secrets()?;
        Ok::<_, CliError>(files.report(&config.build_args, config.target.as_deref()))
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(report)) => {
            let size = console_size(report.total_bytes);
            let detail = format!("the build context has {} files, {size}", report.file_count);
            match report.warnings.first() {
                None => Check::ok(name, detail),
                Some(_) => Check {
                    name,
                    status: Status::Warn,
                    detail,
                    hints: report.warnings.clone(),
                },
            }
        }
        Ok(Err(error)) => Check::fail(name, error),
        Err(error) => Check::fail(
            name,
            CliError::failed("the walk over the build context broke off").because(error),
        ),
    }
}

fn console_size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn knows_what_git_must_not_have() {
        assert!(is_secret(".systemprompt/credentials.json"));
        assert!(is_secret("apps/a/.systemprompt/profiles/prod/secrets.json"));
        assert!(is_secret(".systemprompt/docker/dev.env"));
        assert!(!is_secret(".systemprompt/docker/dev.yaml"));
        assert!(!is_secret(".systemprompt/profiles/prod/profile.yaml"));
        assert!(!is_secret("secrets.json"));
    }
}
