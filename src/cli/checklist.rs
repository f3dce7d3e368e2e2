//! `systemprompt server check`: the security checklist, as pass or fail.

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::serve::failed;
use crate::cli::ui::Table;
use crate::server::config::ServeFlags;
use crate::server::{Finding, Server, Standing};

/// Flags of `systemprompt server check`: those of `systemprompt serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: ServeFlags,
}

/// Checks everything, and fails when something is careless.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let findings = Server::check(args.flags, context.clock()).await.map_err(failed)?;
    let count = |standing| {
        findings
            .iter()
            .filter(|finding| finding.standing == standing)
            .count()
    };
    let (passed, careless) = (count(Standing::Pass), count(Standing::Fail));
    let document = json!({
        "passed": passed,
        "failed": careless,
        "to_judge": count(Standing::Judge),
        "checks": findings,
    });
    context.ui().result(&document, || table(&findings))?;
    if careless == 0 {
        context
            .ui()
            .success(format!("{passed} checks passed, none failed"));
        return Ok(());
    }
    Err(CliError::failed(format!("{careless} of {} checks failed", findings.len())).code("check-failed"))
}

fn table(findings: &[Finding]) -> String {
    let mut table = Table::new(&["", "check", "what is so, and what mends it"]);
    for finding in findings {
        let word = match finding.standing {
            Standing::Pass => "pass",
            Standing::Fail => "FAIL",
            Standing::Judge => "look",
            Standing::Skip => "-",
        };
        let what = match &finding.mend {
            Some(mend) => format!("{}; {mend}", finding.what),
            None => finding.what.clone(),
        };
        table.row([word.to_owned(), finding.name.to_owned(), what]);
    }
    table.render()
}
