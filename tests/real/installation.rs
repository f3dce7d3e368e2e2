//! An installation of its own on the Docker Engine for one test: own names, own addresses, gone afterwards.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use systemprompt::api::id::{OperationId, TenantId};
use systemprompt::api::secret::SecretText;
use systemprompt::server::clock::Clock;
use systemprompt::server::containers::{Engine, EngineSettings};
use systemprompt::server::providers::docker::{AddressPool, DockerProvider};
use systemprompt::server::providers::{MachineSpec, Provider, PullCredential, TenantSpec};

/// A tenant's program: Caddy answers, busybox does the rest.
const APP: &str = "systemprompt-test/app:1";
/// What it is made of, built by `scripts/setup`.
const BASE: &str = "systemprompt-standin/caddy:2";

const DOCKERFILE: &str = r#"FROM systemprompt-standin/caddy:2
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /www/cgi-bin /app && printf '#!/bin/sh\necho "Content-Type: text/plain"\necho\nenv\n' > /www/cgi-bin/env && chmod 755 /www/cgi-bin/env
ENV HOME=/tmp XDG_DATA_HOME=/tmp XDG_CONFIG_HOME=/tmp
USER 1000
COPY app.json /app/app.json
"#;

/// Answers with what `VERSION` says, once it has read all that it was sent. One that hangs up on what still comes, as
/// `caddy respond` does, is no program that a request can be brought to.
const APP_CONFIG: &str = r#"{
  "admin": { "disabled": true, "config": { "persist": false } },
  "apps": { "http": { "servers": { "app": {
    "listen": [":8080"],
    "routes": [
      {
        "match": [{ "expression": "{http.request.method} == 'GET' || string(size({http.request.body})) == {http.request.header.Content-Length}" }],
        "handle": [{ "handler": "static_response", "body": "{env.VERSION}" }]
      },
      { "handle": [{ "handler": "static_response", "status_code": "400", "body": "the body was cut" }] }
    ]
  } } } }
}"#;

/// One installation.
pub(crate) struct Installation {
    /// The engine under the installation's own names.
    pub(crate) engine: Engine,
    /// Its data directory.
    pub(crate) directory: tempfile::TempDir,
    pool: AddressPool,
    instance: String,
}

impl Installation {
    /// Names and addresses that no other test has.
    pub(crate) fn new() -> Self {
        let [a, b, c, ..] = Clock::system().random::<8>();
        let instance = format!("{a:02x}{b:02x}{c:02x}");
        let pool = format!("10.{}.{c}.0/24", 64 + b % 64);
        Self {
            engine: Engine::new(EngineSettings {
                endpoint: None,
                instance: instance.clone(),
            }),
            directory: tempfile::tempdir().expect("directory"),
            pool: pool.parse().expect("pool"),
            instance,
        }
    }

    /// What may keep a test from running: the engine, or the image that tenants run.
    pub(crate) fn available() -> Result<(), String> {
        crate::docker_available()?;
        let base = crate::answers("docker", &["image", "inspect", BASE]);
        base.map_err(|_| format!("there is no image `{BASE}`; `scripts/setup` builds it"))?;
        crate::answers("busybox", &["true"])
    }

    /// The provider of this installation.
    pub(crate) fn provider(&self) -> DockerProvider {
        DockerProvider::new(self.engine.clone(), self.pool).expect("provider")
    }

    /// A tenant of this label in this slot.
    pub(crate) fn tenant(&self, label: &str, slot: u32) -> TenantSpec {
        TenantSpec {
            tenant_id: TenantId::new(Clock::system().uuid()),
            label: label.to_owned(),
            network_slot: slot,
            region: "local".to_owned(),
            operation_id: OperationId::new(Clock::system().uuid()),
        }
    }

    /// A tenant that has its networks and its volume.
    pub(crate) async fn made_tenant(&self, label: &str, slot: u32) -> TenantSpec {
        let spec = self.tenant(label, slot);
        let provider = self.provider();
        provider.create_app(&spec).await.expect("networks");
        provider.create_volume(&spec).await.expect("volume");
        spec
    }

    /// A release of the tenant that answers with its number.
    pub(crate) fn release(&self, tenant: &TenantSpec, release: u32) -> MachineSpec {
        let mut spec = self.running(tenant, release, &["caddy", "run", "--config", "/app/app.json"]);
        let version = SecretText::new(format!("v{release}"));
        spec.environment.insert("VERSION".to_owned(), version);
        spec
    }

    /// A release of the tenant that runs this.
    pub(crate) fn running(&self, tenant: &TenantSpec, release: u32, command: &[&str]) -> MachineSpec {
        MachineSpec {
            tenant: tenant.clone(),
            release,
            image: app_image(),
            pull: PullCredential {
                registry: "127.0.0.1:1".to_owned(),
                username: "systemprompt".to_owned(),
                password: SecretText::new("nobody-needs-it"),
            },
            environment: BTreeMap::from([("GREETING".to_owned(), SecretText::new("hello-secret"))]),
            memory_mb: 256,
            port: 8080,
            command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
        }
    }

    /// Starts a release and waits until it is ready.
    pub(crate) async fn start(&self, spec: &MachineSpec) -> String {
        let provider = self.provider();
        let machine = provider.start_machine(spec).await.expect("started").external_id;
        for _ in 0..100 {
            if provider
                .probe(&spec.tenant, &machine, (8080, "/"))
                .await
                .expect("probed")
            {
                return machine;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("`{machine}` does not get ready: {}", docker(&["logs", &machine]));
    }

    /// Everything of this installation that is on the engine.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let filter = format!("label=io.systemprompt.instance={}", self.instance);
        let mut all = Vec::new();
        for kind in [
            &["ps", "--all", "--format", "container {{.Names}}"][..],
            &["network", "ls", "--format", "network {{.Name}}"],
            &["volume", "ls", "--format", "volume {{.Name}}"],
        ] {
            let arguments: Vec<&str> = kind
                .iter()
                .copied()
                .chain(["--filter", filter.as_str()])
                .collect();
            all.extend(docker(&arguments).lines().map(str::to_owned));
        }
        all.sort();
        all
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for line in self.leftovers() {
            let (kind, name) = line.split_once(' ').expect("kind and name");
            let arguments: &[&str] = match kind {
                "container" => &["rm", "--force", "--volumes", name],
                "network" => &["network", "rm", name],
                _ => &["volume", "rm", "--force", name],
            };
            let _ = Command::new("docker")
                .args(arguments)
                .stdout(Stdio::null())
                .status();
        }
    }
}

/// What the docker CLI prints.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker runs");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Whether a command inside of a container succeeds.
pub(crate) fn succeeds_in(container: &str, command: &str) -> bool {
    Command::new("docker")
        .args(["exec", container, "sh", "-c", command])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("docker runs")
        .success()
}

/// Builds the tenants' program; the engine's cache makes it quick.
fn app_image() -> String {
    let directory = tempfile::tempdir().expect("directory");
    let path = String::from_utf8(
        Command::new("which")
            .arg("busybox")
            .output()
            .expect("which")
            .stdout,
    );
    std::fs::copy(path.expect("path").trim(), directory.path().join("busybox")).expect("busybox");
    for (name, text) in [("Dockerfile", DOCKERFILE), ("app.json", APP_CONFIG)] {
        let file = std::fs::File::create(directory.path().join(name));
        std::io::Write::write_all(&mut file.expect("file"), text.as_bytes()).expect("written");
    }
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "--quiet", "--tag", APP])
        .arg(directory.path())
        .output()
        .expect("docker runs");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    APP.to_owned()
}
