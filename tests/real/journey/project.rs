//! A home and a project of its own for one test: this repository's sample, packed as `scripts/demo` packs it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rexpect::session::{Options, PtySession, spawn_with_options};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_systemprompt");
/// The last line of the sample's Dockerfile: what serves.
const SERVE: &str = r#"CMD ["systemprompt", "services", "serve", "--foreground"]"#;
/// What serves in its place in a release that never gets ready.
const BROKEN: &str = r#"CMD ["sh", "-c", "echo the flux capacitor is missing; exit 3"]"#;
/// Long enough for a busy machine; a command that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a command said.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
}

impl Said {
    pub(crate) fn whole(&self) -> String {
        format!(
            "exit {:?} after {:?}\n----- stdout -----\n{}----- stderr -----\n{}",
            self.code, self.took, self.stdout, self.stderr
        )
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.whole());
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.whole()))
    }
}

/// A home, and a project in it.
pub(crate) struct Project {
    folder: tempfile::TempDir,
    api: Option<String>,
}

impl Project {
    /// The sample, ready to be deployed.
    pub(crate) fn sample() -> Self {
        let project = Self::empty();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in [
            ".systemprompt/Dockerfile",
            ".systemprompt/Dockerfile.dockerignore",
            ".systemprompt/entrypoint.sh",
            ".systemprompt/.gitignore",
            "services",
            "web/dist",
        ] {
            copy(&repository.join(name), &project.path(name));
        }
        let config = std::fs::read_to_string(repository.join(".systemprompt/config.yaml")).expect("config");
        let base = crate::image::base().expect("checked before");
        let told = config.replace("build_args:\n", &format!("build_args:\n  BASE_IMAGE: {base}\n"));
        assert_ne!(told, config, "the sample's config.yaml has build arguments");
        project.put(".systemprompt/config.yaml", &told);
        let program = project.path("target/debug/systemprompt");
        std::fs::create_dir_all(program.parent().expect("a parent")).expect("folders");
        // Without its symbols half as much is built and pushed; where there is no `strip`, all of it is.
        let strip = Command::new("strip")
            .arg("-o")
            .arg(&program)
            .arg(PROGRAM)
            .output();
        if !strip.is_ok_and(|output| output.status.success()) {
            copy(Path::new(PROGRAM), &program);
        }
        project
    }

    /// A project with nothing but its workspace folder.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["home", "shop/.systemprompt"] {
            std::fs::create_dir_all(folder.path().join(path)).expect("folders");
        }
        Self { folder, api: None }
    }

    /// From now on commands talk to this server.
    pub(crate) fn talk_to(&mut self, api: &str) {
        self.api = Some(api.to_owned());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("shop").join(name)
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

    /// A change that makes another image.
    pub(crate) fn change(&self, mark: &str) {
        self.put("web/dist/mark.txt", mark);
    }

    /// From now on the image's program ends as soon as it starts; its migrations run all the same.
    pub(crate) fn break_it(&self) {
        self.replace(SERVE, BROKEN);
    }

    /// Takes `break_it` back.
    pub(crate) fn mend_it(&self) {
        self.replace(BROKEN, SERVE);
    }

    fn replace(&self, from: &str, to: &str) {
        let name = ".systemprompt/Dockerfile";
        let text = self.read(name);
        assert!(text.contains(from), "{text}");
        self.put(name, &text.replace(from, to));
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.path(""))
            .env_clear()
            .envs(inherited())
            .env("HOME", self.folder.path().join("home"))
            .env("TERM", "xterm")
            .env("NO_COLOR", "1")
            // The keyring of whoever runs the tests is none of their business.
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent")
            .stdin(Stdio::null());
        if let Some(api) = &self.api {
            command.env("SYSTEMPROMPT_API_URL", api);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.feed(arguments, "")
    }

    /// Runs a command that reads `input`.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> Said {
        self.start(arguments, input).finish()
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str], input: &str) -> Running {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("writes");
        drop(stdin);
        Running::of(child)
    }

    /// Runs a command on a terminal that echoes, as a person's does.
    pub(crate) fn on_terminal(&self, arguments: &[&str]) -> PtySession {
        let mut command = Command::new("bash");
        command.current_dir(self.path("")).env_clear();
        for (name, value) in self.command(&[]).get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
            .env("PROGRAM", PROGRAM)
            .args(["-c", r#"stty sane; exec "$PROGRAM" "$@""#, "bash"])
            .args(arguments);
        let timeout = u64::try_from(PATIENCE.as_millis()).expect("a time");
        let options = Options::new()
            .timeout_ms(Some(timeout))
            .strip_ansi_escape_codes(true);
        spawn_with_options(command, options).expect("a terminal")
    }
}

/// A command that runs; what it says is read all the while.
pub(crate) struct Running {
    child: Child,
    began: Instant,
    stdout: Reader,
    stderr: Reader,
}

type Text = std::sync::Arc<std::sync::Mutex<Vec<u8>>>;

struct Reader {
    text: Text,
    thread: std::thread::JoinHandle<()>,
}

impl Reader {
    fn of(mut pipe: impl std::io::Read + Send + 'static) -> Self {
        let text = Text::default();
        let kept = text.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                kept.lock().expect("lock").extend_from_slice(&buffer[..count]);
            }
        });
        Self { text, thread }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("lock")).into_owned()
    }

    fn finish(self) -> String {
        self.thread.join().expect("the reader");
        let text = std::mem::take(&mut *self.text.lock().expect("lock"));
        String::from_utf8(text).expect("UTF-8")
    }
}

impl Running {
    fn of(mut child: Child) -> Self {
        let stdout = Reader::of(child.stdout.take().expect("a pipe"));
        let stderr = Reader::of(child.stderr.take().expect("a pipe"));
        Self {
            child,
            began: Instant::now(),
            stdout,
            stderr,
        }
    }

    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn says(&mut self, wanted: &str) {
        while !self.stderr.so_far().contains(wanted) {
            let ended = self.child.try_wait().expect("the child");
            assert!(
                ended.is_none() && self.began.elapsed() < PATIENCE,
                "it never said `{wanted}`: {}{}",
                self.stdout.so_far(),
                self.stderr.so_far()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end, but not for ever.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Said {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child") {
                break status;
            }
            if self.began.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("the command did not end: {}", self.stderr.so_far());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Said {
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
            code: status.code(),
            took: self.began.elapsed(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        for entry in std::fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
        return;
    }
    std::fs::create_dir_all(to.parent().expect("a parent")).expect("folders");
    std::fs::copy(from, to).expect("copies");
}

/// What a command needs of the caller's environment: its programs, and the way to the engine.
#[expect(
    clippy::disallowed_methods,
    reason = "a test finds programs and the engine where its caller does"
)]
fn inherited() -> Vec<(&'static str, std::ffi::OsString)> {
    ["PATH", "DOCKER_HOST", "XDG_RUNTIME_DIR"]
        .into_iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .collect()
}
