//! The sample tenant against a real PostgreSQL: migrations, visits, readiness, and a stop that loses nothing.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::docker_available;
use crate::need;
use crate::ports::free_port;

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt");
const PASSWORD: &str = "only-for-this-test";

/// A PostgreSQL container that goes away with the test.
struct Postgres {
    name: String,
    port: u16,
}

impl Postgres {
    fn start(test: &str) -> Self {
        let name = format!("sp-test-runtime-{test}-{}", std::process::id());
        let image = ["postgres:16-alpine", "systemprompt-standin/postgres:15"]
            .into_iter()
            .find(|image| docker(&["image", "inspect", image]).status.success())
            .expect("scripts/setup has brought a PostgreSQL image");
        let password = format!("POSTGRES_PASSWORD={PASSWORD}");
        let run = docker(&[
            "run",
            "--detach",
            "--rm",
            "--name",
            &name,
            "--env",
            &password,
            "--tmpfs",
            "/var/lib/postgresql/data",
            "--publish",
            "127.0.0.1::5432",
            image,
        ]);
        assert!(run.status.success(), "{}", text(&run.stderr));
        let port = docker(&["port", &name, "5432/tcp"]);
        let port = text(&port.stdout)
            .trim()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let postgres = Self {
            name,
            port: port.expect("a published port"),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !postgres.psql("SELECT 1").status.success() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start within 60 s");
            thread::sleep(Duration::from_millis(200));
        }
        postgres
    }

    fn psql(&self, sql: &str) -> Output {
        // Over TCP: the socket already answers while the image is still setting itself up.
        let password = format!("PGPASSWORD={PASSWORD}");
        docker(&[
            "exec",
            "--env",
            &password,
            &self.name,
            "psql",
            "--host",
            "127.0.0.1",
            "--username",
            "postgres",
            "--no-align",
            "--tuples-only",
            "--command",
            sql,
        ])
    }

    fn url(&self) -> String {
        format!(
            "postgresql://postgres:{PASSWORD}@127.0.0.1:{}/postgres",
            self.port
        )
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// A `systemprompt services serve` that goes away with the test.
struct Service {
    process: Child,
    port: u16,
}

impl Service {
    fn start(services: &Path, url: &str) -> Self {
        let port = free_port();
        let process = command(services, url)
            .args(["services", "serve", "--foreground"])
            .env("PORT", port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let service = Self { process, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while service.get("/livez").is_err() {
            assert!(Instant::now() < deadline, "the service did not start within 10 s");
            thread::sleep(Duration::from_millis(20));
        }
        service
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        get(self.port, path)
    }

    fn terminate(&self) {
        let killed = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status();
        assert!(killed.expect("kill runs").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(services: &Path, url: &str) -> Command {
    let mut command = Command::new(BINARY);
    command
        .env_clear()
        .env("HOST", "127.0.0.1")
        .env("DATABASE_URL", url)
        .env("SYSTEMPROMPT_SERVICES_PATH", services)
        .env("WEB_DIR", Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist"))
        .env("TENANT_NAME", "sample")
        .env("TENANT_ID", "ten_sample")
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn migrate(services: &Path, url: &str) -> Output {
    command(services, url)
        .args(["services", "db", "migrate"])
        .output()
        .expect("the program runs")
}

/// One request on one connection; an answer that is cut off is an error.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    get_after(port, path, Duration::ZERO)
}

/// The same, with a pause before the first word.
fn get_after(port: u16, path: &str, pause: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    thread::sleep(pause);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: sample\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("docker runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `services` folder with these migrations.
fn services(migrations: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("migrations")).expect("migrations/");
    for (name, sql) in migrations {
        put(folder.path(), name, sql);
    }
    folder
}

fn put(services: &Path, name: &str, sql: &str) {
    let mut file = std::fs::File::create(services.join("migrations").join(name)).expect("a file");
    file.write_all(sql.as_bytes()).expect("its text");
}

#[test]
fn migrations_run_once_and_a_refused_one_leaves_nothing() {
    need!(docker_available());
    let postgres = Postgres::start("migrate");
    let services = services(&[("0001_slow.sql", "SELECT pg_sleep(0.5); CREATE TABLE a (x int);")]);

    // Five at once: one applies, four wait for it and find it done.
    let outputs: Vec<String> = thread::scope(|scope| {
        let runs: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| migrate(services.path(), &postgres.url())))
            .collect();
        runs.into_iter()
            .map(|run| text(&run.join().expect("a run").stdout))
            .collect()
    });
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for output in &outputs {
        *counts.entry(output.trim()).or_default() += 1;
    }
    let expected = BTreeMap::from([
        ("applied 0001_slow.sql; database is up to date", 1),
        ("database is up to date (1 migrations)", 4),
    ]);
    assert_eq!(counts, expected);

    put(
        services.path(),
        "0002_bad.sql",
        "CREATE TABLE b (x int);\nCREATE TABLE c (\n  x int,,\n);\n",
    );
    let refused = migrate(services.path(), &postgres.url());
    let message = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(
        message.contains("failed to apply `0002_bad.sql` (line 3)"),
        "{message}"
    );
    assert!(!message.contains(PASSWORD), "{message}");
    assert_eq!(
        text(&postgres.psql("SELECT to_regclass('b') IS NULL").stdout).trim(),
        "t"
    );

    put(services.path(), "0002_bad.sql", "CREATE TABLE b (x int);");
    assert!(migrate(services.path(), &postgres.url()).status.success());
    put(services.path(), "0001_slow.sql", "CREATE TABLE a (x bigint);");
    let changed = text(&migrate(services.path(), &postgres.url()).stderr);
    assert!(
        changed.contains("`0001_slow.sql` was changed after it had been applied"),
        "{changed}"
    );
}

#[test]
fn the_page_counts_visits_and_readiness_follows_the_database() {
    need!(docker_available());
    let postgres = Postgres::start("serve");
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let service = Service::start(&services, &postgres.url());
    let before = service.get("/readyz").expect("an answer");
    assert_eq!(status(&before), "503", "its schema is not there yet: {before}");
    assert!(migrate(&services, &postgres.url()).status.success());
    assert_eq!(status(&service.get("/readyz").expect("an answer")), "200");

    for visit in 1..=3 {
        let page = service.get("/").expect("a page");
        assert!(
            page.contains(&format!("<dd id=\"visits-total\">{visit}</dd>")),
            "{page}"
        );
    }
    let counted = postgres.psql("SELECT sum(count) FROM visits");
    assert_eq!(text(&counted.stdout).trim(), "3");
    let site = service.get("/api/v1/site").expect("an answer");
    assert!(site.contains("\"visits\":{\"today\":3,\"total\":3}"), "{site}");
    assert!(site.contains("\"id\":\"guide\""), "{site}");

    for path in [
        "/../Cargo.toml",
        "/%2e%2e/%2e%2e/Cargo.toml",
        "/.hidden",
        "/nothing",
    ] {
        assert_eq!(status(&service.get(path).expect("an answer")), "404", "{path}");
    }

    // The database goes away and comes back: the page stays, readiness follows.
    docker(&["pause", &postgres.name]);
    let page = service.get("/").expect("a page");
    assert_eq!(status(&page), "200", "{page}");
    assert!(page.contains("<dd id=\"visits-total\">–</dd>"), "{page}");
    assert_eq!(status(&service.get("/readyz").expect("an answer")), "503");
    docker(&["unpause", &postgres.name]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while status(&service.get("/readyz").expect("an answer")) != "200" {
        assert!(
            Instant::now() < deadline,
            "not ready 20 s after the database came back"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_stop_under_load_loses_no_request() {
    need!(docker_available());
    let postgres = Postgres::start("stop");
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    assert!(migrate(&services, &postgres.url()).status.success());
    for round in 0..3 {
        let mut service = Service::start(&services, &postgres.url());
        let port = service.port;
        let answered = AtomicUsize::new(0);
        let over = AtomicBool::new(false);
        let lost: Vec<String> = thread::scope(|scope| {
            // Half of them connect first and speak later, as a proxy under load does.
            let pauses = [Duration::ZERO, Duration::from_millis(30)];
            let clients: Vec<_> = pauses
                .into_iter()
                .cycle()
                .take(8)
                .map(|pause| {
                    scope.spawn({
                        let (answered, over) = (&answered, &over);
                        move || hammer((port, pause), answered, over)
                    })
                })
                .collect();
            let deadline = Instant::now() + Duration::from_secs(30);
            while answered.load(Ordering::Relaxed) < 50 {
                assert!(Instant::now() < deadline, "fewer than 50 requests in 30 s");
                thread::sleep(Duration::from_millis(5));
            }
            service.terminate();
            let stopped = service.process.wait().expect("it ends");
            over.store(true, Ordering::Relaxed);
            assert!(stopped.success(), "{stopped}");
            clients
                .into_iter()
                .flat_map(|client| client.join().expect("a client"))
                .collect()
        });
        assert!(
            lost.is_empty(),
            "round {round}: of {answered:?} requests, lost: {lost:?}"
        );
    }
}

/// Asks until it is over, answers what was lost. A refused connection is no loss: the edge then asks the other release.
fn hammer((port, pause): (u16, Duration), answered: &AtomicUsize, over: &AtomicBool) -> Vec<String> {
    let mut lost = Vec::new();
    while !over.load(Ordering::Relaxed) {
        match get_after(port, "/", pause) {
            Ok(answer) if status(&answer) == "200" => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => lost.push(answer.lines().next().unwrap_or_default().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => lost.push(error.to_string()),
        }
    }
    lost
}
