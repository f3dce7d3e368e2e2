//! How much memory the command line takes at most: deploying a large build context, and looking at a million files.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::Scale;
use crate::harness::contest::{Contest, Measured, Outcome, Role, Unit};
use crate::harness::place::{Place, missing};
use crate::harness::run::floor;
use crate::harness::sink::Sink;
use crate::harness::tree::{self, Shape};

const MOST_MB: f64 = 60.0;
const LIMIT: &str = "what it may take";
const CONTEXT_BYTES: usize = 2_000_000_000;
const CHUNK_BYTES: usize = 1_000_000;

/// Two ways to be large.
pub(crate) fn bench(scale: Scale) -> Outcome<Vec<Measured>> {
    let mut all = vec![many(scale)?];
    match missing() {
        Some(why) => println!("skipped: {why}"),
        None => all.push(large(scale)?),
    }
    Ok(all)
}

/// A context of 2 GB, most of which the engine gets and the image does not need.
fn large(scale: Scale) -> Outcome<Measured> {
    let place = Place::start()?;
    let tenant = place.tenant(
        "large",
        Shape {
            included: 100,
            ignored: 0,
            brings_back: false,
        },
    )?;
    let bytes = if scale.quick {
        CONTEXT_BYTES / 10
    } else {
        CONTEXT_BYTES
    };
    std::fs::create_dir_all(tenant.project.join("media"))?;
    for number in 0..20 {
        let mut file = std::fs::File::create(tenant.project.join(format!("media/{number}")))?;
        let chunk = vec![number; CHUNK_BYTES];
        for _ in 0..bytes / 20 / CHUNK_BYTES {
            file.write_all(&chunk)?;
        }
    }
    let mut number = 0;
    Contest::new(
        format!(
            "`systemprompt deploy` of a context of {:.1} GB, most memory held",
            bytes as f64 / 1e9
        ),
        Unit::Megabytes,
    )
    .with(Role::Ours, "systemprompt deploy", || {
        number += 1;
        tenant.mark(&format!("change-{number}"))?;
        most(&mut tenant.ours(&["deploy", "--tenant", "large", "--yes", "--quiet"]))
    })
    .with(Role::Baseline, LIMIT, || Ok(MOST_MB))
    .goal(LIMIT, 1.0)
    .run(scale.rounds(2))
}

/// A million files of which nine of ten are left out, sent to an engine that throws them away.
fn many(scale: Scale) -> Outcome<Measured> {
    let files = if scale.quick { 50_000 } else { 1_000_000 };
    let (sink, tree) = (Sink::start()?, tree::make(Shape::of(files))?);
    let program = floor("context")?;
    Contest::new(
        format!("A context of {files} files, most memory held"),
        Unit::Megabytes,
    )
    .with(Role::Ours, "systemprompt's library", || {
        most(
            Command::new(&program)
                .arg("ours")
                .arg(sink.socket())
                .arg(tree.path()),
        )
    })
    .with(Role::Baseline, LIMIT, || Ok(MOST_MB))
    .goal(LIMIT, 1.0)
    .run(scale.rounds(2))
}

/// Runs it to its end; the most memory it held, in MB.
fn most(command: &mut Command) -> Outcome<f64> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let path = format!("/proc/{}/status", child.id());
    let mut most: f64 = 0.0;
    loop {
        if let Some(status) = child.try_wait()? {
            return if status.success() {
                Ok(most)
            } else {
                Err(format!("it ended with {status}").into())
            };
        }
        // The kernel keeps the peak: only what happens after the last look is missed.
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kilobytes) = line.and_then(|line| line.trim().strip_suffix(" kB")) {
            most = most.max(kilobytes.trim().parse::<f64>()? * 1024.0 / 1e6);
        }
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}
