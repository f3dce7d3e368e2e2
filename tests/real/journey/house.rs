//! A server, a home and a project of one test's own; everything that they made on the engine goes with them.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rexpect::session::{Options, PtySession, spawn_with_options};
use serde_json::Value;
use systemprompt::server::clock::Clock;

use crate::docker_available;
use crate::journey::load::request;

const PROGRAM: &str = env!("CARGO_BIN_EXE_systemprompt");
/// A busy machine needs this long to push and start a release.
const PATIENCE: Duration = Duration::from_secs(180);
const BASES: [&str; 2] = [
    "debian:bookworm-slim",
    "systemprompt-standin/debian:bookworm-slim",
];

/// What a command said.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Said {
    pub(crate) fn whole(&self) -> String {
        format!("exit {:?}\n{}\n{}", self.code, self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.whole());
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

/// A server that runs, a home that is signed in to it, and a copy of this repository's sample.
pub(crate) struct House {
    folder: tempfile::TempDir,
    server: Child,
    api_port: u16,
    edge_port: u16,
    base: &'static str,
}

impl House {
    /// Why a journey cannot be made here, if so.
    pub(crate) fn available() -> Result<(), String> {
        docker_available()?;
        base()
            .map(drop)
            .ok_or_else(|| format!("neither of {BASES:?} is there; run `scripts/setup`"))
    }

    /// Starts the server, signs in, lays out the project.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        lay_out(&folder.path().join("project"));
        let [api_port, edge_port, tls_port] = free_ports();
        let [a, b, ..] = Clock::system().random::<8>();
        let log = File::create(folder.path().join("server.log")).expect("a log");
        let server = Command::new(PROGRAM)
            .arg("serve")
            .args(["--data-dir".into(), folder.path().join("data")])
            .args(["--listen", &format!("127.0.0.1:{api_port}")])
            .args(["--edge-http-port", &edge_port.to_string()])
            .args(["--edge-https-port", &tls_port.to_string()])
            // Addresses that neither another test nor a server of this machine has.
            .args(["--address-pool", &format!("10.{}.{b}.0/24", 128 + a % 64)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let base = base().expect("asked before");
        let house = Self {
            folder,
            server,
            api_port,
            edge_port,
            base,
        };
        let deadline = Instant::now() + PATIENCE;
        while request("GET", api_port, "localhost", "/livez").is_err() {
            assert!(
                Instant::now() < deadline,
                "the server does not come up: {}",
                house.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let arguments = "server token create --account operator@localhost --scope read,deploy,secrets,admin --expires-in 1h";
        let token = house.run(&arguments.split(' ').collect::<Vec<_>>()).ok().stdout;
        house
            .feed(&["login", "--with-token", "--store", "file"], &token)
            .ok();
        house
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    pub(crate) fn edge_port(&self) -> u16 {
        self.edge_port
    }

    pub(crate) fn url(&self, label: &str) -> String {
        format!("http://{label}.localhost:{}", self.edge_port)
    }

    /// The body of the tenant's answer.
    #[track_caller]
    pub(crate) fn get(&self, label: &str, path: &str) -> String {
        let host = format!("{label}.localhost:{}", self.edge_port);
        let answer = request("GET", self.edge_port, &host, path).expect("the edge answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.project().join(path)).expect(path)
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let mut file = File::create(self.project().join(path)).expect(path);
        file.write_all(text.as_bytes()).expect(path);
    }

    pub(crate) fn append(&self, path: &str, text: &str) {
        self.put(path, &(self.read(path) + text));
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.folder.path().join("home");
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .current_dir(self.project())
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env(
                "SYSTEMPROMPT_API_URL",
                format!("http://127.0.0.1:{}", self.api_port),
            )
            .env("SYSTEMPROMPT_DATA_DIR", self.folder.path().join("data"))
            .env("NO_COLOR", "1")
            .env_remove("CI")
            .env_remove("SYSTEMPROMPT_TOKEN");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::null())
            .output()
            .expect("the program runs")
            .into()
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        child.wait_with_output().expect("it ends").into()
    }

    pub(crate) fn deploy(&self, more: &[&str]) -> Said {
        let base = format!("BASE_IMAGE={}", self.base);
        let arguments = ["deploy", "--tenant", "acme", "--yes", "--build-arg", &base];
        self.run(&arguments.iter().chain(more).copied().collect::<Vec<_>>())
    }

    pub(crate) fn on_terminal(&self, arguments: &[&str]) -> PtySession {
        let options = Options::new()
            .timeout_ms(Some(60_000))
            .strip_ansi_escape_codes(true);
        spawn_with_options(self.command(arguments), options).expect("a terminal")
    }

    pub(crate) fn tenant_id(&self, name: &str) -> String {
        let shown = self.run(&["tenant", "show", name, "--json"]).ok();
        let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
        shown["tenant"]["id"].as_str().expect("an id").to_owned()
    }

    /// The container that serves.
    pub(crate) fn machine(&self, label: &str) -> String {
        let name = format!("name=sp-{}-{label}-v", self.instance());
        let names = self.docker(&["ps", "--filter", &name, "--format", "{{.Names}}"]);
        names.lines().next().expect("a machine").to_owned()
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("docker runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn instance(&self) -> String {
        let instance = std::fs::read_to_string(self.folder.path().join("data/instance")).unwrap_or_default();
        instance.trim().to_owned()
    }

    /// What the engine still has of one tenant.
    pub(crate) fn leftovers(&self, label: &str) -> Vec<String> {
        let start = format!("sp-{}-{label}", self.instance());
        self.all()
            .into_iter()
            .map(|(_, name)| name)
            .filter(|name| name.starts_with(&start))
            .collect()
    }

    /// What the engine has of this installation: kind and name.
    fn all(&self) -> Vec<(&'static str, String)> {
        let filter = format!("label=io.systemprompt.instance={}", self.instance());
        let mut all = Vec::new();
        for (kind, list) in [
            ("container", ["ps", "--all", "--format", "{{.Names}}"].as_slice()),
            ("network", &["network", "ls", "--format", "{{.Name}}"]),
            ("volume", &["volume", "ls", "--format", "{{.Name}}"]),
        ] {
            let arguments: Vec<&str> = list.iter().copied().chain(["--filter", &filter]).collect();
            all.extend(
                self.docker(&arguments)
                    .lines()
                    .map(|name| (kind, name.to_owned())),
            );
        }
        all
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Without the lines that only say that a request was answered.
            let log = self.log();
            let told = log
                .lines()
                .filter(|line| !line.contains("\"message\":\"answered\""));
            eprintln!("----- server -----\n{}", told.collect::<Vec<_>>().join("\n"));
        }
        let _ = Command::new("kill")
            .args(["-TERM", &self.server.id().to_string()])
            .status();
        let _ = self.server.wait();
        if self.instance().is_empty() {
            return;
        }
        let images = format!("127.0.0.1:{}/systemprompt-images", self.api_port);
        for (kind, name) in self.all() {
            match kind {
                "container" => self.docker(&["rm", "--force", "--volumes", &name]),
                kind => self.docker(&[kind, "rm", &name]),
            };
        }
        for image in self.docker(&["image", "ls", "--quiet", &images]).lines() {
            self.docker(&["image", "rm", "--force", image]);
        }
    }
}

fn base() -> Option<&'static str> {
    let has = |image: &&str| crate::answers("docker", &["image", "inspect", image]).is_ok();
    BASES.into_iter().find(has)
}

/// This repository's sample, with the program that is under test.
fn lay_out(project: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        "config.yaml",
        "Dockerfile",
        "Dockerfile.dockerignore",
        "entrypoint.sh",
    ] {
        copy(
            &root.join(".systemprompt").join(file),
            &project.join(".systemprompt").join(file),
        );
    }
    for folder in ["services", "web/dist"] {
        copy(&root.join(folder), &project.join(folder));
    }
    copy(Path::new(PROGRAM), &project.join("target/debug/systemprompt"));
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
    // The program is large; a second name for it is enough where the disk is the same.
    if std::fs::hard_link(from, to).is_err() || !from.starts_with(Path::new(PROGRAM)) {
        let _ = std::fs::remove_file(to);
        std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}

fn free_ports() -> [u16; 3] {
    // Held together, so that they differ.
    let listeners = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its number").port())
}
