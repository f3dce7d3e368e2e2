//! Deploys through the gate: what is pushed is what runs, one at a time, and a bad release takes nothing down.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use systemprompt::server::world::Fault;

use crate::api::rig::{Api, PATIENCE, pretty, problem, snapshot, text};
use crate::gate::harness::Client;

/// What phase 2 tells, in order.
const DEPLOYED: [&str; 9] = [
    "deploy_started",
    "image_verified",
    "release_created",
    "release_command_started",
    "release_command_finished",
    "machine_created",
    "health_passed",
    "traffic_switched",
    "tenant_ready",
];

/// A tenant that one release serves, and how many events it has.
async fn running(owner: &Client) -> (String, usize) {
    let tenant = owner.tenant("acme").await;
    owner.succeeded(&owner.deploy(&tenant, "one").await).await;
    let events = owner.event_names(&tenant).await.len();
    (tenant, events)
}

#[tokio::test]
async fn what_is_pushed_is_what_runs() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let before = api.owner.event_names(&tenant).await.len();
    let (image, digest) = api.owner.push(&tenant, "one").await;
    let body = json!({"image": image, "digest": digest, "message": "the first"});
    let accepted = api.owner.post(&format!("{tenant}/deploy"), &body).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let path = format!("/api/v1/operations/{}", text(&accepted.json()["id"]));
    assert_eq!(accepted.header("location"), path);
    let operation = api.owner.succeeded(&accepted).await;
    snapshot("operation-deploy", &pretty(&operation));
    let release = api.owner.read(&format!("{tenant}/releases/1")).await;
    assert_eq!(release["digest"], digest);
    snapshot("release", &pretty(&release));
    assert_eq!(api.owner.event_names(&tenant).await[before..], DEPLOYED);
    let status = api.owner.read(&format!("{tenant}/status")).await;
    snapshot("status-running", &pretty(&status));
}

#[tokio::test]
async fn the_machine_runs_the_digest_and_not_the_tag() {
    let api = Api::start();
    let (tenant, _) = running(&api.owner).await;
    let release = api.owner.read(&format!("{tenant}/releases/1")).await;
    let images = api.server.world().change(|state| {
        let machines = state.machines.values();
        machines.map(|machine| machine.image.clone()).collect::<Vec<_>>()
    });
    let images = images.expect("reads");
    assert_eq!(images.len(), 1, "{images:?}");
    assert!(
        images[0].ends_with(&format!("@{}", text(&release["digest"]))),
        "{images:?}"
    );
}

#[tokio::test]
async fn a_second_release_takes_the_place_of_the_first() {
    let api = Api::start();
    let (tenant, _) = running(&api.owner).await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "two").await).await;
    let releases = api.owner.list(&format!("{tenant}/releases")).await;
    let shown: Vec<(&Value, &Value)> = releases.iter().map(|it| (&it["number"], &it["status"])).collect();
    assert_eq!(
        shown,
        [(&json!(2), &json!("active")), (&json!(1), &json!("superseded"))]
    );
    let machines: Vec<String> = api.server.world().resources().expect("reads");
    let machines: Vec<&String> = machines
        .iter()
        .filter(|line| line.starts_with("machine "))
        .collect();
    assert_eq!(machines.len(), 1, "{machines:?}");
}

#[tokio::test]
async fn current_is_the_image_that_runs() {
    let api = Api::start();
    let (tenant, _) = running(&api.owner).await;
    // What is pushed meanwhile is not what `current` means.
    api.owner.push(&tenant, "not yet").await;
    let again = api
        .owner
        .post(&format!("{tenant}/deploy"), &json!({"image": "current"}))
        .await;
    api.owner.succeeded(&again).await;
    let first = api.owner.read(&format!("{tenant}/releases/1")).await;
    let second = api.owner.read(&format!("{tenant}/releases/2")).await;
    assert_eq!(second["digest"], first["digest"]);
    assert_eq!(second["image"], first["image"]);
}

#[tokio::test]
async fn only_the_tenants_own_image_is_deployed() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let (image, _) = api.owner.push(&tenant, "one").await;
    for wrong in [
        "docker.io/library/nginx:latest".to_owned(),
        format!("{image}x"),
        format!(" {image}"),
        image.replace(":tenant-", ":"),
        image.to_uppercase(),
        String::new(),
    ] {
        let answer = api
            .owner
            .post(&format!("{tenant}/deploy"), &json!({"image": wrong}))
            .await;
        assert_eq!(problem(&answer), (400, "image-mismatch".to_owned()), "{wrong}");
        assert!(
            text(&answer.json()["detail"]).contains(&image),
            "{}",
            answer.text()
        );
    }
    let answer = api
        .owner
        .post(&format!("{tenant}/deploy"), &json!({"image": "x"}))
        .await;
    snapshot("image-mismatch", &pretty(&answer.json()));
}

#[tokio::test]
async fn another_digest_than_the_one_that_was_pushed_is_refused() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let (image, digest) = api.owner.push(&tenant, "one").await;
    api.owner.push(&tenant, "two").await;
    let path = format!("{tenant}/deploy");
    let answer = api
        .owner
        .post(&path, &json!({"image": image, "digest": digest}))
        .await;
    assert_eq!(problem(&answer), (409, "digest-changed".to_owned()));
    assert!(api.owner.list(&format!("{tenant}/releases")).await.is_empty());
}

#[tokio::test]
async fn there_must_be_something_to_deploy() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let token = api.owner.read(&format!("{tenant}/registry-token")).await;
    let part = |name: &str| text(&token[name]);
    let image = format!("{}/{}:{}", part("registry"), part("repository"), part("tag"));
    for (image, code) in [(image.as_str(), "no-image"), ("current", "tenant-state")] {
        let answer = api
            .owner
            .post(&format!("{tenant}/deploy"), &json!({"image": image}))
            .await;
        assert_eq!(problem(&answer), (409, code.to_owned()));
    }
}

#[tokio::test]
async fn settings_of_a_deploy_are_checked() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    for (field, value) in [
        ("strategy", json!("canary")),
        ("message", json!("m".repeat(501))),
        ("fingerprint", json!("f".repeat(129))),
        ("health_path", json!("livez")),
        ("health_path", json!("/a b")),
        ("release_command", json!(["nul \u{0} inside"])),
        ("release_command", json!("not a list")),
        ("colour", json!("red")),
    ] {
        let mut body = json!({"image": "current"});
        body[field] = value;
        let answer = api.owner.post(&format!("{tenant}/deploy"), &body).await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{field}");
        assert_eq!(answer.json()["errors"][0]["pointer"], format!("#/{field}"));
    }
}

#[tokio::test]
async fn one_deploy_at_a_time() {
    let api = Api::start();
    let (tenant, _) = running(&api.owner).await;
    let world = api.server.world();
    world
        .plan("provider.start_machine", 1, Fault::Delay { millis: 2000 })
        .expect("plans");
    let first = api.owner.deploy(&tenant, "two").await;
    let path = format!("{tenant}/deploy");
    let second = api.owner.post(&path, &json!({"image": "current"})).await;
    assert_eq!(problem(&second), (409, "tenant-busy".to_owned()));
    let told = second.json();
    assert_eq!(told["retryable"], true);
    assert!(
        text(&told["detail"]).contains(&text(&first.json()["id"])),
        "{told:#}"
    );
    snapshot("tenant-busy", &pretty(&told));
    api.owner.succeeded(&first).await;
    let third = api.owner.post(&path, &json!({"image": "current"})).await;
    api.owner.succeeded(&third).await;
}

#[tokio::test]
async fn of_two_deploys_in_the_same_moment_one_goes_ahead() {
    let api = Api::start();
    let (tenant, _) = running(&api.owner).await;
    api.owner.stage(&tenant, "FAKE_BEHAVIOUR", "slow-ready").await;
    let path = format!("{tenant}/deploy");
    let body = json!({"image": "current"});
    let send = || api.owner.post(&path, &body);
    let (a, b, c) = tokio::join!(send(), send(), send());
    let (taken, refused): (Vec<_>, Vec<_>) = [a, b, c].into_iter().partition(|it| it.status == 202);
    assert_eq!(taken.len(), 1);
    for answer in &refused {
        assert_eq!(problem(answer), (409, "tenant-busy".to_owned()));
    }
    api.owner.succeeded(&taken[0]).await;
    assert_eq!(api.owner.list(&format!("{tenant}/releases")).await.len(), 2);
}

#[tokio::test]
async fn a_release_that_ends_at_once_leaves_the_old_one_serving() {
    let api = Api::start();
    let (tenant, before) = running(&api.owner).await;
    api.owner.stage(&tenant, "FAKE_BEHAVIOUR", "exit-1").await;
    let failed = api.owner.finished(&api.owner.deploy(&tenant, "two").await).await;
    assert_eq!(failed["status"], "failed", "{failed:#}");
    snapshot("operation-deploy-failed", &pretty(&failed));
    let shown = api.owner.read(&tenant).await;
    assert_eq!(
        (&shown["status"], &shown["current_release"]),
        (&json!("running"), &json!(1))
    );
    let events = api.owner.event_names(&tenant).await;
    assert_eq!(
        events[events.len() - 3..],
        ["health_failed", "release_rolled_back", "deploy_failed"]
    );
    assert!(events.len() > before);
    let release = api.owner.read(&format!("{tenant}/releases/2")).await;
    assert_eq!(release["status"], "failed");
}

#[tokio::test]
async fn a_release_command_that_fails_stops_the_release() {
    let api = Api::start();
    let (tenant, _) = running(&api.owner).await;
    api.owner
        .stage(&tenant, "FAKE_BEHAVIOUR", "release-command-fails")
        .await;
    let failed = api.owner.finished(&api.owner.deploy(&tenant, "two").await).await;
    assert_eq!(failed["status"], "failed", "{failed:#}");
    assert_eq!(failed["error"]["step"], "release-command");
    let events = api.owner.event_names(&tenant).await;
    let last = &events[events.len() - 3..];
    assert_eq!(
        last,
        ["release_command_failed", "release_rolled_back", "deploy_failed"]
    );
    assert_eq!(api.owner.read(&tenant).await["current_release"], 1);
}

#[tokio::test]
async fn the_first_release_may_fail_too() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.stage(&tenant, "FAKE_BEHAVIOUR", "exit-1").await;
    let failed = api.owner.finished(&api.owner.deploy(&tenant, "one").await).await;
    assert_eq!(failed["status"], "failed", "{failed:#}");
    assert_eq!(api.owner.read(&tenant).await["current_release"], Value::Null);
    api.owner.stage(&tenant, "FAKE_BEHAVIOUR", "ready").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    assert_eq!(api.owner.read(&tenant).await["status"], "running");
}

#[tokio::test]
async fn logs_are_what_the_release_prints() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let early = api.owner.get(&format!("{tenant}/logs")).await;
    assert_eq!(problem(&early), (409, "tenant-state".to_owned()));
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let began = Instant::now();
    let lines = loop {
        let logs = api.owner.get(&format!("{tenant}/logs?tail=1")).await;
        assert_eq!(logs.header("content-type"), "application/x-ndjson");
        let lines: Vec<Value> = logs
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("one object a line"))
            .collect();
        // A line is there soon after it was printed.
        if !lines.is_empty() || began.elapsed() > PATIENCE {
            break lines;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    };
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["line"], &lines[0]["source"]),
        (&json!("ready"), &json!("app"))
    );
    let far = api.owner.get(&format!("{tenant}/logs?tail=10001")).await;
    assert_eq!(problem(&far), (400, "invalid-request".to_owned()));
}
