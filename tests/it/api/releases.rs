//! Releases and the way back, as people see them: whole outputs of the program against a real server.

use rexpect::session::PtySession;
use serde_json::{Value, json};
use systemprompt::server::world::Fault;

use crate::api::rig::{Api, pretty, problem, snapshot, text};
use crate::cli::rig::Said;

/// A server with a tenant whose two releases differ in everything that a release is made of.
struct Place {
    api: Api,
    tenant: String,
}

impl Place {
    async fn new() -> Self {
        let mut api = Api::start();
        let token = api.token.clone();
        api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
        let tenant = api.owner.tenant("acme").await;
        let place = Self { api, tenant };
        place.stage("A_KEY", "first").await;
        place.stage("OLD_KEY", "x").await;
        place.stage("FAKE_MIGRATIONS", "0001_visits.sql").await;
        place.deploy("one").await;
        place.stage("A_KEY", "second").await;
        place.stage("NEW_KEY", "y").await;
        place
            .stage("FAKE_MIGRATIONS", "0002_names.sql 0003_drop.sql")
            .await;
        let path = format!("{}/secrets/OLD_KEY?stage=true", place.tenant);
        assert_eq!(place.api.owner.delete(&path).await.status, 200);
        let bigger = json!({"memory_mb": 512});
        let answer = place
            .api
            .owner
            .say(reqwest::Method::PATCH, &place.tenant, &bigger)
            .await;
        place.api.owner.succeeded(&answer).await;
        let (image, _) = place.api.owner.push(&place.tenant, "two").await;
        let body = json!({"image": image, "message": "two", "allow_missing": ["OLD_KEY"]});
        let answer = place.api.owner.post(&place.path("deploy"), &body).await;
        place.api.owner.succeeded(&answer).await;
        place
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.tenant)
    }

    async fn stage(&self, key: &str, value: &str) {
        self.api.owner.stage(&self.tenant, key, value).await;
    }

    async fn deploy(&self, content: &str) {
        let answer = self.api.owner.deploy(&self.tenant, content).await;
        self.api.owner.succeeded(&answer).await;
    }

    /// Runs the program on this tenant.
    fn run(&self, words: &str) -> Said {
        let mut arguments: Vec<&str> = words.split(' ').collect();
        arguments.extend_from_slice(&["--tenant", "acme"]);
        self.api.server.run(&arguments)
    }

    async fn release(&self, number: u32) -> Value {
        self.api
            .owner
            .read(&self.path(&format!("releases/{number}")))
            .await
    }
}

#[tokio::test]
async fn what_ran_is_listed_and_shown_whole() {
    let place = Place::new().await;
    place.run("releases pin v1").ok();
    snapshot("releases-list", &place.run("releases").ok().whole());
    snapshot("releases-show", &place.run("releases show v3").ok().whole());
    let document = place.run("releases show 3 --json").ok().json();
    assert_eq!(document, place.release(3).await);
    snapshot("releases-show-unknown", &place.run("releases show v9").whole());
}

#[tokio::test]
async fn a_rollback_restores_everything_as_a_new_release() {
    let place = Place::new().await;
    snapshot("rollback-plan", &place.run("rollback v1 --plan").ok().whole());
    assert_eq!(
        place.release(3).await["status"],
        "active",
        "a plan changes nothing"
    );
    snapshot("rollback", &place.run("rollback v1 --yes -m why").ok().whole());
    let (old, new) = (place.release(1).await, place.release(4).await);
    for part in [
        "digest",
        "image",
        "image_config",
        "memory_mb",
        "secret_versions",
        "health_path",
    ] {
        assert_eq!(old[part], new[part], "{part}");
    }
    assert_eq!((&new["restores"], &new["message"]), (&json!(1), &json!("why")));
    assert_eq!(new["migrations"], Value::Null);
    assert_eq!(place.api.owner.read(&place.tenant).await["memory_mb"], 256);
    // Without a number: the newest that served before and differs, which is what was left.
    let plan = place.run("rollback --plan --json").ok().json();
    assert_eq!((&plan["from"], &plan["to"]), (&json!(4), &json!(3)));
    let document = place.run("rollback --yes --json").ok().json();
    assert_eq!(
        (&document["release"], &document["restores"]),
        (&json!(5), &json!(3))
    );
}

#[tokio::test]
async fn without_somebody_to_ask_a_rollback_wants_its_flag() {
    let place = Place::new().await;
    snapshot("rollback-unasked", &place.run("rollback v1").whole());
}

#[tokio::test]
async fn bad_targets_are_refused_by_name() {
    let place = Place::new().await;
    place.stage("FAKE_BEHAVIOUR", "exit-1").await;
    let failed = place.api.owner.deploy(&place.tenant, "three").await;
    assert_eq!(place.api.owner.finished(&failed).await["status"], "failed");
    let mut all = String::new();
    for words in [
        "rollback v9 --yes",
        "rollback v3 --yes",
        "rollback v4 --yes",
        "rollback v0 --yes",
    ] {
        all.push_str(&format!("$ systemprompt {words}\n{}\n", place.run(words).whole()));
    }
    snapshot("rollback-bad-targets", &all);
    assert_eq!(place.api.owner.list(&place.path("releases")).await.len(), 4);
}

#[tokio::test]
async fn past_an_irreversible_migration_only_by_a_flag() {
    let place = Place::new().await;
    place.stage("FAKE_MIGRATIONS", "0004_drop_names.sql!").await;
    place.deploy("three").await;
    snapshot("rollback-irreversible", &place.run("rollback v3 --yes").whole());
    snapshot(
        "rollback-plan-irreversible",
        &place.run("rollback v3 --plan").ok().whole(),
    );
    let answer = place
        .api
        .owner
        .post(&place.path("rollback"), &json!({"release": 3}))
        .await;
    assert_eq!(problem(&answer), (409, "irreversible-migration".to_owned()));
    place.run("rollback v3 --yes --allow-irreversible").ok();
    assert_eq!(place.release(5).await["restores"], 3);
}

#[tokio::test]
async fn a_suspended_tenant_is_not_rolled_back() {
    let place = Place::new().await;
    let answer = place.api.owner.post_empty(&place.path("suspend")).await;
    place.api.owner.succeeded(&answer).await;
    snapshot("rollback-suspended", &place.run("rollback v1 --yes").whole());
}

#[tokio::test]
async fn a_rollback_and_a_deploy_do_not_meet() {
    let place = Place::new().await;
    let (path, body) = (place.path("rollback"), json!({"release": 1}));
    let (deploy, current) = (place.path("deploy"), json!({"image": "current"}));
    let owner = &place.api.owner;
    place
        .api
        .server
        .world()
        .plan("provider.start_machine", 1, Fault::Delay { millis: 2000 })
        .expect("plans");
    let (a, b) = tokio::join!(owner.post(&path, &body), owner.post(&deploy, &current));
    let (taken, refused) = if a.status == 202 { (a, b) } else { (b, a) };
    assert_eq!(taken.status, 202, "{}", taken.text());
    assert_eq!(problem(&refused), (409, "tenant-busy".to_owned()));
    owner.succeeded(&taken).await;
    assert_eq!(owner.list(&place.path("releases")).await.len(), 4);
}

#[tokio::test]
async fn a_rollback_that_fails_leaves_the_newer_release() {
    let place = Place::new().await;
    let world = place.api.server.world();
    world
        .plan("provider.start_machine", 1, Fault::Fatal)
        .expect("plans");
    snapshot("rollback-failed", &place.run("rollback v1 --yes").whole());
    let tenant = place.api.owner.read(&place.tenant).await;
    assert_eq!(
        (&tenant["current_release"], &tenant["memory_mb"]),
        (&json!(3), &json!(512))
    );
}

#[tokio::test]
async fn a_deploy_that_would_lose_a_secret_is_refused_with_its_name() {
    let place = Place::new().await;
    for key in ["A_KEY", "NEW_KEY"] {
        let path = place.path(&format!("secrets/{key}?stage=true"));
        assert_eq!(place.api.owner.delete(&path).await.status, 200);
    }
    let path = place.path("deploy");
    let answer = place.api.owner.post(&path, &json!({"image": "current"})).await;
    assert_eq!(problem(&answer), (409, "secrets-missing".to_owned()));
    snapshot("secrets-missing", &pretty(&answer.json()));
    let one = json!({"image": "current", "allow_missing": ["A_KEY"]});
    let answer = place.api.owner.post(&path, &one).await;
    assert!(
        !text(&answer.json()["detail"]).contains("`A_KEY`"),
        "{}",
        answer.text()
    );
    let both = json!({"image": "current", "allow_missing": ["A_KEY", "NEW_KEY"]});
    place
        .api
        .owner
        .succeeded(&place.api.owner.post(&path, &both).await)
        .await;
    let release = place.release(4).await;
    let keys: Vec<&String> = release["secret_versions"]
        .as_object()
        .expect("secrets")
        .keys()
        .collect();
    assert_eq!(keys, ["FAKE_MIGRATIONS"]);
}

/// Moves down a menu until this item is marked, then takes it.
fn choose(terminal: &mut PtySession, wanted: &str) {
    let mut seen = String::new();
    for _ in 0..60 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        while let Some(character) = terminal.try_read() {
            seen.push(character);
        }
        let marked = seen.rfind("> ").map(|at| &seen[at + 2..]);
        if marked.is_some_and(|item| item.starts_with(wanted)) {
            terminal.send_line("").expect("sends");
            return;
        }
        terminal.send("\x1b[B").expect("sends");
        terminal.flush().expect("sends");
    }
    panic!("`{wanted}` is not in the menu: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_leads_to_releases_and_back() {
    let place = Place::new().await;
    let mut terminal = place.api.server.house.on_terminal(&["tenant"]);
    choose(&mut terminal, "Pin a release");
    choose(&mut terminal, "acme");
    choose(&mut terminal, "v1 ");
    terminal.exp_string("v1 is pinned").expect("says so");
    let mut terminal = place.api.server.house.on_terminal(&["tenant"]);
    choose(&mut terminal, "Roll back");
    choose(&mut terminal, "acme");
    choose(&mut terminal, "v1 ");
    terminal
        .exp_string("512 MB -> 256 MB")
        .expect("shows what changes");
    terminal.exp_string("Go back from v3 to v1?").expect("asks");
    terminal.send("y").expect("yes");
    terminal.flush().expect("sends");
    terminal.exp_string("v1 restored").expect("is done");
    assert_eq!(place.release(1).await["pinned"], true);
    assert_eq!(place.release(4).await["restores"], 1);
}

#[tokio::test]
async fn a_release_whose_image_is_gone_is_refused() {
    let place = Place::new().await;
    let tenant = place.tenant.rsplit('/').next().expect("an id");
    let digest = text(&place.release(1).await["digest"]);
    let hex = digest.trim_start_matches("sha256:");
    let file = format!(
        "{}/registry/{tenant}/manifests/sha256/{hex}",
        place.api.server.data_dir()
    );
    std::fs::remove_file(file).expect("it was there");
    snapshot("rollback-image-gone", &place.run("rollback v1 --yes").whole());
    let plan = place.run("rollback v1 --plan --json").ok().json();
    assert_eq!(plan["refusals"][0]["code"], "release-collected");
}
