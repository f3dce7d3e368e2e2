//! The gate is killed in the middle of a push; its disk is full in the middle of a push.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::header::{LOCATION, RANGE};
use sha2::{Digest as _, Sha256};
use systemprompt::api::id::TenantId;
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::GateAccess;

use crate::gate::{open, serve, tenant};
use crate::need;

const MIB: usize = 1024 * 1024;
const BIT: usize = MIB / 2 + 345;

struct Pusher {
    http: reqwest::Client,
    host: String,
    password: String,
}

impl Pusher {
    async fn new(host: &str, tenant: &TenantId) -> Self {
        // All gates of these tests share a key, so one that nobody asks can mint for another.
        let directory = tempfile::tempdir().expect("a folder");
        let gate = open(directory.path(), "127.0.0.1:1".parse().expect("an address")).await;
        let password = gate.mint(tenant, GateAccess::Push, 600).0.expose().to_owned();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build();
        Self {
            http: http.expect("a client"),
            host: host.to_owned(),
            password,
        }
    }

    fn call(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.host);
        self.http
            .request(method, url)
            .basic_auth("systemprompt", Some(&self.password))
    }

    async fn begin(&self) -> String {
        let path = "/v2/systemprompt-images/blobs/uploads/";
        let answer = self
            .call(reqwest::Method::POST, path)
            .send()
            .await
            .expect("it answers");
        answer.headers()[LOCATION].to_str().expect("a path").to_owned()
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index / 7) as u8 ^ (index / 4096) as u8)
        .collect()
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Every file below `folder` with its length, by its path relative to `folder`.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a kind").is_dir() {
                true => folders.push(entry.path()),
                false => {
                    let path = entry.path().strip_prefix(folder).expect("below it").to_owned();
                    found.push((path, entry.metadata().expect("its length").len()));
                }
            }
        }
    }
    found
}

/// Not a test: what [`a_killed_server_leaves_only_uploads_and_they_go_on`] runs, and kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child process of another test"]
async fn serve_until_killed() {
    let mut directory = String::new();
    std::io::stdin().read_line(&mut directory).expect("a folder");
    let served = serve(Path::new(directory.trim())).await;
    println!("\nlistening {}", served.host);
    std::future::pending::<()>().await;
}

fn start_child(directory: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "gate::faults::serve_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{}", directory.display()).expect("it reads");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let host = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("listening ").map(str::to_owned))
        .expect("it listens");
    (child, host)
}

async fn wait_for_written(folder: &Path, wanted: usize) {
    let begin = Instant::now();
    loop {
        let written: u64 = files(folder).iter().map(|(_, length)| length).sum();
        if written >= wanted as u64 {
            return;
        }
        assert!(begin.elapsed().as_secs() < 30, "only {written} bytes are written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_only_uploads_and_they_go_on() {
    let directory = tempfile::tempdir().expect("a folder");
    let tenant = tenant(&Clock::system());
    let (mut child, host) = start_child(directory.path());
    let pusher = Pusher::new(&host, &tenant).await;
    let content = pattern(5 * MIB);
    let location = pusher.begin().await;
    // The first 3 MiB and a bit arrive, then the client is silent, and then the server is killed. How much of the bit
    // waits in buffers on the way is nobody's promise.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let patch = pusher.call(reqwest::Method::PATCH, &location).body(body).send();
    let first = content[..3 * MIB + BIT].to_vec();
    let feed = async {
        sender
            .send(Ok::<_, std::io::Error>(first))
            .await
            .expect("it is taken");
        wait_for_written(directory.path(), 3 * MIB).await;
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
    };
    let (answer, ()) = tokio::join!(patch, feed);
    assert!(answer.is_err(), "a killed server cannot answer");
    drop(sender);
    let uploads = Path::new(tenant.as_str()).join("uploads");
    let left = files(directory.path());
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].0.starts_with(&uploads), "{left:?}");

    let served = serve(directory.path()).await;
    let pusher = Pusher::new(&served.host, &tenant).await;
    let status = pusher
        .call(reqwest::Method::GET, &location)
        .send()
        .await
        .expect("it answers");
    assert_eq!(status.status(), 204);
    let range = status.headers()[RANGE].to_str().expect("a range");
    let last: usize = range
        .strip_prefix("0-")
        .expect("from the start")
        .parse()
        .expect("a number");
    assert!((3 * MIB - 1..3 * MIB + BIT).contains(&last), "{range}");
    let rest = content[last + 1..].to_vec();
    let digest = digest_of(&content);
    let path = format!("{location}?digest={digest}");
    let done = pusher
        .call(reqwest::Method::PUT, &path)
        .header("Content-Range", format!("{}-{}", last + 1, content.len() - 1))
        .body(rest);
    assert_eq!(done.send().await.expect("it answers").status(), 201);
    let blob = format!("/v2/systemprompt-images/blobs/{digest}");
    let blob = pusher
        .call(reqwest::Method::GET, &blob)
        .send()
        .await
        .expect("it answers");
    assert!(
        blob.bytes().await.expect("its bytes") == content,
        "the blob is another"
    );
}

/// A small file system of its own, unmounted in the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(directory.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self(directory)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("`mount` cannot be run: {error}")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_half_written_stays() {
    let disk = SmallDisk::mount();
    need!(disk.as_ref().map(|_| ()).map_err(Clone::clone));
    let disk = disk.expect("it is mounted");
    let served = serve(disk.0.path()).await;
    let tenant = tenant(&Clock::system());
    let pusher = Pusher::new(&served.host, &tenant).await;
    let big = pattern(6 * MIB);

    let location = pusher.begin().await;
    let patch = pusher.call(reqwest::Method::PATCH, &location).body(big.clone());
    let answer = patch.send().await.expect("it answers");
    assert_eq!(answer.status(), 507);
    let text = answer.text().await.expect("a text");
    assert!(text.contains("disk is full"), "{text}");
    assert_eq!(files(disk.0.path()), []);
    let path = format!(
        "/v2/systemprompt-images/blobs/uploads/?digest={}",
        digest_of(&big)
    );
    let post = pusher.call(reqwest::Method::POST, &path).body(big);
    assert_eq!(post.send().await.expect("it answers").status(), 507);
    assert_eq!(files(disk.0.path()), []);

    let small = pattern(MIB);
    let path = format!(
        "/v2/systemprompt-images/blobs/uploads/?digest={}",
        digest_of(&small)
    );
    let post = pusher.call(reqwest::Method::POST, &path).body(small);
    assert_eq!(post.send().await.expect("it answers").status(), 201);
}
