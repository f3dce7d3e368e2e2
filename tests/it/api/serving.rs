//! Starting, stopping and starting again; what is said when the server cannot start; work on its data beside it.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use systemprompt::server::world::{Fault, World};

use crate::api::rig::{Api, free, text};
use crate::cli::rig::{House, Said, Server, said};
use crate::ports::free_port;

/// Compares what a command said with its snapshot.
#[track_caller]
fn snapshot(name: &str, said: &Said, data: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter(&regex::escape(data), "DATA");
    settings.add_filter(r"127\.0\.0\.1:\d+`\n", "127.0.0.1:PORT`\n");
    settings.add_filter(r"process \d+", "process ID");
    // How many migrations there are is not what these tests are about.
    settings.add_filter(r"(lacks|applied): \d+(, \d+)*", "$1: VERSIONS");
    settings.add_filter(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "WHEN");
    settings.add_filter(r"acc_[0-9a-hjkmnp-tv-z]{26}", "acc_ID");
    settings.add_filter(r"\n(?:[2-9]|\d\d+) +\w+ +WHEN", "");
    // As wide as the longest name of a migration.
    settings.add_filter(r"NAME +APPLIED", "NAME          APPLIED");
    settings.add_filter(r"initial +WHEN", "initial       WHEN");
    settings.bind(|| insta::assert_snapshot!(name, said.whole()));
}

/// A house whose server's data would be in its home, and where that is.
fn house() -> (House, String) {
    let house = House::new().with("SYSTEMPROMPT_PROVIDER", "fake");
    let data = house.path("data").display().to_string();
    (house.with("SYSTEMPROMPT_DATA_DIR", &data), data)
}

#[tokio::test]
async fn it_stops_soon_with_streams_open_and_ends_them_well() {
    let mut api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let request = api.owner.call(Method::GET, &format!("{tenant}/events"));
        let request = request.header("accept", "text/event-stream");
        streams.push(request.send().await.expect("a stream"));
    }
    let took = api.server.stop_well();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    for mut stream in streams {
        while stream
            .chunk()
            .await
            .expect("a stream that is ended and not cut")
            .is_some()
        {}
    }
    api.server.up();
    assert_eq!(api.owner.read(&tenant).await["status"], "awaiting_deploy");
}

#[tokio::test]
async fn what_a_stop_interrupts_the_next_start_takes_up() {
    let mut api = Api::start();
    let slow = Fault::Delay { millis: 2000 };
    api.server
        .world()
        .plan("provider.create_volume", 1, slow)
        .expect("planned");
    let begun = api.owner.checkout("acme").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let path = format!("/api/v1/operations/{}", text(&begun.json()["operation_id"]));
    assert_eq!(api.owner.read(&path).await["status"], "running");
    let took = api.server.stop_well();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    api.server.up();
    api.owner.succeeded(&begun).await;
}

#[tokio::test]
async fn a_claim_whose_server_died_blocks_nobody() {
    let mut api = Api::start();
    let request = |api: &Api| {
        let request = api
            .owner
            .call(Method::POST, "/api/v1/checkout")
            .json(&free("acme"));
        request.header("idempotency-key", "one")
    };
    let first = api.owner.send(request(&api)).await;
    assert_eq!(first.status, 201, "{}", first.text());
    api.owner.succeeded(&first).await;
    api.server.stop_well();
    api.server.up();
    let again = api.owner.send(request(&api)).await;
    assert_eq!(again.text(), first.text());
    assert_eq!(again.header("idempotency-replayed"), "true");
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start_unsigned();
    let data = server.data_dir();
    snapshot("serve-held", &server.serve_once(), &data);
}

/// As the first process of a container it would not be ended by a signal that it does not wait for.
#[test]
fn it_may_be_told_to_stop_before_it_answers() {
    let (house, data) = house();
    std::fs::create_dir(&data).expect("a folder");
    let world = World::open(&house.path("data/world.json")).expect("a world");
    let slow = Fault::Delay { millis: 60_000 };
    world.plan("provider.ping", 1, slow).expect("planned");
    let mut command = house.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = command.spawn().expect("the program runs");
    while world.calls("provider.ping").expect("a world") == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let began = Instant::now();
    let pid = server.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.expect("kill runs").success());
    assert_eq!(server.wait().expect("its end").code(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
}

#[test]
fn what_is_said_when_it_cannot_start() {
    let (house, data) = house();
    let serve = |more: &[&str]| {
        let arguments: Vec<&str> = ["serve"].iter().chain(more).copied().collect();
        house.run(&arguments)
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    snapshot("serve-port-taken", &serve(&["--listen", &address]), &data);
    let anywhere = ["--listen", "127.0.0.1:0"];
    let with = |more: &[&'static str]| [anywhere.as_slice(), more].concat();
    snapshot("serve-no-migrate", &serve(&with(&["--no-migrate"])), &data);
    snapshot(
        "serve-public-url",
        &serve(&with(&["--public-url", "example.com"])),
        &data,
    );
    snapshot(
        "serve-bad-pool",
        &serve(&with(&["--provider", "docker", "--address-pool", "10.0.0.0"])),
        &data,
    );
    let admin = ["--admin-email", "a@b", "--admin-password-file", "/nonexistent"];
    snapshot("serve-no-password", &serve(&with(&admin)), &data);
    let engine = house.with("DOCKER_HOST", "unix:///nonexistent.sock");
    let said = engine.run(&["serve", "--provider", "docker", "--listen", "127.0.0.1:0"]);
    snapshot("serve-no-engine", &said, &data);
    let engine = engine.with("SYSTEMPROMPT_PROVIDER", "nomad");
    snapshot("serve-bad-variable", &engine.run(&["serve"]), &data);
    engine.put("file", "not a folder");
    let file = engine.path("file").display().to_string();
    let said = engine.run(&[
        "serve",
        "--provider",
        "fake",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &file,
    ]);
    snapshot("serve-no-folder", &said, &file);
}

/// A server that starts is waited for; then what the machine says of it is told, and no word of the URL.
#[test]
fn what_is_said_when_postgresql_does_not_answer() {
    let (house, data) = house();
    let nobody = free_port();
    let url = format!("postgres://somebody:hidden@127.0.0.1:{nobody}/systemprompt");
    let house = house.with("SYSTEMPROMPT_DATABASE_URL", &url);
    let said = house.run(&["serve", "--provider", "fake", "--listen", "127.0.0.1:0"]);
    assert!(!said.whole().contains("hidden"));
    snapshot("serve-no-postgres", &said, &data);
}

#[test]
fn work_on_the_data_of_a_server() {
    let server = Server::start_unsigned();
    let data = server.data_dir();
    let run = |arguments: &[&str], input: &str| {
        let place = ["--data-dir", &data];
        let arguments: Vec<&str> = ["server"]
            .iter()
            .chain(arguments)
            .chain(&place)
            .copied()
            .collect();
        server.house.feed(&arguments, input)
    };
    snapshot("server-migrate-status", &run(&["migrate", "status"], ""), &data);
    snapshot("server-migrate-up", &run(&["migrate", "up"], ""), &data);
    let create = ["account", "create", "eve@example.org"];
    snapshot("server-account-create", &run(&create, "long enough\n"), &data);
    snapshot("server-account-again", &run(&create, "long enough\n"), &data);
    let other = ["account", "create", "x@example.org"];
    snapshot("server-account-short", &run(&other, "short\n"), &data);
    snapshot("server-account-silent", &run(&other, ""), &data);
    snapshot(
        "server-link-nobody",
        &run(&["link", "nobody@example.org"], ""),
        &data,
    );
    let token = [
        "token",
        "create",
        "--account",
        "eve@example.org",
        "--scope",
        "read",
    ];
    let with = |more: &[&'static str]| [token.as_slice(), more].concat();
    snapshot(
        "server-token-long",
        &run(&with(&["--expires-in", "91d"]), ""),
        &data,
    );
    let foreign = ["--expires-in", "1d", "--tenant", "ten_00000000000000000000000001"];
    snapshot("server-token-foreign", &run(&with(&foreign), ""), &data);
}

#[test]
fn work_on_data_that_no_server_has_touched() {
    let (house, data) = house();
    snapshot(
        "server-absent",
        &house.run(&["server", "link", "ada@example.org"]),
        &data,
    );
    snapshot(
        "server-migrate-first",
        &house.run(&["server", "migrate", "up"]),
        &data,
    );
    snapshot(
        "server-migrate-history",
        &house.run(&["server", "migrate", "history"]),
        &data,
    );
}

#[test]
fn the_first_start_takes_a_password_from_standard_input() {
    let (house, _) = house();
    let script = "echo 'correct horse battery' | \"$PROGRAM\" serve --listen 127.0.0.1:0 \
                  --admin-email ada@example.org --admin-password-file - > out & \
                  until grep -q account out 2>/dev/null; do sleep 0.05; done; kill $!; wait $!";
    let said = said(house.script(script).output().expect("bash runs")).ok();
    let told = house.read("out");
    assert!(
        told.contains("made the operator account ada@example.org"),
        "{told}"
    );
    assert!(
        !told.contains("sign in once"),
        "there is a password, so no link: {told}"
    );
    assert!(!said.whole().contains("correct horse"), "{}", said.whole());
}
