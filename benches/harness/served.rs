//! Programs that serve, as children: ours with a data folder of its own, a floor, somebody else's.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;

use crate::harness::contest::Outcome;
use crate::harness::run::ours;

const STOPS_WITHIN: Duration = Duration::from_secs(12);

/// A program that serves; it is ended with this.
pub(crate) struct Served {
    child: Child,
    /// Where it answers, without a slash at its end.
    pub(crate) url: String,
}

impl Served {
    /// `systemprompt serve` over a folder, with tenants that are pretended.
    pub(crate) fn ours(data: &Path, more: &[&str]) -> Outcome<Self> {
        Self::ours_with(data, &[&["--provider", "fake"], more].concat())
    }

    /// `systemprompt serve` over a folder.
    pub(crate) fn ours_with(data: &Path, more: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(ours());
        command
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(more)
            .env_remove("RUST_LOG");
        let mut served = Self::start(command, data)?;
        let said: serde_json::Value = serde_json::from_str(&served.url)?;
        served.url = said["listening"]
            .as_str()
            .ok_or("the server does not say where it listens")?
            .to_owned();
        Ok(served)
    }

    /// A program that prints where it answers on its first line; its log goes into a file of that folder.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Outcome<Self> {
        let log = folder.join("log.txt");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let served = Self {
            child,
            url: line.trim().to_owned(),
        };
        if served.url.is_empty() {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("`{:?}` does not serve: {told}", command.get_program()).into());
        }
        Ok(served)
    }

    /// A program that answers on that port once it is ready.
    pub(crate) fn on_port(mut command: Command, port: u16) -> Outcome<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let served = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > Duration::from_secs(20) {
                return Err(format!("`{:?}` does not answer", command.get_program()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(served)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The memory that it holds now, in MB.
    pub(crate) fn memory(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes: f64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .ok_or("no VmRSS")?
            .trim()
            .parse()?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let asked = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        let began = Instant::now();
        while asked.is_ok() && began.elapsed() < STOPS_WITHIN {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A PostgreSQL server from Debian's package, gone with this; its disk is not waited for, by nobody's statements.
pub(crate) struct Postgres {
    child: Child,
    url: String,
}

impl Postgres {
    /// `None` where the machine has no PostgreSQL.
    pub(crate) fn start() -> Outcome<Option<Self>> {
        let root = crate::harness::run::root();
        let mut child = Command::new(root.join("scripts/with-postgres"))
            .args(["sh", "-c", "echo \"$TEST_POSTGRES_URL\"; cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        if line.trim().is_empty() {
            let _ = child.wait();
            return Ok(None);
        }
        Ok(Some(Self {
            child,
            url: line.trim().to_owned(),
        }))
    }

    /// A database of its own.
    pub(crate) fn database(&self, name: &str) -> Outcome<String> {
        let url = self.url.clone();
        let statement = format!("CREATE DATABASE {name}");
        block_on(async {
            use sqlx::{Connection as _, Executor as _};
            let mut connection = sqlx::postgres::PgConnection::connect(&url).await?;
            connection.execute(sqlx::AssertSqlSafe(statement)).await?;
            connection.close().await
        })?;
        let (server, _) = self.url.rsplit_once('/').ok_or("a URL without a database")?;
        Ok(format!("{server}/{name}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs to its end. Always on the same threads: a connection that is kept does not outlive those that it was opened on.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    static THREADS: LazyLock<Runtime> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        #[expect(clippy::expect_used, reason = "a bench without threads has nothing to say")]
        runtime.expect("threads")
    });
    THREADS.block_on(work)
}

/// A port that is free now.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A folder that is gone with this.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    /// On the disk of the build, not in a memory that somebody calls a disk.
    pub(crate) fn new() -> Outcome<Self> {
        let parent = ours().parent().map(PathBuf::from).unwrap_or_default();
        Ok(Self(
            tempfile::Builder::new().prefix(".bench-").tempdir_in(parent)?,
        ))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
