//! Starting a command: the program's own words, and a list from local files.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::run::{floor, ours, quietly, version};

const AGAINST_BARE: f64 = 1.5;
const AGAINST_DOCKER: f64 = 0.2;
const BARE: &str = "bare clap program";

/// Three commands that every user types often.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let rounds = scale.rounds(101);
    Ok(vec![
        word("--version", rounds)?,
        word("--help", rounds)?,
        list(rounds)?,
    ])
}

fn word(word: &'static str, rounds: usize) -> Outcome<Measured> {
    let bare = floor("bare")?;
    let mut contest = Contest::new(format!("`systemprompt {word}`"), Unit::Seconds)
        .timed(Role::Ours, "systemprompt", || {
            quietly(Command::new(ours()).arg(word))
        })
        .timed(Role::Floor, BARE, || quietly(Command::new(&bare).arg(word)))
        .goal(BARE, AGAINST_BARE);
    if let Some(docker) = version("docker") {
        contest = contest
            .timed(Role::Baseline, docker.clone(), || {
                quietly(Command::new("docker").arg(word))
            })
            .goal(docker, AGAINST_DOCKER);
    }
    contest.run(rounds)
}

fn list(rounds: usize) -> Outcome<Measured> {
    let project = project()?;
    let file = project.path().join(".systemprompt/tenants.json");
    let bare = floor("bare")?;
    Contest::new(
        "`systemprompt tenant list --local --json`, 20 tenants",
        Unit::Seconds,
    )
    .timed(Role::Ours, "systemprompt", || {
        quietly(
            Command::new(ours())
                .args(["tenant", "list", "--local", "--json"])
                .current_dir(project.path()),
        )
    })
    .timed(Role::Floor, BARE, || {
        quietly(
            Command::new(&bare)
                .args(["tenant", "list", "--json", "--file"])
                .arg(&file),
        )
    })
    .goal(BARE, AGAINST_BARE)
    .run(rounds)
}

/// A project with twenty local tenants.
fn project() -> Outcome<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    quietly(
        Command::new(ours())
            .args(["init", "--yes"])
            .current_dir(folder.path()),
    )?;
    let tenants: Vec<_> = (0..20).map(tenant).collect();
    let text = serde_json::to_vec_pretty(&json!({ "tenants": tenants }))?;
    std::fs::write(Path::new(folder.path()).join(".systemprompt/tenants.json"), text)?;
    Ok(folder)
}

fn tenant(number: u32) -> serde_json::Value {
    json!({
        "id": format!("ten_{number:026}"),
        "name": format!("tenant-{number}"),
        "type": "local",
        "created_at": "2026-01-01T00:00:00.000Z",
    })
}
