//! A whole installation for a bench: the server on the real Docker Engine, and tenants whose project is a large tree.
//! All of it is removed at the end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::contest::Outcome;
use crate::harness::run::{ours, quietly};
use crate::harness::tree::{self, Shape};

const EMAIL: &str = "operator@example.com";
const PATIENCE: Duration = Duration::from_secs(120);
/// What the tenants' programs are made of, from the network or as `scripts/setup` made it.
const BASES: [&str; 2] = ["caddy:2", "systemprompt-standin/caddy:2"];
/// On everything that is built, so that it can be found and removed.
const LABEL: &str = "io.systemprompt.bench=deploy";
/// The file that is changed, and asked for.
const MARK: &str = "mark.txt";

/// What keeps a bench from running here, if anything.
pub(crate) fn missing() -> Option<String> {
    if quietly(Command::new("docker").arg("version")).is_err() {
        return Some("no Docker Engine answers".to_owned());
    }
    match base() {
        Some(_) => None,
        None => Some(format!(
            "the engine has no image `{}`; `scripts/setup` brings it",
            BASES[0]
        )),
    }
}

fn base() -> Option<&'static str> {
    BASES
        .into_iter()
        .find(|image| quietly(Command::new("docker").args(["image", "inspect", image])).is_ok())
}

/// The installation.
pub(crate) struct Place {
    folder: TempDir,
    child: Child,
    pub(crate) url: String,
    edge_port: u16,
    pub(crate) token: String,
}

/// A tenant, and the project that is deployed to it.
pub(crate) struct Tenant<'a> {
    pub(crate) place: &'a Place,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) project: PathBuf,
}

impl Place {
    pub(crate) fn start() -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("systemprompt-place-").tempdir()?;
        let ports = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()));
        let [http, https] = ports;
        let (http, https) = (http?.port(), https?.port());
        let data = folder.path().join("data");
        let pool = format!("10.{}.{}.0/24", 192 + http % 32, https % 256);
        let mut child = Command::new(ours())
            .args([
                "serve",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--admin-email",
                EMAIL,
            ])
            .args([
                "--edge-http-port",
                &http.to_string(),
                "--edge-https-port",
                &https.to_string(),
            ])
            .args(["--address-pool", &pool, "--data-dir"])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut place = Self {
            folder,
            child,
            url: String::new(),
            edge_port: http,
            token: String::new(),
        };
        let said: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {}", place.log()))?;
        place.url = said["listening"].as_str().unwrap_or_default().to_owned();
        let made = Command::new(ours())
            .args([
                "server",
                "token",
                "create",
                "--account",
                EMAIL,
                "--scope",
                "read,deploy,secrets,admin",
            ])
            .args(["--expires-in", "1d", "--quiet", "--data-dir"])
            .arg(&data)
            .output()?;
        place.token = String::from_utf8(made.stdout)?.trim().to_owned();
        Ok(place)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// A folder for what a script keeps.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A tenant with a project that is a tree of this shape; nothing is deployed yet.
    pub(crate) fn tenant(&self, name: &str, shape: Shape) -> Outcome<Tenant<'_>> {
        let project = self.folder.path().join(name);
        tree::fill(&project, shape)?;
        std::fs::create_dir_all(project.join(".systemprompt"))?;
        std::fs::write(
            project.join(".systemprompt/config.yaml"),
            "dockerfile: Dockerfile\nhealth_path: /mark.txt\nrelease_command: [caddy, version]\n",
        )?;
        let dockerfile = format!(
            "FROM {}\nLABEL {LABEL}\nENV XDG_CONFIG_HOME=/tmp XDG_DATA_HOME=/tmp\nCOPY bin /www/bin\nCOPY src /www/src\nUSER 1000\n\
             CMD [\"caddy\", \"file-server\", \"--root\", \"/www\", \"--listen\", \":8080\"]\nCOPY {MARK} /www/{MARK}\n",
            base().unwrap_or(BASES[0])
        );
        std::fs::write(project.join("Dockerfile"), dockerfile)?;
        let mut tenant = Tenant {
            place: self,
            name: name.to_owned(),
            id: String::new(),
            project,
        };
        tenant.mark("first")?;
        let made = tenant
            .ours(&["tenant", "create", name, "--plan", "free", "--yes", "--json"])
            .output()?;
        let said: Value = serde_json::from_slice(&made.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&made.stderr)))?;
        tenant.id = said["tenant"]["id"]
            .as_str()
            .ok_or("a tenant without an id")?
            .to_owned();
        Ok(tenant)
    }
}

impl Tenant<'_> {
    /// Our program in the project, signed in.
    pub(crate) fn ours(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ours());
        command
            .args(arguments)
            .current_dir(&self.project)
            .env("HOME", self.place.folder())
            .env("SYSTEMPROMPT_API_URL", &self.place.url)
            .env("SYSTEMPROMPT_TOKEN", &self.place.token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `systemprompt deploy` to its end; what it says as JSON.
    pub(crate) fn deploy(&self) -> Outcome<Value> {
        let output = self
            .ours(&["deploy", "--tenant", &self.name, "--yes", "--json"])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Changes the one file.
    pub(crate) fn mark(&self, mark: &str) -> Outcome<()> {
        Ok(std::fs::write(self.project.join(MARK), mark)?)
    }

    /// Waits until the tenant's address answers with this.
    pub(crate) fn await_mark(&self, mark: &str) -> Outcome<()> {
        let began = Instant::now();
        while self
            .get()
            .is_none_or(|answer| !answer.ends_with(&format!("\r\n\r\n{mark}")))
        {
            if began.elapsed() > PATIENCE {
                return Err(format!("`{mark}` never came to {}: {}", self.name, self.place.log()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn get(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.place.edge_port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let host = format!("{}.localhost:{}", self.name, self.place.edge_port);
        let request = format!("GET /{MARK} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Waits until the server does nothing for the tenant any more.
    pub(crate) fn await_rest(&self) -> Outcome<()> {
        let began = Instant::now();
        loop {
            let output = self.ours(&["tenant", "status", &self.name, "--json"]).output()?;
            let said: Value = serde_json::from_slice(&output.stdout)?;
            if said["current_operation"].is_null() {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{} does not come to rest", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(instance) = std::fs::read_to_string(self.folder.path().join("data/instance")) {
            let filter = format!("label=io.systemprompt.instance={}", instance.trim());
            remove(
                &["ps", "--all", "--quiet", "--filter", &filter],
                &["rm", "--force", "--volumes"],
            );
            remove(
                &["network", "ls", "--quiet", "--filter", &filter],
                &["network", "rm"],
            );
            remove(
                &["volume", "ls", "--quiet", "--filter", &filter],
                &["volume", "rm", "--force"],
            );
        }
        let label = format!("label={LABEL}");
        remove(
            &["image", "ls", "--quiet", "--filter", &label],
            &["image", "rm", "--force"],
        );
        remove(
            &["image", "ls", "--quiet", "--filter", &label],
            &["image", "rm", "--force"],
        );
    }
}

/// Removes what this command of docker lists.
fn remove(list: &[&str], remove: &[&str]) {
    let Ok(listed) = Command::new("docker").args(list).output() else {
        return;
    };
    for id in String::from_utf8_lossy(&listed.stdout).lines() {
        let _ = quietly(Command::new("docker").args(remove).arg(id));
    }
}
