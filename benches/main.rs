//! Every wait that a person feels, measured against what they would use instead and against the floor.
//!
//! `scripts/bench [NAME…] [--quick] [--write]`: without names every bench. `--write` puts the figures into
//! `docs/performance.md`; `--quick` takes few rounds and small inputs, to see that all runs.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints what it measured, and writes files that only it reads"
)]

mod harness;
mod waits;

use std::process::ExitCode;

use clap::Parser;

use crate::harness::contest::{Measured, Outcome};
use crate::harness::{report, run};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Few rounds and small inputs.
    pub(crate) quick: bool,
}

impl Scale {
    /// As many rounds as wanted, or a few.
    pub(crate) fn rounds(self, whole: usize) -> usize {
        if self.quick { whole.min(3) } else { whole }
    }
}

#[derive(Parser)]
struct Args {
    /// Which benches; all without a name
    names: Vec<String>,
    /// Few rounds and small inputs
    #[arg(long)]
    quick: bool,
    /// Put the figures into docs/performance.md
    #[arg(long, conflicts_with = "quick")]
    write: bool,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every goal was reached.
fn measure(args: &Args) -> Outcome<bool> {
    let known: Vec<&str> = waits::ALL.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = args.names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no bench `{unknown}`; there are: {}", known.join(", ")).into());
    }
    let scale = Scale { quick: args.quick };
    let mut missed: Vec<String> = Vec::new();
    for (name, bench) in waits::ALL {
        if !args.names.is_empty() && !args.names.iter().any(|one| one == name) {
            continue;
        }
        println!("\n== {name}");
        let all = bench(scale).map_err(|error| format!("{name}: {error}"))?;
        all.iter().for_each(|one| print!("{}", report::table(one)));
        missed.extend(all.iter().flat_map(missing));
        if args.write {
            report::document(run::root(), name, &all)?;
        }
    }
    if !missed.is_empty() {
        println!("\nNot reached:\n  {}", missed.join("\n  "));
    }
    Ok(missed.is_empty())
}

fn missing(measured: &Measured) -> Vec<String> {
    let missed = measured.goals().filter(|(_, reached)| !reached);
    missed
        .map(|(row, _)| format!("{} against {}", measured.title, row.name))
        .collect()
}
