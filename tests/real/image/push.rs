//! Pushing to the gate: rights, digests, connections that break.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use systemprompt::api::id::TenantId;
use systemprompt::api::registry::{REPOSITORY, tenant_image, tenant_tag};
use systemprompt::api::secret::SecretText;
use systemprompt::image::engine::Engine;
use systemprompt::image::error::ImageError;
use systemprompt::image::progress::Silent;
use systemprompt::image::prune::{REFERENCE_LABEL, prune};
use systemprompt::image::push::{PushRequest, push};
use systemprompt::server::clock::Clock;
use systemprompt::server::containers::{Engine as ServerEngine, EngineSettings};
use systemprompt::server::registry::{Gate, GateAccess};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::gate::{open, serve, tenant};
use crate::image::{Project, Seen, docker, engine};
use crate::need;

async fn built(engine: &Engine, host: &str, tenant: &TenantId) -> Project {
    let project = Project::new(&[
        ("Dockerfile", "FROM scratch\nCOPY a /a\nCOPY b /b\nCMD [\"-\"]\n"),
        ("a", tenant.as_str()),
        ("b", &"b".repeat(100_000)),
    ]);
    project
        .build(engine, &tenant_image(host, tenant))
        .await
        .expect("it builds");
    project
}

fn request(gate: &Gate, tenant: &TenantId) -> PushRequest {
    PushRequest {
        registry: gate.registry_host().to_owned(),
        repository: REPOSITORY.to_owned(),
        tag: tenant_tag(tenant),
        username: "systemprompt".to_owned(),
        password: gate.mint(tenant, GateAccess::Push, 300).0,
        ca_file: None,
        resumes: false,
    }
}

#[tokio::test]
async fn the_digest_is_the_gates_and_a_second_push_sends_nothing() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let (served, tenant) = (serve(folder.path()).await, tenant(&Clock::system()));
    for buildkit in [true, false] {
        let engine = engine(buildkit).await;
        let _project = built(&engine, &served.host, &tenant).await;
        let request = request(&served.gate, &tenant);
        let pushed = push(&engine, &request, &Silent).await.expect("it is pushed");
        let stored = served
            .gate
            .resolve_tag(&tenant)
            .await
            .expect("the gate answers")
            .expect("it is there");
        assert_eq!(pushed.digest, stored.digest);
        assert!(
            stored.size_bytes > pushed.size_bytes && pushed.size_bytes > 0,
            "the gate counts the list beside its parts"
        );

        let seen = Seen::default();
        assert_eq!(push(&engine, &request, &seen).await.expect("again"), pushed);
        assert!(
            !seen.lines().iter().any(|line| line.starts_with("Layer ")),
            "{:?}",
            seen.lines()
        );
    }
}

#[tokio::test]
async fn a_bad_credential_is_refused_at_once() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::system();
    let (served, tenant, other) = (serve(folder.path()).await, tenant(&clock), tenant(&clock));
    let engine = engine(true).await;
    let _project = built(&engine, &served.host, &tenant).await;
    let good = request(&served.gate, &tenant);
    let wrong = PushRequest {
        password: SecretText::new("wrong"),
        ..good.clone()
    };
    let weak = PushRequest {
        password: served.gate.mint(&tenant, GateAccess::Pull, 300).0,
        ..good.clone()
    };
    for request in [wrong, weak] {
        let started = Instant::now();
        let error = push(&engine, &request, &Silent).await.expect_err("it is refused");
        assert!(matches!(error, ImageError::PushRefused { .. }), "{error:?}");
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        assert!(error.hint().is_some());
    }
    // A credential of somebody else does not open this tag.
    let foreign = PushRequest {
        password: served.gate.mint(&other, GateAccess::Push, 300).0,
        ..good
    };
    let error = push(&engine, &foreign, &Silent).await.expect_err("it is refused");
    assert!(matches!(error, ImageError::PushRefused { .. }), "{error:?}");
    assert_eq!(
        served.gate.resolve_tag(&tenant).await.expect("the gate answers"),
        None
    );
}

#[tokio::test]
async fn a_push_that_was_cut_off_goes_on() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let proxy = Proxy::start(folder.path()).await;
    let tenant = tenant(&Clock::system());
    let engine = engine(true).await;
    let _project = built(&engine, proxy.gate.registry_host(), &tenant).await;
    let seen = Arc::new(Seen::default());
    let request = request(&proxy.gate, &tenant);
    proxy.cut(Cut::OurLayer);
    let pushed = push(&engine, &request, &*seen).await.expect("it is pushed");
    for attempt in ["attempt 2 of 3", "attempt 3 of 3"] {
        assert!(
            seen.lines().iter().any(|line| line.contains(attempt)),
            "{:?}",
            seen.lines()
        );
    }
    let stored = proxy
        .gate
        .resolve_tag(&tenant)
        .await
        .expect("the gate answers")
        .expect("it is there");
    assert_eq!(pushed.digest, stored.digest);

    proxy.cut(Cut::All);
    let error = push(&engine, &request, &Silent)
        .await
        .expect_err("the registry is gone");
    assert!(
        matches!(error, ImageError::PushFailed { attempts: 3, .. }),
        "{error:?}"
    );
}

/// A gate behind a connection that can be cut.
struct Proxy {
    gate: Gate,
    cut: Arc<Mutex<Cut>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Nothing,
    All,
    /// Our connection in the middle of a layer; then what the engine sends, until we ask again: that is the third attempt.
    OurLayer,
    EngineUntilWeAskAgain,
    EngineNow,
}

impl Proxy {
    async fn start(directory: &std::path::Path) -> Self {
        let front = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let back = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let behind = back.local_addr().expect("an address");
        let gate = open(directory, front.local_addr().expect("an address")).await;
        let router = gate.router();
        let cut = Arc::new(Mutex::new(Cut::Nothing));
        let shared = Arc::clone(&cut);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(back, router).await.expect("it serves") });
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = front.accept().await.expect("a connection");
                connections.spawn(pipe(client, behind, Arc::clone(&shared)));
            }
        });
        Self {
            gate,
            cut,
            _tasks: tasks,
        }
    }

    fn cut(&self, what: Cut) {
        *self.cut.lock().expect("a lock") = what;
    }
}

async fn pipe(mut client: TcpStream, behind: SocketAddr, cut: Arc<Mutex<Cut>>) {
    let mut head = vec![0; 4096];
    let count = client.peek(&mut head).await.unwrap_or(0);
    let is_engine = String::from_utf8_lossy(&head[..count]).contains("User-Agent: docker/");
    let is_cut = {
        let mut cut = cut.lock().expect("a lock");
        *cut = match (*cut, is_engine) {
            (Cut::EngineUntilWeAskAgain, true) => Cut::EngineNow,
            (Cut::EngineNow, false) => Cut::Nothing,
            (same, _) => same,
        };
        *cut == Cut::All || (*cut == Cut::EngineNow && is_engine)
    };
    if is_cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(behind).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        () = until_cut(&mut from_client, &mut to_server, &cut) => {}
    }
}

/// Passes on what is sent, until it is a layer of ours that shall not arrive.
async fn until_cut(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    cut: &Mutex<Cut>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let is_layer = bytes[..count].windows(6).any(|word| word == b"PATCH ");
        if is_layer && is_ours_to_cut(cut) {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

fn is_ours_to_cut(cut: &Mutex<Cut>) -> bool {
    let mut cut = cut.lock().expect("a lock");
    let is_now = *cut == Cut::OurLayer;
    if is_now {
        *cut = Cut::EngineUntilWeAskAgain;
    }
    is_now
}

/// Digests of the layers by the tag, as the gate tells them.
async fn layers(request: &PushRequest) -> Vec<String> {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let at = |path: &str| format!("http://{}/v2/{path}", request.registry);
    let scope = format!("token?scope=repository:{REPOSITORY}:pull");
    let asked = client
        .get(at(&scope))
        .basic_auth(&request.username, Some(request.password.expose()));
    let told = asked.send().await.expect("an answer");
    let token: serde_json::Value = told.json().await.expect("a token");
    let asked = client.get(at(&format!("{REPOSITORY}/manifests/{}", request.tag)));
    let asked = asked.bearer_auth(token["token"].as_str().expect("a token"));
    let asked = asked.header("accept", "application/vnd.oci.image.manifest.v1+json");
    let told = asked.send().await.expect("an answer");
    let manifest: serde_json::Value = told.json().await.expect("a manifest");
    let layers = manifest["layers"].as_array().expect("layers").iter();
    layers
        .map(|layer| layer["digest"].as_str().expect("a digest").to_owned())
        .collect()
}

/// What is there is not sent again; what only looks as if it were (as large as a layer of the tag) is sent.
#[tokio::test]
async fn only_layers_that_the_registry_lacks_are_sent() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let (served, tenant) = (serve(folder.path()).await, tenant(&Clock::system()));
    let engine = engine(false).await;
    let large = |letter: &str| letter.repeat(5 << 20);
    let mut pushed = Vec::new();
    let mut blobs = Vec::new();
    for second in ["b", "c"] {
        let project = Project::new(&[
            ("Dockerfile", "FROM scratch\nCOPY a /a\nCOPY b /b\nCMD [\"-\"]\n"),
            ("a", &large("a")),
            ("b", &large(second)),
        ]);
        let image = tenant_image(&served.host, &tenant);
        project.build(&engine, &image).await.expect("it builds");
        let request = request(&served.gate, &tenant);
        push(&engine, &request, &Silent).await.expect("it is pushed");
        pushed.push(layers(&request).await);
        blobs.push(blobs_in(folder.path()));
    }
    assert_eq!(pushed[0][0], pushed[1][0], "the same layer, packed once");
    assert_ne!(pushed[0][1], pushed[1][1]);
    // Two layers and a configuration, then one of each; manifests are no blobs.
    assert_eq!(blobs[1] - blobs[0], 2, "{blobs:?}");
    // What was put together here is what an engine runs.
    let server = ServerEngine::new(EngineSettings {
        endpoint: None,
        instance: "layers".to_owned(),
    });
    let image = tenant_image(&served.host, &tenant);
    docker(&["image", "rm", "--force", &image]);
    let credentials = bollard::auth::DockerCredentials {
        username: Some("systemprompt".to_owned()),
        password: Some(request(&served.gate, &tenant).password.expose().to_owned()),
        ..Default::default()
    };
    server.pull(&image, Some(credentials)).await.expect("it pulls");
    docker(&["image", "rm", "--force", &image]);
}

/// How many blobs are in the folder of a gate.
fn blobs_in(folder: &std::path::Path) -> usize {
    let found = std::process::Command::new("find")
        .arg(folder)
        .args(["-path", "*blobs*", "-type", "f"])
        .output();
    String::from_utf8_lossy(&found.expect("find runs").stdout)
        .lines()
        .count()
}

#[tokio::test]
async fn what_was_pushed_or_pulled_is_listed_and_goes_by_its_digest() {
    need!(crate::docker_available());
    let folder = tempfile::tempdir().expect("a folder");
    let (served, tenant) = (serve(folder.path()).await, tenant(&Clock::system()));
    let own = engine(true).await;
    let _project = built(&own, &served.host, &tenant).await;
    let request = request(&served.gate, &tenant);
    let pushed = push(&own, &request, &Silent).await.expect("it is pushed");
    let server = ServerEngine::new(EngineSettings {
        endpoint: None,
        instance: "images".to_owned(),
    });
    let repository = format!("{}/{REPOSITORY}", served.host);
    let image = format!("{repository}@{}", pushed.digest);
    // An image that the engine itself did not push has a digest on it once it was pulled.
    let credentials = bollard::auth::DockerCredentials {
        username: Some(request.username.clone()),
        password: Some(request.password.expose().to_owned()),
        ..Default::default()
    };
    server.pull(&image, Some(credentials)).await.expect("it pulls");
    let list = async || server.list_images(&repository).await.expect("it lists");
    assert_eq!(list().await, [image.as_str()]);
    // A container holds it.
    let made = docker(&["create", &image]);
    server.remove_image(&image).await.expect("nothing happens");
    docker(&["rm", &made]);
    server.remove_image(&image).await.expect("it removes");
    server.remove_image(&image).await.expect("again");
    assert_eq!(list().await, [""; 0]);
    // The name that the developer's engine gave it is not ours to take.
    docker(&["image", "inspect", &tenant_image(&served.host, &tenant)]);
}

#[tokio::test]
async fn older_images_of_the_same_name_go_and_nothing_else() {
    need!(crate::docker_available());
    let host = "127.0.0.1:9/systemprompt-images";
    let (reference, other) = (format!("{host}:tenant-prune-a"), format!("{host}:tenant-prune-b"));
    for buildkit in [true, false] {
        let engine = engine(buildkit).await;
        let project = Project::new(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "1")]);
        let build = async |name: &str, text: &str, labelled: bool| {
            std::fs::File::create(project.path().join("a"))
                .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
                .expect("written");
            let mut request = project.request(name);
            if labelled {
                request.labels.insert(REFERENCE_LABEL.to_owned(), name.to_owned());
            }
            let built = systemprompt::image::build::build(&engine, request, Arc::new(Silent)).await;
            built.expect("it builds").image_id
        };
        let foreign = build(&reference, "not ours", false).await;
        let neighbour = build(&other, "of another tenant", true).await;
        build(&other, "its newer one", true).await;
        let old = build(&reference, "old", true).await;
        let named = build(&reference, "old with a name", true).await;
        docker(&["tag", &named, "systemprompt-test/prune:kept"]);
        let new = build(&reference, "new", true).await;
        assert_eq!(prune(&engine, &reference).await.expect("it prunes"), 1);
        let is_there = |id: &str| crate::answers("docker", &["image", "inspect", id]).is_ok();
        assert!(!is_there(&old));
        for kept in [&foreign, &neighbour, &named, &new] {
            assert!(is_there(kept), "{kept}");
        }
        assert_eq!(prune(&engine, &reference).await.expect("again"), 0);
        for id in [&foreign, &neighbour, &named] {
            docker(&["image", "rm", "--force", id]);
        }
    }
}
