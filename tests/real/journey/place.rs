//! A whole installation for one test: server, PostgreSQL, edge, and a project whose owner is signed in. All of it
//! is removed at the end, also when the test fails.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use systemprompt::server::clock::Clock;

use crate::installation::docker;
use crate::journey::project::{Project, Said};
use crate::ports::free_port;

const EMAIL: &str = "operator@example.com";

/// What the journeys need of this machine.
pub(crate) fn available() -> Result<(), String> {
    crate::docker_available()?;
    crate::image::base()?;
    for wanted in [
        ["postgres:16-alpine", "systemprompt-standin/postgres:15"],
        ["caddy:2", "systemprompt-standin/caddy:2"],
    ] {
        let has = |image: &str| crate::answers("docker", &["image", "inspect", image]).is_ok();
        if !wanted.into_iter().any(has) {
            return Err(format!(
                "there is no image `{}`; `scripts/setup` brings it",
                wanted[0]
            ));
        }
    }
    Ok(())
}

/// An installation, and somebody who is signed in to it.
pub(crate) struct Place {
    data: tempfile::TempDir,
    listen: SocketAddr,
    edge_ports: [u16; 2],
    pool: String,
    child: Option<Child>,
    pub(crate) project: Project,
}

impl Place {
    /// Starts a server of its own and signs in to it by an API token.
    pub(crate) fn start() -> Self {
        let [a, b, ..] = Clock::system().random::<8>();
        let mut place = Self {
            data: tempfile::tempdir().expect("a folder"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            edge_ports: [free_port(), free_port()],
            pool: format!("10.{}.{b}.0/24", 128 + a % 64),
            child: None,
            project: Project::sample(),
        };
        place.up();
        let api = format!("http://{}", place.listen);
        place.project.talk_to(&api);
        let token = place.token();
        let said = place
            .project
            .feed(&["login", "--with-token", "--store", "file"], &token)
            .ok();
        assert!(!said.whole().contains(token.trim()), "the token is not shown");
        place
    }

    fn data_dir(&self) -> String {
        self.data.path().join("data").display().to_string()
    }

    /// Starts the process, on the same port as before, and waits until it listens.
    pub(crate) fn up(&mut self) {
        let data = self.data_dir();
        let listen = self.listen.to_string();
        let [http, https] = self.edge_ports.map(|port| port.to_string());
        let arguments = [
            "serve",
            "--json",
            "--listen",
            &listen,
            "--data-dir",
            &data,
            "--edge-http-port",
            &http,
            "--edge-https-port",
            &https,
            "--address-pool",
            &self.pool,
            "--admin-email",
            EMAIL,
            "--log-format",
            "json",
        ];
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.data.path().join("log"))
            .expect("a file");
        let mut command = self.project.command(&arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut first = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        self.child = Some(child);
        BufReader::new(stdout).read_line(&mut first).expect("a line");
        let ready: serde_json::Value =
            serde_json::from_str(&first).unwrap_or_else(|error| panic!("{error}: {first}{}", self.log()));
        let url = ready["listening"].as_str().expect("an address");
        let address = url.strip_prefix("http://").expect("plain HTTP");
        self.listen = address.parse().expect("an address");
    }

    /// Ends the server without a warning, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A new API token that may do everything.
    fn token(&self) -> String {
        let data = self.data_dir();
        let arguments = [
            "server",
            "token",
            "create",
            "--account",
            EMAIL,
            "--scope",
            "read,deploy,secrets,admin",
            "--expires-in",
            "1d",
            "--quiet",
            "--data-dir",
            &data,
        ];
        self.project.run(&arguments).ok().stdout
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    fn instance(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data.path().join("data/instance")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Makes a tenant; answers its id.
    pub(crate) fn tenant(&self, name: &str) -> String {
        let said = self
            .project
            .run(&["tenant", "create", name, "--plan", "free", "--yes", "--json"]);
        let document = said.ok().json();
        document["tenant"]["id"].as_str().expect("an id").to_owned()
    }

    /// Deploys the project.
    pub(crate) fn deploy(&self, tenant: &str) -> Said {
        self.project
            .run(&["deploy", "--tenant", tenant, "--yes", "--json"])
    }

    /// How this tenant is reached through the edge.
    pub(crate) fn door(&self, tenant: &str) -> Door {
        Door {
            host: format!("{tenant}.localhost"),
            port: self.edge_ports[0],
        }
    }

    /// Names of all containers of a tenant that run its releases or their commands.
    pub(crate) fn machines(&self, tenant_id: &str) -> Vec<String> {
        let filter = format!("label=io.systemprompt.tenant={tenant_id}");
        lines(&docker(&[
            "ps",
            "--all",
            "--format",
            "{{.Names}}",
            "--filter",
            &filter,
        ]))
    }

    /// Everything of a tenant that is on the engine.
    pub(crate) fn on_engine(&self, tenant_id: &str) -> Vec<String> {
        labelled(&format!("io.systemprompt.tenant={tenant_id}"))
    }

    /// What the managed PostgreSQL answers to its superuser.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let container = format!("sp-{}-postgres", self.instance().expect("an instance"));
        let mut arguments = vec!["exec", container.as_str(), "psql", "--username", "postgres"];
        arguments.extend([
            "--dbname",
            database,
            "--no-align",
            "--tuples-only",
            "--command",
            sql,
        ]);
        docker(&arguments).trim().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // What the server said is most often why.
            let log = self.log();
            let told = log
                .lines()
                .rev()
                .filter(|line| !line.contains("\"message\":\"answered\""));
            let tail: Vec<&str> = told.take(40).collect();
            let text = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            let edge = format!("sp-{}-edge", self.instance().unwrap_or_default());
            let edge = docker(&["logs", &edge]);
            let odd = |line: &&str| !line.contains("\"level\":\"info\"") || line.contains("\"status\":5");
            let odd: Vec<&str> = edge.lines().filter(odd).collect();
            let edge = odd[odd.len().saturating_sub(20)..].join("\n");
            let _ = writeln!(
                std::io::stderr(),
                "----- server -----\n{text}\n----- edge -----\n{edge}"
            );
        }
        if let Some(instance) = self.instance() {
            remove(&labelled(&format!("io.systemprompt.instance={instance}")));
        }
        let repository = format!("{}/systemprompt-images", self.listen);
        for format in ["{{.Repository}}:{{.Tag}}", "{{.Repository}}@{{.Digest}}"] {
            let images = docker(&["image", "ls", "--digests", "--format", format, &repository]);
            for image in lines(&images).iter().filter(|image| !image.contains("<none>")) {
                docker(&["image", "rm", "--force", image]);
            }
        }
    }
}

/// Where a tenant is reached.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Door {
    /// A client that asks the edge for this name; a machine without a name service for `*.localhost` has it too.
    pub(crate) fn client(&self, keep_alive: bool) -> reqwest::Client {
        let idle = if keep_alive { 1 } else { 0 };
        reqwest::Client::builder()
            .no_proxy()
            .resolve(&self.host, SocketAddr::from(([127, 0, 0, 1], self.port)))
            .pool_max_idle_per_host(idle)
            .timeout(std::time::Duration::from_secs(15))
            .build()
            .expect("a client")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.host, self.port)
    }

    /// Asks once; answers status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let answer = self.client(false).get(self.url(path)).send().await;
            let answer = answer.expect("the edge answers");
            (answer.status().as_u16(), answer.text().await.expect("a body"))
        })
    }

    /// What the tenant tells of itself.
    #[track_caller]
    pub(crate) fn site(&self) -> serde_json::Value {
        let (status, body) = self.get("/api/v1/site");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Everything on the engine that carries this label.
pub(crate) fn labelled(label: &str) -> Vec<String> {
    let filter = format!("label={label}");
    let mut all = Vec::new();
    for kind in [
        &["ps", "--all", "--format", "container {{.Names}}"][..],
        &["network", "ls", "--format", "network {{.Name}}"],
        &["volume", "ls", "--format", "volume {{.Name}}"],
    ] {
        let arguments = [kind, &["--filter", &filter]].concat();
        all.extend(lines(&docker(&arguments)));
    }
    all
}

/// Removes what `labelled` found: containers first, since they hold the rest.
pub(crate) fn remove(found: &[String]) {
    for line in found {
        let Some((kind, name)) = line.split_once(' ') else {
            continue;
        };
        let arguments: &[&str] = match kind {
            "container" => &["rm", "--force", "--volumes", name],
            "network" => &["network", "rm", name],
            _ => &["volume", "rm", "--force", name],
        };
        let _ = Command::new("docker")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}
