//! A PostgreSQL server for tests: the one that `TEST_POSTGRES_URL` names, or one of our own in a temporary folder.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

/// `nobody` on Debian and most others: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

/// What the machine has for a test, or `None` and a line that says why it has not.
pub(crate) fn or_skip<T>(had: Result<T, impl std::fmt::Display>) -> Option<T> {
    had.inspect_err(|reason| eprintln!("skipped: {reason}")).ok()
}

/// A running server.
pub(crate) struct Cluster {
    /// With `{database}` where the database's name goes.
    template: String,
    own: Option<(PathBuf, TempDir)>,
}

impl Cluster {
    /// The server of the environment, or a temporary one. `Err` says why there is none.
    #[expect(
        clippy::disallowed_methods,
        reason = "the test environment is no setting of the program"
    )]
    pub(crate) fn find_or_start() -> Result<Self, String> {
        match std::env::var("TEST_POSTGRES_URL") {
            Ok(url) => Self::given(&url),
            Err(_) => Self::start(),
        }
    }

    fn given(url: &str) -> Result<Self, String> {
        let mut url = url::Url::parse(url).map_err(|error| format!("TEST_POSTGRES_URL: {error}"))?;
        url.set_path("/{database}");
        Ok(Self {
            template: url.as_str().replace("%7B", "{").replace("%7D", "}"),
            own: None,
        })
    }

    /// A server of its own, which may be stopped and started.
    pub(crate) fn start() -> Result<Self, String> {
        let programs = programs().ok_or("TEST_POSTGRES_URL is not set and PostgreSQL is not installed")?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data).map_err(|error| error.to_string())?;
        if is_root() {
            for path in [folder.path(), &data] {
                chown(path, Some(NOBODY), Some(NOBODY)).map_err(|error| error.to_string())?;
            }
        }
        let text = |path: &Path| path.display().to_string();
        run(
            &programs,
            "initdb",
            &[
                "-D",
                &text(&data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "-N",
            ],
        )?;
        up(&programs, folder.path())?;
        let host = text(folder.path()).replace('/', "%2F");
        Ok(Self {
            template: format!("postgresql://postgres@{host}/{{database}}"),
            own: Some((programs, folder)),
        })
    }

    /// Where the server listens, when it is one of our own.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.own.as_ref().map(|(_, folder)| folder.path())
    }

    /// Stops the server as a crash does, without a word to its clients.
    pub(crate) fn crash(&self) {
        let (programs, folder) = self.own.as_ref().expect("a server of our own");
        let data = folder.path().join("data").display().to_string();
        run(programs, "pg_ctl", &["stop", "-D", &data, "-m", "immediate"]).expect("stopped");
    }

    /// Starts it again.
    pub(crate) fn up(&self) {
        let (programs, folder) = self.own.as_ref().expect("a server of our own");
        up(programs, folder.path()).expect("started");
    }

    /// Makes a database and answers its URL.
    pub(crate) async fn new_database(&self) -> String {
        self.make("").await.expect("created")
    }

    /// One whose texts are in the order of English words; an error where the server has no ICU, or is older than 15.
    pub(crate) async fn new_database_in_english(&self) -> Result<String, sqlx::Error> {
        self.make("LOCALE_PROVIDER icu ICU_LOCALE 'en-US'").await
    }

    async fn make(&self, options: &str) -> Result<String, sqlx::Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("store_{}_{number}", std::process::id());
        let mut admin = PgConnection::connect(&self.url("postgres"))
            .await
            .expect("connected");
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        admin.execute(AssertSqlSafe(drop)).await.expect("dropped");
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 {options}");
        admin.execute(AssertSqlSafe(create)).await?;
        Ok(self.url(&name))
    }

    /// The same for callers that cannot wait, or wait for nothing else.
    pub(crate) fn new_database_now(&self) -> String {
        now(self.new_database())
    }

    fn url(&self, database: &str) -> String {
        self.template.replace("{database}", database)
    }
}

/// Waits beside whatever the caller's thread waits for.
fn now<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let wait = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    };
    std::thread::scope(|scope| scope.spawn(wait).join().expect("done"))
}

/// Every row of every table of a database.
pub(crate) fn all_tables(url: &str) -> String {
    now(async {
        let mut connection = PgConnection::connect(url).await.expect("connected");
        let rows = "SELECT schema_to_xml('public', true, true, '')::text";
        sqlx::query_scalar(rows)
            .fetch_one(&mut connection)
            .await
            .expect("read")
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((programs, folder)) = &self.own {
            let data = folder.path().join("data").display().to_string();
            let stopped = run(programs, "pg_ctl", &["stop", "-D", &data, "-m", "immediate"]);
            if let Err(error) = stopped {
                eprintln!("{error}");
            }
        }
    }
}

fn up(programs: &Path, folder: &Path) -> Result<(), String> {
    let text = |path: &Path| path.display().to_string();
    let options = format!(
        "-F -c listen_addresses='' -c max_connections=200 -c unix_socket_directories={}",
        text(folder)
    );
    let (data, log) = (text(&folder.join("data")), text(&folder.join("log")));
    run(
        programs,
        "pg_ctl",
        &["start", "-w", "-D", &data, "-l", &log, "-o", &options],
    )
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// The folder with `initdb`: Debian keeps one a version, outside of the path.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|path| path.join("initdb").exists())
        .collect();
    versions.sort();
    versions.pop()
}

fn run(programs: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(programs.join(program));
    // Not `output`: the server that `pg_ctl` leaves behind would keep a pipe open.
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program}` ended with {status}")),
        Err(error) => Err(format!("`{program}` cannot be run: {error}")),
    }
}
