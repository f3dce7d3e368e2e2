//! The only writer: results on stdout, everything else on stderr. Quiet, JSON and "no terminal" are decided here.

pub mod progress;
mod prompt;
mod spark;
mod table;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use console::style;
use serde::Serialize;

use crate::cli::error::{CliError, Kind};
use crate::cli::ui::progress::Reporter;

pub use crate::cli::ui::prompt::Prompt;
pub use crate::cli::ui::spark::sparkline;
pub use crate::cli::ui::table::Table;

/// What decides how things are written.
#[derive(Clone, Debug, Default)]
pub struct UiOptions {
    /// One JSON document on stdout.
    pub json: bool,
    /// Nothing but results and errors.
    pub quiet: bool,
    /// Never ask.
    pub no_input: bool,
    /// No color, whatever the terminal can do.
    pub no_color: bool,
}

/// The only writer.
#[derive(Debug)]
pub struct Ui {
    json: bool,
    quiet: bool,
    interactive: bool,
    result_is_seen: bool,
    terminal: prompt::Terminal,
    reporter: Arc<Reporter>,
}

impl Ui {
    /// Looks at the three streams once.
    #[must_use]
    pub fn new(options: &UiOptions) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        console::set_colors_enabled(!options.no_color && io::stdout().is_terminal());
        console::set_colors_enabled_stderr(!options.no_color && stderr_is_terminal);
        Self {
            json: options.json,
            quiet: options.quiet,
            result_is_seen: io::stdout().is_terminal(),
            interactive: stderr_is_terminal && io::stdin().is_terminal() && !options.no_input,
            terminal: prompt::Terminal::default(),
            reporter: Arc::new(Reporter::new(options.quiet, stderr_is_terminal)),
        }
    }

    /// Whether results are JSON.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.json
    }

    /// Whether somebody is there who can be asked.
    #[must_use]
    pub const fn interactive(&self) -> bool {
        self.interactive
    }

    /// Whether results go to a terminal, where people see them.
    #[must_use]
    pub const fn result_is_seen(&self) -> bool {
        self.result_is_seen
    }

    /// The result of a command: the document with `--json`, else the text.
    pub fn result<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json {
            let json = serde_json::to_string_pretty(document)
                .map_err(|error| CliError::failed("failed to write the result as JSON").because(error))?;
            self.write_data(&json)
        } else {
            let text = text();
            if text.is_empty() {
                Ok(())
            } else {
                self.write_data(text.trim_end_matches('\n'))
            }
        }
    }

    /// What a command did: the document with `--json`, else a line on stderr.
    pub fn done<T: Serialize>(&self, document: &T, text: impl AsRef<str>) -> Result<(), CliError> {
        if self.json {
            return self.result(document, String::new);
        }
        self.success(text);
        Ok(())
    }

    /// One entry of a stream: one JSON object in one line with `--json`, else the text.
    pub fn entry<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json {
            let json = serde_json::to_string(document)
                .map_err(|error| CliError::failed("failed to write an entry as JSON").because(error))?;
            self.write_data(&json)
        } else {
            self.write_data(&text())
        }
    }

    fn write_data(&self, text: &str) -> Result<(), CliError> {
        let write = || {
            let mut stdout = io::stdout().lock();
            writeln!(stdout, "{text}")?;
            stdout.flush()
        };
        self.reporter.suspend(write).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                CliError::new(Kind::BrokenPipe, "the reader of the output has gone")
            } else {
                CliError::failed("failed to write to standard output").because(error)
            }
        })
    }

    /// Something a person may want to know; nothing with `--quiet`.
    pub fn status(&self, text: impl AsRef<str>) {
        if !self.quiet {
            self.write_aside(text.as_ref());
        }
    }

    /// Something that is done, marked as such.
    pub fn success(&self, text: impl AsRef<str>) {
        self.status(format!(
            "{} {}",
            style("ok:").for_stderr().green().bold(),
            text.as_ref()
        ));
    }

    /// Something that may hurt later; shown even with `--quiet`.
    pub fn warning(&self, text: impl AsRef<str>) {
        self.write_aside(&format!(
            "{} {}",
            style("warning:").for_stderr().yellow().bold(),
            text.as_ref()
        ));
    }

    /// Something that the person must see to go on; shown even with `--quiet`.
    pub fn notice(&self, text: impl AsRef<str>) {
        self.write_aside(text.as_ref());
    }

    /// The next command.
    pub fn hint(&self, text: impl AsRef<str>) {
        self.status(format!(
            "{} {}",
            style("hint:").for_stderr().cyan().bold(),
            text.as_ref()
        ));
    }

    fn write_aside(&self, text: &str) {
        // Nothing can be done about a stderr that is gone, and the command's work goes on without it.
        self.reporter.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{text}");
        });
    }

    /// Where work on an image, and steps of an operation, are reported to.
    #[must_use]
    pub fn progress(&self) -> Arc<Reporter> {
        Arc::clone(&self.reporter)
    }

    /// Writes the error, puts the terminal back, answers the exit code.
    #[must_use]
    pub fn finish(&self, outcome: Result<(), CliError>) -> ExitCode {
        self.reporter.clear();
        self.terminal.restore();
        let Err(error) = outcome else {
            return ExitCode::SUCCESS;
        };
        if error.kind == Kind::Interrupted && io::stderr().is_terminal() {
            // The terminal has written `^C` where the cursor was.
            self.write_aside("");
        }
        if error.kind != Kind::BrokenPipe {
            self.report(&error);
        }
        ExitCode::from(error.kind.exit_code())
    }

    fn report(&self, error: &CliError) {
        if self.json {
            self.write_aside(&error.document().to_string());
            return;
        }
        let mut text = format!(
            "{} {}",
            style("error:").for_stderr().red().bold(),
            error.message()
        );
        for cause in error.causes() {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        for line in error.detail_lines() {
            text.push_str(&format!("\n  | {line}"));
        }
        if let Some(id) = error.request_id() {
            text.push_str(&format!("\n  request: {id}"));
        }
        for hint in error.hints() {
            text.push_str(&format!("\n{} {hint}", style("hint:").for_stderr().cyan().bold()));
        }
        self.write_aside(&text);
    }
}
