//! A build context: read, filtered, packed and sent to an engine that throws it away.

use std::path::Path;
use std::process::Command;

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::run::{floor, quietly, version};
use crate::harness::sink::Sink;
use crate::harness::tree::{self, Shape};

const AGAINST_CLIENT: f64 = 0.35;
const AGAINST_TAR: f64 = 1.3;
const TAR: &str = "a Rust program's tar of the same files";
/// Where a machine may have a second docker client, of the distribution.
const CLIENTS: [&str; 2] = ["/usr/bin/docker", "/usr/local/bin/docker"];

/// Three sizes, each without and with a rule that brings a file back.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let sizes: &[usize] = if scale.quick {
        &[5_000]
    } else {
        &[5_000, 50_000, 200_000]
    };
    let sink = Sink::start()?;
    let mut all = Vec::new();
    for files in sizes {
        let tree = tree::make(Shape::of(*files))?;
        for brings_back in [false, true] {
            tree::rules(tree.path(), brings_back)?;
            all.push(contest(
                &sink,
                tree.path(),
                (*files, brings_back),
                scale.rounds(11),
            )?);
        }
    }
    Ok(all)
}

fn contest(
    sink: &Sink,
    root: &Path,
    (files, brings_back): (usize, bool),
    rounds: usize,
) -> Outcome<Measured> {
    let program = floor("context")?;
    let run = |who: &str| quietly(Command::new(&program).arg(who).arg(sink.socket()).arg(root));
    // What is compared must be the same: the contexts are of one size, but for headers.
    run("ours")?;
    let ours = sink.taken();
    let rule = if brings_back {
        "with a `!` rule"
    } else {
        "no `!` rule"
    };
    let mut contest = Contest::new(format!("Context of {files} files, {rule}"), Unit::Seconds)
        .timed(Role::Ours, "systemprompt's library", || run("ours"))
        .timed(Role::Floor, TAR, || run("floor"))
        .goal(TAR, AGAINST_TAR)
        .note("The engine is a thread of the bench and takes its share of the processors.")
        .note("In the smallest tree nearly all is the program of 80 MB on its way into a socket, for everybody.");
    for client in CLIENTS {
        let Some(name) = version(client) else { continue };
        contest = contest
            .timed(Role::Baseline, name.clone(), move || {
                quietly(&mut docker(client, sink, root))?;
                alike(ours, sink.taken())
            })
            .goal(name, AGAINST_CLIENT);
    }
    contest.run(rounds)
}

fn docker(client: &str, sink: &Sink, root: &Path) -> Command {
    let mut command = Command::new(client);
    command
        .args(["build", "--quiet", "."])
        .current_dir(root)
        .env("DOCKER_HOST", sink.host())
        .env("DOCKER_BUILDKIT", "0");
    command
}

fn alike(ours: u64, theirs: u64) -> Outcome<()> {
    if ours.abs_diff(theirs) * 10 < theirs {
        return Ok(());
    }
    Err(format!("we sent {ours} bytes, the docker client {theirs}").into())
}
