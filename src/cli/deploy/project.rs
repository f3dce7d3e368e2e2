//! What a deploy is made from: config.yaml under the flags, the files of the build context, their fingerprint.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::release::Strategy;
use crate::cli::context::Context;
use crate::cli::deploy::Args;
use crate::cli::error::{CONTEXT_CHANGED, CliError, Kind};
use crate::cli::ui::Prompt;
use crate::image::context::{Context as BuildContext, LARGE_BYTES};
use crate::image::dockerfile::BuildArgs;
use crate::image::fingerprint::{self, BuildInputs};
use crate::workspace::Workspace;
use crate::workspace::config::Config;

/// config.yaml with the flags over it.
#[derive(Clone, Debug)]
pub(super) struct Project {
    pub(super) config: Config,
    root: Option<PathBuf>,
    pub(super) cache: PathBuf,
    is_asked: bool,
}

/// The files of the build context, seen once.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) files: BuildContext,
    pub(super) fingerprint: String,
}

/// How often files may change under a deploy before it gives up.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    const MOST: u32 = 3;
    /// Longer after each attempt: an editor or a compiler that writes is done soon.
    const PAUSE: Duration = Duration::from_millis(200);

    /// Says that a file changed, and waits a moment; any other error, and the last of these, is given back.
    pub(super) async fn again(&mut self, context: &Context, error: CliError) -> Result<(), CliError> {
        self.0 += 1;
        if error.word() != CONTEXT_CHANGED || self.0 == Self::MOST {
            return Err(error);
        }
        let (next, most) = (self.0 + 1, Self::MOST);
        context
            .ui()
            .status(format!("{}; attempt {next} of {most}", error.message()));
        tokio::time::sleep(Self::PAUSE * self.0).await;
        Ok(())
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_build_arg(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like `NAME=VALUE`".to_owned()),
    }
}

impl Project {
    /// Reads config.yaml; for a build, everything that it names must be there.
    pub(super) fn resolve(context: &Context, args: &Args) -> Result<Self, CliError> {
        // An image that exists can be released from anywhere.
        let workspace = match (context.find_workspace(), &args.image) {
            (None, Some(_)) => None,
            (Some(workspace), _) => Some(workspace),
            (None, None) => Some(context.workspace()?),
        };
        let mut config = workspace
            .map(Workspace::read_config)
            .transpose()?
            .unwrap_or_default();
        if let (Some(workspace), None, false) = (workspace, &args.image, args.skip_build) {
            check_artifacts(workspace, &config)?;
        }
        config.build_args.extend(args.build_arg.iter().cloned());
        config.target = args.target.clone().or(config.target);
        config.platform = args.platform.clone().or(config.platform);
        Ok(Self {
            config,
            root: workspace.map(|workspace| workspace.root().to_owned()),
            cache: workspace
                .map(|workspace| workspace.folder().join("cache"))
                .unwrap_or_default(),
            is_asked: !args.yes,
        })
    }

    /// Values for `ARG` lines.
    pub(super) fn build_args(&self) -> &BuildArgs {
        &self.config.build_args
    }

    /// Walks the build context once, refuses a Dockerfile that names secrets, takes the fingerprint. Walks again when a
    /// file changes under it.
    pub(super) async fn scan(&self, context: &Context) -> Result<Scanned, CliError> {
        let mut tries = Tries::default();
        loop {
            let project = self.clone();
            let work = tokio::task::spawn_blocking(move || project.scan_now());
            let scanned = work.await.map_err(|error| {
                CliError::failed("the walk over the build context broke off").because(error)
            })?;
            match scanned {
                Ok((scanned, notes)) => {
                    for note in notes {
                        context.ui().status(note);
                    }
                    return Ok(scanned);
                }
                Err(error) => tries.again(context, error).await?,
            }
        }
    }

    /// Says what people should know of the context that is about to be sent, and asks before a large one is.
    pub(super) async fn confirm(&self, context: &Context, files: &BuildContext) -> Result<(), CliError> {
        let report = files.report(self.build_args(), self.config.target.as_deref());
        for warning in &report.warnings {
            context.ui().warning(warning);
        }
        let is_large = report.total_bytes > LARGE_BYTES;
        if !is_large || !self.is_asked || !context.ui().interactive() {
            return Ok(());
        }
        let prompt = Prompt::new("Send all of that to the engine?", "--yes");
        if context.ui().ask_confirm(prompt, true).await? {
            return Ok(());
        }
        Err(CliError::new(Kind::Interrupted, "nothing was built"))
    }

    fn scan_now(&self) -> Result<(Scanned, Vec<String>), CliError> {
        let root = self.root.clone().unwrap_or_default();
        let folder = real(&root.join(&self.config.context))?;
        let dockerfile = real(&root.join(&self.config.dockerfile))?;
        let files =
            BuildContext::scan(&folder, &dockerfile).map_err(|error| at(Kind::BuildFailed, error.into()))?;
        let notes = files
            .dockerfile()
            .check_secrets()
            .map_err(|error| at(Kind::BuildFailed, error.into()))?;
        let mut release = vec![self.config.health_path.as_str()];
        release.extend(self.config.release_command.iter().flatten().map(String::as_str));
        if self.config.strategy == Strategy::Recreate {
            release.push("recreate");
        }
        let inputs = BuildInputs {
            args: &self.config.build_args,
            target: self.config.target.as_deref(),
            platform: self.config.platform.as_deref(),
            release: &release,
        };
        let fingerprint = fingerprint::take(&files, inputs, &self.cache.join("files"))
            .map_err(|error| at(Kind::BuildFailed, error.into()))?
            .value;
        Ok((Scanned { files, fingerprint }, notes))
    }
}

/// An error that has no kind of its own gets that of the phase it happened in.
pub(super) fn at(kind: Kind, mut error: CliError) -> CliError {
    if error.kind == Kind::Failed {
        error.kind = kind;
    }
    error
}

fn real(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().map_err(|error| {
        CliError::new(
            Kind::BuildFailed,
            format!("failed to find `{}`, which config.yaml names", path.display()),
        )
        .because(error)
        .hint("mend `context` or `dockerfile` in `.systemprompt/config.yaml`")
    })
}

fn check_artifacts(workspace: &Workspace, config: &Config) -> Result<(), CliError> {
    let missing = workspace.missing_artifacts(config);
    if missing.is_empty() {
        return Ok(());
    }
    let lines = missing
        .iter()
        .map(|artifact| format!("missing: {}", artifact.path.display()));
    let error = CliError::new(Kind::BuildFailed, "this project is not built yet")
        .code("not-built")
        .details(lines);
    Err(missing.iter().fold(error, |error, artifact| {
        error.hint(format!(
            "build `{}` with `{}`",
            artifact.path.display(),
            artifact.build
        ))
    }))
}

#[cfg(test)]
mod tests {
    use super::parse_build_arg;

    #[test]
    fn a_build_arg_has_a_name_and_any_value() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(parse_build_arg("A=b=c"), pair("A", "b=c"));
        assert_eq!(parse_build_arg("A="), pair("A", ""));
        assert!(parse_build_arg("A").is_err() && parse_build_arg("=b").is_err());
    }
}
