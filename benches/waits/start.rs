//! Starting a command: the program's own words, a list from local files, and one from a server.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::run::{floor, ours, quietly, version};
use crate::harness::seed::{Database, accounts, tenants, token};
use crate::harness::served::Folder;

const AGAINST_BARE: f64 = 1.5;
const AGAINST_DOCKER: f64 = 0.2;
const AGAINST_CURL: f64 = 1.5;
const BARE: &str = "bare clap program";

/// Commands that every user types often.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let rounds = scale.rounds(101);
    Ok(vec![
        word("--version", rounds)?,
        word("--help", rounds)?,
        list(rounds)?,
        asked(rounds)?,
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

/// A server on this machine is asked for its twenty tenants.
fn asked(rounds: usize) -> Outcome<Measured> {
    let folder = Folder::new()?;
    let database = Database::in_folder(folder.path());
    database.prepare(folder.path())?;
    database.run(&[accounts(1, 1, "read"), tenants(20, 1, "pending")].concat())?;
    let served = database.serve(folder.path(), &[])?;
    let (token, curl) = (token(1), version("curl").ok_or("curl is not installed")?);
    // Its header comes from a file: arguments are seen by everybody.
    let header = folder.path().join("header");
    std::fs::write(&header, format!("Authorization: Bearer {token}"))?;
    Contest::new(
        "`systemprompt tenant list --json` from a server, 20 tenants",
        Unit::Seconds,
    )
    .timed(Role::Ours, "systemprompt", || {
        quietly(
            Command::new(ours())
                .args(["tenant", "list", "--json"])
                .env("SYSTEMPROMPT_API_URL", &served.url)
                .env("SYSTEMPROMPT_TOKEN", &token)
                .current_dir(folder.path()),
        )
    })
    .timed(Role::Baseline, curl.clone(), || {
        quietly(
            Command::new("curl")
                .args(["--silent", "--fail", "--header"])
                .arg(format!("@{}", header.display()))
                .arg(format!("{}/api/v1/tenants", served.url)),
        )
    })
    .goal(curl, AGAINST_CURL)
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
