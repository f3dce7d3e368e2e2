//! The real program in a house of its own: a home and a project.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rexpect::session::{Options, PtySession, spawn_with_options};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_systemprompt");
/// Long enough for a busy machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a command said.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Said {
    /// Everything, as a snapshot holds it.
    pub(crate) fn whole(&self) -> String {
        let code = self
            .code
            .map_or_else(|| "signal".to_owned(), |code| code.to_string());
        format!(
            "exit: {code}\n----- stdout -----\n{}----- stderr -----\n{}",
            self.stdout, self.stderr
        )
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.whole());
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.whole()))
    }
}

/// A home and a project.
pub(crate) struct House {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl House {
    /// A home, and a project that is built.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let house = Self {
            folder,
            variables: Vec::new(),
        };
        for path in ["home", "my-project/.systemprompt"] {
            std::fs::create_dir_all(house.folder.path().join(path)).expect("folders");
        }
        house.put(".systemprompt/Dockerfile", "FROM scratch\n");
        house
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.folder.path().join("my-project")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.project().join(name)
    }

    /// Writes a file of the project.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        let mut file = std::fs::File::create(path).expect("a file");
        file.write_all(text.as_bytes()).expect("writes");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A variable of every command's environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let named = |(there, _): &&(String, String)| there == name;
        self.variables.iter().find(named).map(|(_, value)| value.as_str())
    }

    /// A variable of every command's environment from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(there, _)| there != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", path())
            .env("HOME", self.folder.path().join("home"))
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            // The keyring of whoever runs the tests is none of their business.
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments).output().expect("the program runs"))
    }

    /// Runs a command that reads `input`.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("writes");
        drop(stdin);
        said(child.wait_with_output().expect("the program ends"))
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program runs")
    }

    /// A shell script in the house; `PROGRAM` stands for the program.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.current_dir(self.project()).env_clear();
        for (name, value) in self.command(&[]).get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("PROGRAM", PROGRAM).args(["-c", script]);
        command
    }

    /// Runs a command on a terminal that echoes, as a person's does.
    pub(crate) fn on_terminal(&self, arguments: &[&str]) -> PtySession {
        self.on_terminal_with(arguments, true)
    }

    /// The same with escape codes kept or taken out.
    pub(crate) fn on_terminal_with(&self, arguments: &[&str], strip: bool) -> PtySession {
        let mut command = self.script(r#"stty sane; exec "$PROGRAM" "$@""#);
        command.arg("bash").args(arguments);
        let options = Options::new()
            .timeout_ms(Some(30_000))
            .strip_ansi_escape_codes(strip);
        spawn_with_options(command, options).expect("a terminal")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test finds `bash` and `git` where its caller does"
)]
fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// What a finished command said.
pub(crate) fn said(output: std::process::Output) -> Said {
    Said {
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        code: output.status.code(),
    }
}

/// Waits for a child, but not for ever.
pub(crate) fn finish(child: Child) -> Said {
    finish_within(child, PATIENCE)
}

/// Waits for a child that has its reasons.
pub(crate) fn finish_within(mut child: Child, patience: Duration) -> Said {
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut stderr = child.stderr.take().expect("a pipe");
    let out = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let err = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child") {
            break status;
        }
        if began.elapsed() > patience {
            let _ = child.kill();
            panic!("the command did not end: {}", err.join().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Said {
        stdout: out.join().expect("the reader"),
        stderr: err.join().expect("the reader"),
        code: status.code(),
    }
}
