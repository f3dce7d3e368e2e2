//! The edge as a real Caddy: who is let through, certificates, and releases that take over under load.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use systemprompt::server::clock::Clock;
use systemprompt::server::edge::caddy::CaddyEdge;
use systemprompt::server::edge::{Access, AccessQuery, Edge, EdgeError, EdgeSettings, Traffic};
use systemprompt::server::edge_door;
use systemprompt::server::providers::{MachineSpec, Provider, TenantSpec};

use crate::installation::{Installation, docker};
use crate::need;

const GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Front {
    name: String,
    pub(crate) edge: CaddyEdge,
    settings: EdgeSettings,
    _folder: Option<tempfile::TempDir>,
}

impl Front {
    pub(crate) fn new(installation: &Installation) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let door = edge_door::folder(folder.path()).expect("the edge's own");
        let mut front = Self::with_door(installation, Some(door));
        front._folder = Some(folder);
        front
    }

    /// One that asks in this folder who visits.
    pub(crate) fn with_door(installation: &Installation, door: Option<PathBuf>) -> Self {
        let free = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("port");
            listener.local_addr().expect("address").port()
        };
        let settings = EdgeSettings {
            http_port: free(),
            https_port: free(),
            image: "systemprompt-standin/caddy:2".to_owned(),
            door,
            ..EdgeSettings::default()
        };
        let edge = CaddyEdge::new(installation.engine.clone(), settings.clone()).expect("edge");
        let name = installation.engine.name("edge");
        Self {
            name,
            edge,
            settings,
            _folder: None,
        }
    }

    pub(crate) fn client(&self, label: &str) -> reqwest::ClientBuilder {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .resolve(&self.edge.hostname(label), loopback(0))
    }

    pub(crate) async fn get(&self, label: &str, path: &str) -> (u16, String) {
        let client = self.client(label).build().expect("client");
        let request = client.get(format!("{}{path}", self.edge.url(label)));
        let answer = request
            .header("X-Session-User", "mallory")
            .send()
            .await
            .expect("answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    pub(crate) async fn attach(&self, installation: &Installation, tenant: &TenantSpec) {
        let network = installation.provider().edge_network(tenant);
        self.edge
            .attach(&tenant.label, network.as_deref())
            .await
            .expect("attached");
    }

    async fn detach(&self, installation: &Installation, tenant: &TenantSpec) {
        let network = installation.provider().edge_network(tenant);
        self.edge
            .detach(&tenant.label, network.as_deref())
            .await
            .expect("detached");
    }

    /// Sends the tenant's traffic to a release, as a deploy does.
    pub(crate) async fn send_to(&self, installation: &Installation, spec: &MachineSpec, machine: &str) {
        let provider = installation.provider();
        for _ in 0..2 {
            provider
                .attach_traffic(&spec.tenant, machine)
                .await
                .expect("has traffic");
            self.edge
                .switch(&spec.tenant.label, Traffic::To(spec.release))
                .await
                .expect("switched");
        }
    }

    /// Starts a release that answers with its number, and sends it the tenant's traffic.
    pub(crate) async fn serve(
        &self,
        installation: &Installation,
        tenant: &TenantSpec,
        release: u32,
    ) -> String {
        let spec = installation.release(tenant, release);
        let machine = installation.start(&spec).await;
        self.send_to(installation, &spec, &machine).await;
        machine
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What the edge said is most often why. It is dropped before the installation that removes it.
            let log = docker(&["logs", &self.name]);
            let odd = |line: &&str| !line.contains("\"level\":\"info\"") || line.contains("\"status\":5");
            let odd: Vec<&str> = log.lines().filter(odd).collect();
            let _ = writeln!(std::io::stderr(), "----- edge -----\n{}", odd.join("\n"));
        }
    }
}

#[tokio::test]
async fn only_tenants_are_let_through() {
    need!(Installation::available());
    let installation = Installation::new();
    let front = Front::new(&installation);
    only_tenants(&installation, &front).await;
}

#[tokio::test]
async fn the_same_where_the_edge_can_be_shown_no_folder() {
    need!(Installation::available());
    let installation = Installation::new();
    let front = Front::with_door(&installation, None);
    only_tenants(&installation, &front).await;
}

async fn only_tenants(installation: &Installation, front: &Front) {
    front.edge.ping().await.expect("runs");
    let began = Instant::now();
    let (status, body) = front.get("acme", "/").await;
    assert_eq!(status, 404);
    assert!(body.contains("No site answers under this name"), "{body}");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "nobody is dialled for a name that is not known"
    );

    let tenant = installation.made_tenant("acme", 0).await;
    for _ in 0..2 {
        front.attach(installation, &tenant).await;
    }
    let none_serves = async || {
        let began = Instant::now();
        let (status, body) = front.get("acme", "/").await;
        assert_eq!(status, 503);
        assert!(body.contains("no running release"), "{body}");
        assert!(began.elapsed() < Duration::from_secs(1), "nobody is waited for");
    };
    none_serves().await;
    front.serve(installation, &tenant, 1).await;
    assert_eq!(front.get("acme", "/").await, (200, "v1".to_owned()));
    for (traffic, wanted) in [
        (Traffic::Nobody, "not running yet"),
        (Traffic::Suspended, "is paused"),
    ] {
        front.edge.switch("acme", traffic).await.expect("switched");
        let (status, body) = front.get("acme", "/").await;
        assert_eq!(status, 503);
        assert!(body.contains(wanted), "{body}");
    }
    front.edge.switch("acme", Traffic::To(1)).await.expect("switched");
    assert_eq!(front.get("acme", "/").await, (200, "v1".to_owned()));

    // Names that are no label find nobody, whatever files there are.
    for host in ["*.localhost", "a.acme.localhost", "localhost", "acme.example.com"] {
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let url = format!("http://127.0.0.1:{}/", front.settings.http_port);
        let answer = client
            .get(url)
            .header("Host", host)
            .send()
            .await
            .expect("answers");
        assert_eq!(answer.status().as_u16(), 404, "{host}");
    }

    for _ in 0..2 {
        front.detach(installation, &tenant).await;
        assert_eq!(front.get("acme", "/").await.0, 404);
    }
    // A tenant of the same name finds nothing of the former one.
    front.attach(installation, &tenant).await;
    none_serves().await;
}

/// A server of this version finds an edge that was told through its volume, and one that was shown another folder.
#[tokio::test]
async fn what_the_edge_was_told_stays_when_it_is_told_in_another_place() {
    need!(Installation::available());
    let installation = Installation::new();
    let folder = tempfile::tempdir().expect("a folder");
    let door = edge_door::folder(folder.path()).expect("the edge's own");
    let not_shown = door.join("not-shown-to-the-edge");
    std::fs::File::create(&not_shown).expect("made");
    let mut front = Front::with_door(&installation, Some(door.clone()));
    let tenant = installation.made_tenant("acme", 0).await;
    front.attach(&installation, &tenant).await;
    front.serve(&installation, &tenant, 1).await;
    assert!(!door.join("tenants").exists(), "it was told through the volume");

    let another_server = |front: &mut Front| {
        front.edge = CaddyEdge::new(installation.engine.clone(), front.settings.clone()).expect("edge");
    };
    std::fs::remove_file(&not_shown).expect("removed");
    another_server(&mut front);
    front.edge.ping().await.expect("runs");
    assert!(door.join("tenants/acme/to").is_dir());
    assert_eq!(front.get("acme", "/").await, (200, "v1".to_owned()));
    let in_volume = installation
        .engine
        .holds_file(&front.name, "/data/systemprompt/tenants");
    assert!(
        in_volume.await.expect("looked"),
        "what is out of date is forgotten"
    );

    // The folder was brought back from a copy: what the container was shown is not there any more.
    let aside = folder.path().join("aside");
    std::fs::rename(&door, &aside).expect("moved");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .args([&aside, &door])
        .status();
    assert!(copied.expect("copies").success());
    another_server(&mut front);
    front.edge.ping().await.expect("runs");
    front
        .edge
        .switch("acme", Traffic::Suspended)
        .await
        .expect("switched");
    assert_eq!(front.get("acme", "/").await.0, 503);
    front.edge.switch("acme", Traffic::To(1)).await.expect("switched");
    assert_eq!(front.get("acme", "/").await, (200, "v1".to_owned()));
    let seen: Vec<_> = std::fs::read_dir(door.join("tenants")).expect("read").collect();
    assert_eq!(seen.len(), 1, "what it was asked for is gone: {seen:?}");

    // What was lost is seen by whoever looks after it.
    let network = installation.provider().edge_network(&tenant);
    let attached = async || {
        front
            .edge
            .attached("acme", network.as_deref())
            .await
            .expect("looked")
    };
    assert!(attached().await);
    std::fs::remove_dir_all(door.join("tenants/acme")).expect("removed");
    assert!(!attached().await);
}

#[tokio::test]
async fn the_edge_is_found_again_with_its_authority() {
    need!(Installation::available());
    let installation = Installation::new();
    let front = Front::new(&installation);
    let tenant = installation.made_tenant("acme", 0).await;
    front.attach(&installation, &tenant).await;
    front.serve(&installation, &tenant, 1).await;
    assert_eq!(
        front.edge.certificate("acme").await.expect("certificate"),
        "ready"
    );
    let root = front.edge.root_certificate().await.expect("root");
    let certificate = reqwest::Certificate::from_pem(root.as_bytes()).expect("certificate");
    let client = front
        .client("acme")
        .tls_certs_only([certificate])
        .build()
        .expect("client");
    let url = format!("https://acme.localhost:{}/", front.settings.https_port);
    assert_eq!(
        client
            .get(url)
            .send()
            .await
            .expect("trusted")
            .text()
            .await
            .expect("text"),
        "v1"
    );

    docker(&["rm", "--force", &installation.engine.name("edge")]);
    front.edge.ping().await.expect("it is back");
    assert_eq!(front.get("acme", "/").await, (200, "v1".to_owned()));
    assert_eq!(front.edge.root_certificate().await.expect("root"), root);

    // The engine's proxy of a port can end while the container runs on. Only root may end it here.
    let pattern = format!("docker-proxy .*-host-port {} ", front.settings.http_port);
    let killed = std::process::Command::new("pkill")
        .args(["-KILL", "-f", &pattern])
        .status();
    if killed.is_ok_and(|status| status.success()) {
        front.edge.ping().await.expect("it is back");
        assert_eq!(front.get("acme", "/").await, (200, "v1".to_owned()));
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    need!(Installation::available());
    let installation = Installation::new();
    let front = Front::new(&installation);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, front.settings.http_port)).expect("port");
    let error = front.edge.ping().await.expect_err("taken");
    assert!(
        matches!(
            &error,
            EdgeError::Fatal {
                code: "port-taken",
                ..
            }
        ),
        "{error:?}"
    );
    drop(taken);
    front.edge.ping().await.expect("free again");
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: std::sync::Mutex<Vec<String>>,
}

impl Load {
    /// One client: every second request is a POST, which nobody may repeat on his own.
    async fn run(self: Arc<Self>, client: reqwest::Client, url: String, reuse: bool) {
        let mut post = false;
        while !self.stop.load(Ordering::Relaxed) {
            post = !post;
            let request = if post {
                client.post(&url).body("x".repeat(2000))
            } else {
                client.get(&url)
            };
            let request = if reuse {
                request
            } else {
                request.header("Connection", "close")
            };
            let outcome = match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    answer.text().await.map_err(|error| error.to_string())
                }
                Ok(answer) => {
                    let status = answer.status();
                    // The edge's own pages say in their heading which of them it is.
                    Err(format!("{status}: {}", answer.text().await.unwrap_or_default()))
                }
                Err(error) => Err(format!("{error:?}")),
            };
            match outcome {
                Ok(_) => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self.failed.lock().expect("lock").push(error),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_take_over_without_a_lost_request() {
    need!(Installation::available());
    let installation = Installation::new();
    let front = Front::new(&installation);
    let tenant = installation.made_tenant("acme", 0).await;
    front.attach(&installation, &tenant).await;
    let mut serving = front.serve(&installation, &tenant, 1).await;

    let load = Arc::new(Load::default());
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let client = front.client("acme").build().expect("client");
        clients.spawn(Arc::clone(&load).run(client, format!("{}/", front.edge.url("acme")), number % 2 == 0));
    }
    for release in 2..=11 {
        let next = front.serve(&installation, &tenant, release).await;
        installation
            .provider()
            .stop_machine(&serving, GRACE)
            .await
            .expect("stopped");
        serving = next;
        assert_eq!(front.get("acme", "/").await, (200, format!("v{release}")));
    }
    // Others come and go meanwhile, too.
    let other = installation.made_tenant("bolt", 1).await;
    front.attach(&installation, &other).await;
    front.detach(&installation, &other).await;
    load.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let failed = load.failed.lock().expect("lock").clone();
    let answered = load.answered.load(Ordering::Relaxed);
    println!(
        "10 replacements: {answered} requests answered, {} failed",
        failed.len()
    );
    assert_eq!(failed, Vec::<String>::new());
    assert!(answered > 1000, "{answered} requests are no load");
}

/// Requests wait, bodies and all, and go on to the next release; nobody else's do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_requests_go_to_the_next_release() {
    need!(Installation::available());
    let installation = Installation::new();
    let front = Front::new(&installation);
    let tenant = installation.made_tenant("acme", 0).await;
    let other = installation.made_tenant("bolt", 1).await;
    for tenant in [&tenant, &other] {
        front.attach(&installation, tenant).await;
        front.serve(&installation, tenant, 1).await;
    }
    let since = Clock::system().now();
    front.edge.switch("acme", Traffic::Held).await.expect("held");
    let mut waiting = tokio::task::JoinSet::new();
    for size in [0, 10, 3_000_000] {
        let client = front.client("acme").build().expect("client");
        let request = client
            .post(format!("{}/?token=s3cret", front.edge.url("acme")))
            .body(vec![b'x'; size]);
        waiting.spawn(async move { request.send().await.expect("answers").text().await.expect("text") });
    }
    assert_eq!(front.get("bolt", "/").await, (200, "v1".to_owned()));
    let spec = installation.release(&tenant, 2);
    let machine = installation.start(&spec).await;
    let provider = installation.provider();
    let attached = provider.attach_traffic(&spec.tenant, &machine).await;
    attached.expect("has traffic");
    assert!(waiting.try_join_next().is_none(), "nobody is answered meanwhile");
    front.edge.let_go("acme", 2).await.expect("let go");
    assert_eq!(waiting.join_all().await, ["v2", "v2", "v2"]);

    let waited = front.edge.waited("acme", since).await.expect("read");
    assert_eq!(waited.requests, 3);
    assert!((300..20_000).contains(&waited.longest_ms), "{waited:?}");
    let none = front.edge.waited("bolt", since).await.expect("read");
    assert_eq!((none.requests, none.longest_ms), (0, 0));

    let query = AccessQuery {
        follow: false,
        since: Some(since),
    };
    let log = front.edge.access(query).await.expect("read");
    let log: Vec<Access> = log.try_collect().await.expect("read");
    let of = |label: &str| log.iter().filter(|line| line.label == label).collect::<Vec<_>>();
    assert_eq!(
        (of("acme").len(), of("bolt").len(), log.len()),
        (3, 1, 4),
        "{log:?}"
    );
    for line in of("acme") {
        assert_eq!(
            (line.method.as_str(), line.path.as_str()),
            ("POST", "/"),
            "no query"
        );
        assert_eq!((line.status, line.bytes), (200, 2));
        assert!(line.duration_ms >= 300, "{line:?}");
    }
    let printed = docker(&["logs", &installation.engine.name("edge")]);
    assert!(
        !printed.contains("s3cret") && !printed.contains("mallory"),
        "{printed}"
    );
}
