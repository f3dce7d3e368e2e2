//! Deploys of a large project on the real Docker Engine: with nothing changed, and with one file changed.

use std::cell::Cell;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::place::{Place, Tenant, missing};
use crate::harness::run::{floor, quietly, root, version};
use crate::harness::tree::Shape;

const UNCHANGED_AGAINST_SCRIPT: f64 = 0.05;
const CHANGED_AGAINST_SCRIPT: f64 = 0.7;
/// The same files, ten times as many beside them that are left out.
const MORE_IGNORED: f64 = 1.3;
/// Files that changed so lately are read again.
const SETTLES: Duration = Duration::from_millis(2500);
/// Where a machine may have a docker client that speaks to BuildKit without more.
const WITH_BUILDKIT: &str = "/usr/bin/docker";

/// Two waits, and how the first grows with files that are left out.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    if let Some(why) = missing() {
        println!("skipped: {why}");
        return Ok(Vec::new());
    }
    let place = Place::start()?;
    let shape = Shape::of(if scale.quick { 5_000 } else { 50_000 });
    let few = Shape { ignored: 0, ..shape };
    let (ours, theirs) = (place.tenant("ours", shape)?, place.tenant("script", shape)?);
    let bare = place.tenant("bare", few)?;
    for tenant in [&ours, &bare] {
        tenant.deploy()?;
    }
    quietly(&mut script(&theirs, &[]))?;
    theirs.await_mark("first")?;
    theirs.await_rest()?;
    std::thread::sleep(SETTLES);
    Ok(vec![
        unchanged(&ours, &theirs, scale.rounds(7))?,
        ignored(&ours, &bare, scale.rounds(31))?,
        changed(&ours, &theirs, scale.rounds(7))?,
    ])
}

/// The steps that people typed. Our own program and the script have a tenant each, so that neither finds what the other
/// has built.
fn script(tenant: &Tenant<'_>, environment: &[(&str, &str)]) -> Command {
    let docker = if environment.is_empty() {
        "docker"
    } else {
        WITH_BUILDKIT
    };
    let place = tenant.place;
    let mut command = Command::new("sh");
    command
        .arg(root().join("benches/waits/script.sh"))
        .args([docker, &place.url, &place.token, &tenant.id, place.address()])
        .current_dir(&tenant.project)
        .env("DOCKER_CONFIG", place.folder().join("docker"))
        .env("DOCKER_BUILDKIT", "0")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Variables of a command.
type Environment = &'static [(&'static str, &'static str)];

/// How the ways of the script are called: the engine's own builder, and BuildKit where a client here speaks to it.
fn ways() -> Vec<(String, Role, Environment)> {
    let client = version("docker").unwrap_or_default();
    let mut ways: Vec<(String, Role, Environment)> =
        vec![(format!("the script, {client}"), Role::Baseline, &[])];
    if let Some(client) = version(WITH_BUILDKIT) {
        ways.push((
            format!("the script with BuildKit, {client}"),
            Role::Beside,
            &[("DOCKER_BUILDKIT", "1")],
        ));
    }
    ways
}

fn unchanged(ours: &Tenant<'_>, theirs: &Tenant<'_>, rounds: usize) -> Outcome<Measured> {
    let least = floor("unchanged")?;
    let mut contest = Contest::new("A deploy of which nothing has changed", Unit::Seconds)
        .timed(Role::Ours, "systemprompt deploy", || {
            let said = ours.deploy()?;
            if said["unchanged"] == true {
                Ok(())
            } else {
                Err(format!("it deployed: {said}").into())
            }
        })
        .timed(Role::Floor, "every file looked at, a HEAD and a POST", || {
            quietly(Command::new(&least).arg(ours.place.address()).arg(&ours.project))
        });
    for (name, role, environment) in ways() {
        contest = contest.with(role, name.clone(), move || {
            let begun = Instant::now();
            quietly(&mut script(theirs, environment))?;
            let took = begun.elapsed().as_secs_f64();
            // It releases the same image again, which is not waited for.
            theirs.await_rest()?;
            Ok(took)
        });
        if role == Role::Baseline {
            contest = contest.goal(name, UNCHANGED_AGAINST_SCRIPT);
        }
    }
    contest.run(rounds)
}

fn ignored(ours: &Tenant<'_>, bare: &Tenant<'_>, rounds: usize) -> Outcome<Measured> {
    let without = "the same project without them";
    Contest::new(
        "A deploy of which nothing has changed: what ignored files cost",
        Unit::Seconds,
    )
    .timed(Role::Ours, "nine ignored files for each that is sent", || {
        ours.deploy().map(drop)
    })
    .timed(Role::Baseline, without, || bare.deploy().map(drop))
    .goal(without, MORE_IGNORED)
    .run(rounds)
}

fn changed(ours: &Tenant<'_>, theirs: &Tenant<'_>, rounds: usize) -> Outcome<Measured> {
    let number = Cell::new(0);
    let next = || {
        number.set(number.get() + 1);
        format!("change-{}", number.get())
    };
    let engine = "the engine's build of it alone, with BuildKit";
    let mut contest = Contest::new(
        "One file changed, until the tenant's address answers with it",
        Unit::Seconds,
    )
    .with(Role::Ours, "systemprompt deploy", || {
        let mark = next();
        ours.mark(&mark)?;
        let said = ours.place.folder().join("deploy.txt");
        let begun = Instant::now();
        let mut child = ours
            .ours(&["deploy", "--tenant", "ours", "--yes", "--json"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said)?)
            .spawn()?;
        if let Err(error) = ours.await_mark(&mark) {
            let told = std::fs::read_to_string(&said).unwrap_or_default();
            return Err(format!("the deploy said: {told}\n{error}").into());
        }
        let took = begun.elapsed().as_secs_f64();
        child.wait()?;
        Ok(took)
    })
    .timed(Role::Floor, engine, || build(&ours.project));
    for (name, role, environment) in ways() {
        contest = contest.with(role, name.clone(), move || {
            let mark = format!("script-{:?}", Instant::now());
            theirs.mark(&mark)?;
            let begun = Instant::now();
            quietly(&mut script(theirs, environment))?;
            theirs.await_mark(&mark)?;
            let took = begun.elapsed().as_secs_f64();
            theirs.await_rest()?;
            Ok(took)
        });
        if role == Role::Baseline {
            contest = contest.goal(name, CHANGED_AGAINST_SCRIPT);
        }
    }
    contest
        .note(
            "What bounds it: the engine. BuildKit's session sends the file alone; then come the step that copies the \
             files, the push of its layer, the release command's container, the new one's start, and the switch.",
        )
        .run(rounds)
}

/// The layer of the changed file made anew, by the engine's better builder.
fn build(project: &Path) -> Outcome<()> {
    std::fs::write(project.join("mark.txt"), format!("floor-{:?}", Instant::now()))?;
    let client = if version(WITH_BUILDKIT).is_some() {
        WITH_BUILDKIT
    } else {
        "docker"
    };
    let mut command = Command::new(client);
    command
        .args(["build", "--quiet", "--tag", "systemprompt-bench/floor:1", "."])
        .current_dir(project)
        .env("DOCKER_BUILDKIT", "1");
    quietly(&mut command)
}
