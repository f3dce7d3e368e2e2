//! Programs of this run: where ours is, and how long another takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::contest::Outcome;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program that is measured: the one that was built with the benches.
pub(crate) fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_systemprompt"))
}

/// A program that does the least work, built from `benches/floor`.
pub(crate) fn floor(name: &str) -> Outcome<PathBuf> {
    let beside = ours().parent().map(|folder| folder.join("examples").join(name));
    beside.filter(|path| path.exists()).ok_or_else(|| {
        format!("there is no `{name}`; build it with `scripts/bench`, which calls `cargo build --release --examples`").into()
    })
}

/// Runs it to its end with its output thrown away; an exit other than 0 is an error.
pub(crate) fn quietly(command: &mut Command) -> Outcome<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{:?}` ended with {status}", command.get_program()).into())
}

/// Whether a program can be found, and how it calls its version.
pub(crate) fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().to_owned())
}
