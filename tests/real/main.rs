//! What only the real thing can show: Docker Engine, registries' clients, a browser, processes that are killed.
//!
//! A test whose real thing is not on this machine says so on one line and passes; CI has them all.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test stops at the first thing that is not as it must be, and says what it skips"
)]

mod browser;
mod chromium;
mod databases;
mod edge;
mod gate;
mod image;
mod installation;
mod journey;
mod local_tenant;
#[path = "../ports/mod.rs"]
mod ports;
mod provider;
mod runtime;
mod visitors;

use std::process::{Command, Stdio};

/// `Err` says why tests that need the Docker Engine are skipped.
pub(crate) fn docker_available() -> Result<(), String> {
    answers("docker", &["version", "--format", "{{.Server.Version}}"])
}

/// `Err` says why tests that need this program are skipped.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "`{program}` answers: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("`{program}` cannot be run: {error}")),
    }
}

/// Leaves the test, saying why, when something real is not there.
#[macro_export]
macro_rules! need {
    ($check:expr) => {
        if let Err(reason) = $check {
            eprintln!("skipped: {reason}");
            return;
        }
    };
}
