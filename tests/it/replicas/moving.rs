//! From a file to PostgreSQL, two roles, limits for all servers together, and an old server beside a new one.

use std::time::Instant;

use reqwest::Method;
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::api::rig::{Api, text};
use crate::cli::rig::{Said, Server};
use crate::replicas::rig::Pair;
use crate::store::postgres::{Cluster, or_skip};

/// `systemprompt server` with another database than the house has.
fn server(house: &Server, url: &str, arguments: &[&str]) -> Said {
    let data = house.data_dir();
    let mut command = house.house.command(&["server"]);
    command.args(arguments).args(["--data-dir", &data]);
    command.env("SYSTEMPROMPT_DATABASE_URL", url);
    crate::cli::rig::said(command.output().expect("it runs"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_moves_from_the_file_to_postgresql() {
    let Some(cluster) = or_skip(Cluster::find_or_start()) else {
        return;
    };
    let mut api = Api::over(Server::alone());
    let tenant = api.owner.tenant("acme").await;
    api.owner
        .stage(&tenant, "OPENAI_API_KEY", "grüße, and a 'quote'")
        .await;
    let deployed = api.owner.deploy(&tenant, "one").await;
    api.owner.succeeded(&deployed).await;
    let before = api.owner.list(&format!("{tenant}/events?limit=200")).await;
    let url = cluster.new_database_now();
    let copy = |api: &Api| server(&api.server, &url, &["migrate", "copy", "--json"]);
    let held = copy(&api);
    assert_eq!(held.code, Some(5), "a server runs: {}", held.whole());
    api.server.stop_well();
    let copied = copy(&api).ok();
    let document = copied.json();
    let events = document["tables"].as_array().expect("tables").iter();
    let events = events
        .clone()
        .find(|table| table["table"] == "events")
        .expect("the events");
    assert_eq!(events["rows"], before.len());
    // What was copied is not worked on by mistake, and not copied over.
    let again = server(&api.server, &url, &["migrate", "copy"]);
    assert_eq!(again.code, Some(4), "{}", again.whole());
    let said = api.server.run(&[
        "serve",
        "--provider",
        "fake",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &api.server.data_dir(),
    ]);
    assert!(
        said.stderr.contains("was copied to PostgreSQL"),
        "{}",
        said.whole()
    );
    let file = std::path::PathBuf::from(api.server.data_dir()).join("systemprompt.db");
    std::fs::rename(file.with_extension("db.copied"), &file).expect("renamed");
    let again = server(&api.server, &url, &["migrate", "copy"]);
    assert_eq!(again.code, Some(5), "{}", again.whole());
    assert!(
        again.stderr.contains("the target is not empty"),
        "{}",
        again.whole()
    );
    api.server.house.set("SYSTEMPROMPT_DATABASE_URL", &url);
    api.server.up();
    assert_eq!(
        api.owner.list(&format!("{tenant}/events?limit=200")).await,
        before
    );
    assert_eq!(api.owner.read(&tenant).await["status"], "running");
    let deployed = api.owner.deploy(&tenant, "two").await;
    api.owner.succeeded(&deployed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_role_may_not_migrate_says_so_and_works() {
    let Ok(cluster) = Cluster::start().inspect_err(|reason| eprintln!("skipped: {reason}")) else {
        return;
    };
    let admin = cluster.new_database_now();
    let name = admin.rsplit('/').next().expect("a name").to_owned();
    let mut server_of = Server::down();
    let printed = server_of
        .run(&["server", "migrate", "roles", "--database", &name])
        .ok();
    // `psql` is what it is printed for, and the database is there already.
    let mut psql = std::process::Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", &admin]);
    let fed = server_of.house.path("roles.sql");
    server_of.house.put("roles.sql", &printed.stdout);
    let said = crate::cli::rig::said(psql.arg("--file").arg(&fed).output().expect("psql runs"));
    said.ok();
    let owner = admin.replace("postgres@", "systemprompt_owner@");
    let app = admin.replace("postgres@", "systemprompt_app@");
    server_of.house.set("SYSTEMPROMPT_DATABASE_URL", &app);
    let said = server_of.serve_once();
    assert_eq!(said.code, Some(1), "{}", said.whole());
    assert!(said.stderr.contains("may not apply them"), "{}", said.whole());
    assert!(
        said.stderr.contains("systemprompt server migrate up"),
        "{}",
        said.whole()
    );
    let refused = server(&server_of, &app, &["migrate", "up"]);
    assert!(
        refused.stderr.contains("may not apply them"),
        "{}",
        refused.whole()
    );
    server(&server_of, &owner, &["migrate", "up"]).ok();
    server_of.up();
    let api = Api::over(server_of);
    api.owner.tenant("acme").await;
    // With the role of the servers nobody changes a table.
    let mut connection = PgConnection::connect(&app).await.expect("connected");
    let refused = connection
        .execute("DROP TABLE events")
        .await
        .expect_err("refused");
    assert!(refused.to_string().contains("must be owner"), "{refused}");
    for (url, expected) in [(&app, "pass"), (&owner, "judge"), (&admin, "fail")] {
        let checked = server(&api.server, url, &["check", "--json"]).json();
        let checks = checked["checks"].as_array().expect("checks");
        let role = checks.iter().find(|check| check["name"] == "database-role");
        assert_eq!(role.expect("the check")["standing"], expected, "{checked:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_for_both_servers_together() {
    let Some(pair) = Pair::start() else { return };
    let began = Instant::now();
    let mut passed: u64 = 0;
    let mut refused: Option<Value> = None;
    for number in 0..400 {
        let client = pair.at(number % 2);
        let request = client.call(Method::POST, "/api/v1/oauth/device_authorization");
        let answer = client
            .send(request.form(&[("client_id", "systemprompt-cli")]))
            .await;
        match answer.status {
            429 => {
                refused = Some(answer.json());
                break;
            }
            _ => passed += 1,
        }
    }
    let refilled = began.elapsed().as_secs() * 2 + 2;
    // What the other server took ahead, a fiftieth at most, is not given to this one.
    let ahead = 120 / 50;
    assert!(
        (120 - ahead..=120 + refilled).contains(&passed),
        "{passed} of 120 were let in"
    );
    assert_eq!(text(&refused.expect("a refusal")["code"]), "rate-limited");
}
