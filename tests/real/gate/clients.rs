//! `docker` and `skopeo` push to the gate and pull from it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use systemprompt::api::registry::{tenant_image, tenant_tag};
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::GateAccess;

use crate::gate::{run, serve, tenant};
use crate::{answers, docker_available, need};

struct Docker {
    config: tempfile::TempDir,
}

impl Docker {
    async fn login(host: &str, password: &str) -> Self {
        let docker = Self {
            config: tempfile::tempdir().expect("a folder"),
        };
        let arguments = ["login", "--username", "systemprompt", "--password-stdin", host];
        let (ok, text) = run(docker.command(&arguments), password).await;
        assert!(ok, "login failed: {text}");
        docker
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--config").arg(self.config.path()).args(arguments);
        command
    }

    async fn run(&self, arguments: &[&str]) -> (bool, String) {
        run(self.command(arguments), "").await
    }

    async fn must(&self, arguments: &[&str]) -> String {
        let (ok, text) = self.run(arguments).await;
        assert!(ok, "docker {arguments:?} failed: {text}");
        text.trim().to_owned()
    }
}

/// Removes what a test left on the engine, also when it failed.
struct Leftovers(String);

impl Drop for Leftovers {
    fn drop(&mut self) {
        let reference = format!("reference={}/*", self.0);
        let list = Command::new("docker")
            .args(["images", "--quiet", "--filter", &reference])
            .output();
        for id in String::from_utf8_lossy(&list.expect("docker lists").stdout).lines() {
            let _ = Command::new("docker").args(["rmi", "--force", id]).output();
        }
    }
}

/// A layer with a few files, as `docker import` takes it.
fn layer(directory: &Path) -> PathBuf {
    let path = directory.join("layer.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&path).expect("a file"));
    for number in 0..20u8 {
        let content = vec![number; 70_000];
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, format!("files/{number}"), content.as_slice())
            .expect("it is added");
    }
    builder.finish().expect("it is written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pushes_and_pulls() {
    need!(docker_available());
    let directory = tempfile::tempdir().expect("a folder");
    let served = serve(&directory.path().join("registry")).await;
    let clock = Clock::system();
    let (own, foreign) = (tenant(&clock), tenant(&clock));
    let (push, _) = served.gate.mint(&own, GateAccess::Push, 600);
    let docker = Docker::login(&served.host, push.expose()).await;
    let _leftovers = Leftovers(served.host.clone());
    let image = tenant_image(&served.host, &own);
    let tar = layer(directory.path());
    let id = docker.must(&["import", &tar.to_string_lossy(), &image]).await;

    docker.must(&["push", &image]).await;
    let stored = served
        .gate
        .resolve_tag(&own)
        .await
        .expect("it reads")
        .expect("the tag is there");
    assert_eq!(served.gate.resolve_tag(&foreign).await.expect("it reads"), None);

    docker.must(&["rmi", &image]).await;
    docker.must(&["pull", &image]).await;
    assert_eq!(docker.must(&["inspect", "--format", "{{.Id}}", &image]).await, id);
    docker.must(&["rmi", &image]).await;
    let pinned = format!("{}@{}", image.rsplit_once(':').expect("a tag").0, stored.digest);
    docker.must(&["pull", &pinned]).await;
    assert_eq!(
        docker.must(&["inspect", "--format", "{{.Id}}", &pinned]).await,
        id
    );

    let other = tenant_image(&served.host, &foreign);
    docker.must(&["tag", &pinned, &other]).await;
    let (ok, text) = docker.run(&["push", &other]).await;
    assert!(!ok && text.contains("denied"), "{text}");
    let (pull, _) = served.gate.mint(&own, GateAccess::Pull, 600);
    let reader = Docker::login(&served.host, pull.expose()).await;
    docker.must(&["tag", &pinned, &image]).await;
    let (ok, text) = reader.run(&["push", &image]).await;
    assert!(!ok && text.contains("denied"), "{text}");
    docker.must(&["rmi", "--force", &id]).await;

    let stranger = served.gate.mint(&foreign, GateAccess::Push, 600).0;
    let stranger = Docker::login(&served.host, stranger.expose()).await;
    for name in [&image, &pinned] {
        let (ok, text) = stranger.run(&["pull", name]).await;
        // An engine that still has the manifest in its own store asks for the blobs at once: unknown to a stranger too.
        let unknown = text.contains("manifest unknown") || text.contains("unknown blob");
        assert!(!ok && unknown, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_in_and_out() {
    need!(answers("skopeo", &["--version"]));
    let directory = tempfile::tempdir().expect("a folder");
    let served = serve(&directory.path().join("registry")).await;
    let own = tenant(&Clock::system());
    let source = oci_layout(&directory.path().join("source"));
    let target = format!("docker://{}", tenant_image(&served.host, &own));
    let push = served.gate.mint(&own, GateAccess::Push, 600).0;
    let auth = directory.path().join("auth.json");
    let skopeo = |arguments: &[&str]| {
        let mut command = Command::new("skopeo");
        command.args(arguments).env("REGISTRY_AUTH_FILE", &auth);
        command
    };
    let login = [
        "login",
        "--tls-verify=false",
        "-u",
        "anybody",
        "--password-stdin",
        &served.host,
    ];
    let (ok, text) = run(skopeo(&login), push.expose()).await;
    assert!(ok, "{text}");

    let copy = [
        "copy",
        "--dest-tls-verify=false",
        "--preserve-digests",
        &source,
        &target,
    ];
    let (ok, text) = run(skopeo(&copy), "").await;
    assert!(ok, "{text}");
    let stored = served
        .gate
        .resolve_tag(&own)
        .await
        .expect("it reads")
        .expect("the tag is there");
    assert_eq!(stored.media_type, "application/vnd.oci.image.manifest.v1+json");
    let (ok, text) = run(skopeo(&["inspect", "--tls-verify=false", &target]), "").await;
    assert!(
        ok && text.contains(&stored.digest) && text.contains(&tenant_tag(&own)),
        "{text}"
    );
    let back = format!("oci:{}", directory.path().join("back").display());
    let copy = [
        "copy",
        "--src-tls-verify=false",
        "--preserve-digests",
        &target,
        &back,
    ];
    let (ok, text) = run(skopeo(&copy), "").await;
    assert!(ok, "{text}");
    let hex = stored.digest.trim_start_matches("sha256:");
    let read = |name: &str| std::fs::read(directory.path().join(name).join("blobs/sha256").join(hex));
    assert_eq!(
        read("back").expect("the manifest came back"),
        read("source").expect("it was there")
    );
    let (ok, text) = run(skopeo(&["delete", "--tls-verify=false", &target]), "").await;
    assert!(!ok, "a push credential removed an image: {text}");
}

/// An image of one layer as an OCI layout; answers how skopeo names it.
fn oci_layout(directory: &Path) -> String {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::File::create(path)
            .and_then(|mut file| file.write_all(bytes))
            .expect("it is written");
    };
    let keep = |media_type: &str, bytes: &[u8]| {
        let hex = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(bytes));
        write(&blobs.join(&hex), bytes);
        serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let tar = std::fs::read(layer(directory)).expect("the layer");
    let layer = keep("application/vnd.oci.image.layer.v1.tar", &tar);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = keep(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer],
    });
    let manifest = keep(media_type, manifest.to_string().as_bytes());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    write(&directory.join("index.json"), index.to_string().as_bytes());
    write(
        &directory.join("oci-layout"),
        br#"{"imageLayoutVersion": "1.0.0"}"#,
    );
    format!("oci:{}", directory.display())
}
