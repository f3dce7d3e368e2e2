//! `systemprompt doctor`: everything that deploying needs, each with its mend.

mod checks;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};

/// Flags of `systemprompt doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Docker Engine [env: `DOCKER_HOST`]
    #[arg(long, value_name = "ADDRESS")]
    docker_host: Option<String>,
    /// The Docker context [env: `DOCKER_CONTEXT`]
    #[arg(long, value_name = "NAME", conflicts_with = "docker_host")]
    docker_context: Option<String>,
}

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// It works without, not as well.
    Warn,
    Fail,
}

/// One part that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was seen.
    detail: String,
    /// What mends it.
    hints: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Document {
    ok: bool,
    checks: Vec<Check>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            detail: detail.into(),
            hints: Vec::new(),
        }
    }

    fn warn(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Warn,
            detail: detail.into(),
            hints: vec![hint.into()],
        }
    }

    fn fail(name: &'static str, error: impl Into<CliError>) -> Self {
        let error = error.into();
        let mut detail = error.message().to_owned();
        for line in error.causes().iter().chain(error.detail_lines()) {
            detail.push_str("; ");
            detail.push_str(line);
        }
        Self {
            name,
            status: Status::Fail,
            detail,
            hints: error.hints().to_vec(),
        }
    }
}

/// Looks at every part. The exit code is 1 when one of them fails.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let environment = context.engine_environment(args.docker_host, args.docker_context);
    let (engine, server, sign_in, keyring) = tokio::join!(
        checks::engine(&environment),
        checks::server(context),
        checks::sign_in(context),
        checks::keyring(context),
    );
    let mut all = vec![engine, server, sign_in, keyring, checks::workspace(context)];
    if let Some(workspace) = context.find_workspace() {
        all.push(checks::git_ignore(workspace).await);
        all.push(checks::artifacts(workspace));
        all.push(checks::dockerfile(workspace).await);
    }
    let failed = all.iter().filter(|check| check.status == Status::Fail).count();
    let document = Document {
        ok: failed == 0,
        checks: all,
    };
    context.ui().result(&document, || text(&document.checks))?;
    match failed {
        0 => Ok(()),
        1 => Err(CliError::new(Kind::Failed, "one check failed").code("not-healthy")),
        count => Err(CliError::new(Kind::Failed, format!("{count} checks failed")).code("not-healthy")),
    }
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        text.push_str(&format!("{status:<5} {:<11} {}\n", check.name, check.detail));
        for hint in &check.hints {
            // Further lines of a hint stand below its first.
            let hint = hint.replace('\n', &format!("\n{:21}", ""));
            text.push_str(&format!("{:17} hint: {hint}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Check, text};
    use crate::cli::error::CliError;

    #[test]
    fn every_failure_has_its_mend_below_it() {
        let error = CliError::failed("failed to reach it")
            .because("refused")
            .hint("start it");
        let checks = [
            Check::ok("engine", "here"),
            Check::fail("server", error),
            Check::warn("keyring", "none", "x"),
        ];
        assert_eq!(
            text(&checks),
            "ok    engine      here\n\
             FAIL  server      failed to reach it; refused\n                  hint: start it\n\
             warn  keyring     none\n                  hint: x\n"
        );
    }
}
