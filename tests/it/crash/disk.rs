//! A database that is locked, full or read-only: the server says so and takes no work, and loses none that it has.

use std::process::Command;
use std::time::{Duration, Instant};

use systemprompt::server::store::Store;
use systemprompt::server::world::Fault;

use crate::api::rig::{client, free, text};
use crate::cli::rig::Server;
use crate::gate::harness::{Answer, Client};
use crate::sagas::proofs::block_on;

fn caller(server: &Server) -> Client {
    client(server, Some(&format!("Bearer {}", server.token_of_house())))
}

/// What a refusal says.
#[track_caller]
fn refused(answer: &Answer, wanted: &str) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let detail = text(&answer.json()["detail"]);
    assert!(detail.contains(wanted), "{detail}");
}

/// Asks until the server is ready again.
async fn ready(caller: &Client) {
    let began = Instant::now();
    while caller.get("/readyz").await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not get ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_locked_database_is_waited_for_and_nothing_is_lost() {
    let server = Server::start();
    let caller = caller(&server);
    let slow = Fault::Delay { millis: 1000 };
    server
        .world()
        .plan("provider.create_volume", 1, slow)
        .expect("planned");
    block_on(async {
        let begun = caller.checkout("acme").await;
        assert_eq!(begun.status, 201, "{}", begun.text());
        let path = std::path::Path::new(&server.data_dir()).join("systemprompt.db");
        let other = Store::open_sqlite(&path).await.expect("opened");
        let lock = other.begin().await.expect("locked");
        let answer = caller.get("/readyz").await;
        // Whoever is first in line is told by the database itself, before the line is given up.
        let detail = text(&answer.json()["detail"]);
        let told = ["took no write within", "is locked by another program"];
        assert!(told.iter().any(|told| detail.contains(told)), "{detail}");
        assert_eq!(answer.status, 503);
        // It waits for a while, then says why.
        let answer = caller.post("/api/v1/checkout", &free("late")).await;
        refused(&answer, "is locked by another program");
        drop(lock);
        other.close().await;
        ready(&caller).await;
        caller.succeeded(&begun).await;
        let names: Vec<String> = caller
            .list("/api/v1/tenants")
            .await
            .iter()
            .map(|tenant| text(&tenant["name"]))
            .collect();
        assert_eq!(names, ["acme"]);
    });
}

/// A small file system of its own; `None`, with the reason printed, where none can be had.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Self(folder);
        if disk.mount(&["-t", "tmpfs", "-o", "size=6m", "tmpfs"]) {
            return Some(disk);
        }
        eprintln!("skipped: this account may not mount a file system");
        None
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let path = self.0.path().display().to_string();
        let mounted = Command::new("mount").args(arguments).arg(path).output();
        mounted.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_refuses_new_work_and_loses_none() {
    let Some(disk) = Disk::new() else { return };
    let server = Server::start_in(disk.0.path());
    let caller = caller(&server);
    let slow = Fault::Delay { millis: 1500 };
    server
        .world()
        .plan("provider.create_volume", 1, slow)
        .expect("planned");
    block_on(async {
        let begun = caller.checkout("acme").await;
        assert_eq!(begun.status, 201, "{}", begun.text());
        let filler = disk.0.path().join("filler");
        let _ = std::process::Command::new("dd")
            .args(["if=/dev/zero", "bs=4k"])
            .arg(format!("of={}", filler.display()))
            .output();
        // What the log had room for is soon used up.
        let began = Instant::now();
        loop {
            let answer = caller.get("/readyz").await;
            if answer.status == 503 {
                refused(&answer, "has no space left on its disk");
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "it is ready though the disk is full"
            );
            caller
                .post(
                    "/api/v1/tokens",
                    &serde_json::json!({
                        "name": "filler".repeat(20), "scopes": ["read"], "expires_in_seconds": 60
                    }),
                )
                .await;
        }
        let answer = caller.post("/api/v1/checkout", &free("late")).await;
        refused(&answer, "has no space left on its disk");
        std::fs::remove_file(&filler).expect("removed");
        ready(&caller).await;
        caller.succeeded(&begun).await;
        assert_eq!(caller.list("/api/v1/tenants").await.len(), 1);
    });
}

#[test]
fn a_read_only_disk_is_named_at_the_start() {
    let Some(disk) = Disk::new() else { return };
    let mut server = Server::start_in(disk.0.path());
    server.stop_well();
    assert!(disk.mount(&["-o", "remount,ro"]), "remounted");
    let said = server.serve_once();
    assert_eq!(said.code, Some(1), "{}", said.whole());
    assert!(said.stderr.contains("Read-only file system"), "{}", said.whole());
    assert!(said.stderr.contains("hint: "), "{}", said.whole());
    assert!(disk.mount(&["-o", "remount,rw"]), "remounted");
    server.up();
    server.run(&["whoami"]).ok();
}
