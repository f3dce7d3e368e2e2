//! Tenants from their purchase to their receipt.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::rig::{Api, PATIENCE, free, pretty, problem, snapshot, text};

/// What phase 1 tells, in order.
const CREATED: [&str; 8] = [
    "provisioning_started",
    "app_created",
    "volume_created",
    "ips_allocated",
    "database_created",
    "secrets_stored",
    "certificate_added",
    "infrastructure_ready",
];

#[tokio::test]
async fn a_free_plan_makes_a_tenant_at_once() {
    let api = Api::start();
    let bought = api.owner.checkout("acme").await;
    assert_eq!(bought.status, 201, "{}", bought.text());
    let checkout = bought.json();
    assert_eq!(checkout["status"], "complete");
    assert_eq!(api.owner.read(&bought.header("location")).await, checkout);
    let operation = api.owner.succeeded(&bought).await;
    snapshot("operation-create-tenant", &pretty(&operation));
    let path = format!("/api/v1/tenants/{}", text(&checkout["tenant_id"]));
    snapshot("tenant-created", &pretty(&api.owner.read(&path).await));
    assert_eq!(api.owner.event_names(&path).await, CREATED);
}

#[tokio::test]
async fn a_paid_plan_makes_a_tenant_when_the_button_is_pressed() {
    let api = Api::start();
    let body = json!({"price_id": "pri_basic", "name": "acme", "region": "local", "memory_mb": 1024});
    let bought = api.owner.post("/api/v1/checkout", &body).await;
    let open = bought.json();
    assert_eq!((bought.status, &open["status"]), (201, &json!("open")));
    assert_eq!(open["tenant_id"], Value::Null);
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
    let url = text(&open["checkout_url"]);
    let page = url.strip_prefix(&api.owner.url).expect("our own page");
    let browser = api.anonymous();
    assert!(browser.get(page).await.text().contains("9.00 EUR"));
    for _click in 0..2 {
        assert_eq!(browser.post_empty(page).await.status, 200);
    }
    let complete = api.owner.get(&bought.header("location")).await;
    assert_eq!(complete.json()["status"], "complete");
    api.owner.succeeded(&complete).await;
    let tenants = api.owner.list("/api/v1/tenants").await;
    assert_eq!(tenants.len(), 1);
    assert_eq!(
        (&tenants[0]["plan"], &tenants[0]["memory_mb"]),
        (&json!("basic"), &json!(1024))
    );
}

#[tokio::test]
async fn another_sites_form_pays_nothing() {
    let api = Api::start();
    let body = json!({"price_id": "pri_basic", "name": "acme", "region": "local"});
    let open = api.owner.post("/api/v1/checkout", &body).await.json();
    let url = text(&open["checkout_url"]);
    let page = url.strip_prefix(&api.owner.url).expect("our own page");
    let browser = api.anonymous();
    let request = browser
        .call(Method::POST, page)
        .header("origin", "https://evil.example");
    assert_eq!(browser.send(request).await.status, 403);
    assert_eq!(browser.get("/pay/unknown").await.status, 404);
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
}

#[tokio::test]
async fn a_name_is_taken_whoever_has_it() {
    let api = Api::start();
    api.owner.tenant("acme").await;
    let other = api.account("bob@example.com");
    for caller in [&api.owner, &other] {
        let answer = caller.checkout("acme").await;
        assert_eq!(problem(&answer), (409, "name-taken".to_owned()));
        assert_eq!(answer.json()["errors"][0]["pointer"], "#/name");
    }
}

#[tokio::test]
async fn a_plan_has_so_many_tenants_and_no_more() {
    let api = Api::start();
    let second = api.owner.tenant("acme-2").await;
    for name in ["acme-1", "acme-3"] {
        assert_eq!(api.owner.checkout(name).await.status, 201);
    }
    let refused = api.owner.checkout("acme-4").await;
    assert_eq!(problem(&refused), (402, "plan-limit".to_owned()));
    assert_eq!(
        api.account("bob@example.com").checkout("acme-4").await.status,
        201
    );
    api.owner.succeeded(&api.owner.delete(&second).await).await;
    assert_eq!(api.owner.checkout("acme-5").await.status, 201);
}

#[tokio::test]
async fn many_at_once_get_different_names_or_are_refused() {
    let api = Api::start();
    let other = api.account("bob@example.com");
    let (mine, again, theirs) = tokio::join!(
        api.owner.checkout("acme"),
        api.owner.checkout("acme"),
        other.checkout("acme")
    );
    let mut statuses = [mine.status, again.status, theirs.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409]);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let api = Api::start();
    for name in ["acme-1", "acme-2", "acme-3"] {
        api.owner.checkout(name).await;
    }
    let mut names = Vec::new();
    let mut next = "/api/v1/tenants?limit=2".to_owned();
    while !next.is_empty() {
        let page = api.owner.get(&next).await;
        let document = page.json();
        names.extend(
            document["data"]
                .as_array()
                .expect("entries")
                .iter()
                .map(|it| text(&it["name"])),
        );
        let link = page.header("link");
        next = link
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(">; rel=\"next\""))
            .unwrap_or_default()
            .to_owned();
        assert_eq!(document["next_cursor"].is_null(), next.is_empty());
    }
    assert_eq!(names, ["acme-1", "acme-2", "acme-3"]);
}

#[tokio::test]
async fn credentials_are_given_until_they_are_confirmed() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let token = text(&api.owner.read(&tenant).await["credentials_token"]);
    let path = format!("{tenant}/credentials/{token}");
    let first = api.owner.get(&path).await;
    assert_eq!(
        (first.status, first.header("cache-control")),
        (200, "no-store".to_owned())
    );
    assert!(text(&first.json()["database_url"]).starts_with("postgresql://"));
    assert_eq!(
        api.owner.get(&path).await.body,
        first.body,
        "the answer may have been lost"
    );
    assert_eq!(api.owner.post_empty(&format!("{path}/confirm")).await.status, 204);
    for answer in [
        api.owner.get(&path).await,
        api.owner.post_empty(&format!("{path}/confirm")).await,
    ] {
        assert_eq!(problem(&answer), (404, "not-found".to_owned()));
    }
    assert_eq!(api.owner.read(&tenant).await.get("credentials_token"), None);
}

#[tokio::test]
async fn the_token_of_the_credentials_is_for_who_may_use_it() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let token = text(&api.owner.read(&tenant).await["credentials_token"]);
    for scopes in ["read", "read,deploy,admin"] {
        let shown = api.limited(scopes, &[]).read(&tenant).await;
        assert_eq!(shown.get("credentials_token"), None, "{scopes}");
    }
    let listed = api.owner.get("/api/v1/tenants").await.text();
    assert!(!listed.contains(&token));
    api.owner.get(&format!("{tenant}/credentials/{token}")).await;
    assert!(!api.server.log().contains(&token), "the log names it");
}

#[tokio::test]
async fn environment_and_ledger_of_a_new_tenant() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", "sk-open-sesame").await;
    let environment = api.owner.read(&format!("{tenant}/environment")).await;
    snapshot("environment", &pretty(&environment));
    let resources = api.owner.read(&format!("{tenant}/resources")).await;
    snapshot("resources", &pretty(&resources));
    let status = api.owner.read(&format!("{tenant}/status")).await;
    snapshot("status-awaiting", &pretty(&status));
}

#[tokio::test]
async fn a_rename_keeps_the_hostname() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let before = api.owner.read(&tenant).await;
    let renamed = api
        .owner
        .say(Method::PATCH, &tenant, &json!({"name": "bcme"}))
        .await;
    assert_eq!(renamed.status, 200, "{}", renamed.text());
    let after = api.owner.read(&tenant).await;
    assert_eq!(after["name"], "bcme");
    assert_eq!(after["hostname"], before["hostname"]);
    // Nobody else may answer under the old name for as long as this tenant does.
    let answer = api.owner.checkout("acme").await;
    assert_eq!(problem(&answer), (409, "name-taken".to_owned()));
}

#[tokio::test]
async fn memory_of_a_tenant_that_runs_is_changed_by_a_release() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let changed = api
        .owner
        .say(Method::PATCH, &tenant, &json!({"memory_mb": 512}))
        .await;
    assert_eq!(changed.status, 202, "{}", changed.text());
    api.owner.succeeded(&changed).await;
    let release = api.owner.read(&format!("{tenant}/releases/2")).await;
    assert_eq!(release["memory_mb"], 512);
    assert_eq!(api.owner.read(&tenant).await["memory_mb"], 512);
    let too_much = api
        .owner
        .say(Method::PATCH, &tenant, &json!({"memory_mb": 2048}))
        .await;
    assert_eq!(problem(&too_much).0, 402, "{}", too_much.text());
}

#[tokio::test]
async fn suspended_and_active_again() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    api.owner
        .succeeded(&api.owner.post_empty(&format!("{tenant}/suspend")).await)
        .await;
    assert_eq!(api.owner.read(&tenant).await["status"], "suspended");
    let answer = api
        .owner
        .post(&format!("{tenant}/deploy"), &json!({"image": "current"}))
        .await;
    assert_eq!(problem(&answer), (409, "tenant-state".to_owned()));
    let active = api
        .owner
        .say(Method::PATCH, &tenant, &json!({"status": "active"}))
        .await;
    api.owner.succeeded(&active).await;
    assert_eq!(api.owner.read(&tenant).await["status"], "running");
    let events = api.owner.event_names(&tenant).await;
    for wanted in ["tenant_suspended", "tenant_activated"] {
        assert_eq!(
            events.iter().filter(|name| *name == wanted).count(),
            1,
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn suspend_and_activate_may_be_said_twice() {
    let mut api = Api::start();
    let token = api.token.clone();
    api.server.house.set("SYSTEMPROMPT_TOKEN", &token);
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let mut told = String::new();
    for words in [
        &["tenant", "suspend", "acme"][..],
        &["tenant", "suspend", "acme"],
        &["deploy", "--image", "current", "--tenant", "acme", "--yes"],
        &["tenant", "activate", "acme"],
        &["tenant", "activate", "acme"],
    ] {
        told += &format!(
            "$ systemprompt {}\n{}\n",
            words.join(" "),
            api.server.run(words).whole()
        );
    }
    snapshot("tenant-power", &told);
    let again = api.owner.post_empty(&format!("{tenant}/activate")).await;
    assert_eq!(problem(&again), (409, "tenant-state".to_owned()));
    for _ in 0..2 {
        let answer = api.owner.post_empty(&format!("{tenant}/suspend")).await;
        api.owner.succeeded(&answer).await;
    }
}

#[tokio::test]
async fn a_deleted_tenant_leaves_a_receipt_and_its_name() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.stage(&tenant, "OPENAI_API_KEY", "sk-open-sesame").await;
    api.owner.succeeded(&api.owner.deploy(&tenant, "one").await).await;
    let early = api.owner.get(&format!("{tenant}/receipt")).await;
    assert_eq!(problem(&early), (404, "not-found".to_owned()));
    let deleted = api.owner.delete(&tenant).await;
    assert_eq!(deleted.status, 202, "{}", deleted.text());
    api.owner.succeeded(&deleted).await;
    let receipt = api.owner.read(&format!("{tenant}/receipt")).await;
    snapshot("receipt", &pretty(&receipt));
    assert_eq!(api.server.world().resources().expect("reads"), [""; 0]);
    assert!(api.owner.list("/api/v1/tenants").await.is_empty());
    let last = api.owner.event_names(&tenant).await.pop();
    assert_eq!(last.as_deref(), Some("tenant_deleted"));
    api.owner.tenant("acme").await;
}

/// How many files the gate keeps for a tenant, wherever they are.
fn kept_files(folder: &Path, tenant: &str) -> usize {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| match path.is_dir() {
            true => kept_files(&path, tenant),
            false => usize::from(path.display().to_string().contains(&format!("{tenant}/"))),
        })
        .sum()
}

#[tokio::test]
async fn a_deleted_tenants_images_are_gone() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let id = tenant.rsplit('/').next().expect("an id");
    let registry = Path::new(&api.server.data_dir()).join("registry");
    api.owner.push(&tenant, "one").await;
    assert!(kept_files(&registry, id) >= 3, "a config, a layer, a manifest");
    api.owner.succeeded(&api.owner.delete(&tenant).await).await;
    assert_eq!(kept_files(&registry, id), 0);
}

#[tokio::test]
async fn nothing_can_be_done_to_what_is_deleted() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    api.owner.succeeded(&api.owner.delete(&tenant).await).await;
    let secret = json!({"key": "OPENAI_API_KEY", "value": "v"});
    for answer in [
        api.owner.delete(&tenant).await,
        api.owner.post_empty(&format!("{tenant}/restart")).await,
        api.owner.post_empty(&format!("{tenant}/activate")).await,
        api.owner.post(&format!("{tenant}/secrets"), &secret).await,
        api.owner.get(&format!("{tenant}/registry-token")).await,
        api.owner
            .say(Method::PATCH, &tenant, &json!({"name": "bcme"}))
            .await,
    ] {
        assert_eq!(
            problem(&answer),
            (409, "tenant-state".to_owned()),
            "{}",
            answer.text()
        );
    }
    assert_eq!(api.owner.read(&tenant).await["status"], "deleted");
}

#[tokio::test]
async fn a_creation_that_failed_is_tried_again() {
    let api = Api::start();
    let world = api.server.world();
    world
        .plan("databases.create", 1, systemprompt::server::world::Fault::Fatal)
        .expect("plans");
    // Whatever runs beside it is begun by then.
    let beside = [
        "provider.create_volume",
        "edge.join",
        "databases.attach",
        "edge.certificate",
    ];
    world.hold("databases.create", &beside).expect("plans");
    let bought = api.owner.post("/api/v1/checkout", &free("acme")).await;
    let failed = api.owner.finished(&bought).await;
    assert_eq!(failed["status"], "failed", "{failed:#}");
    snapshot("operation-create-failed", &pretty(&failed));
    assert_eq!(world.resources().expect("reads"), [""; 0]);
    let tenant = format!("/api/v1/tenants/{}", text(&bought.json()["tenant_id"]));
    let again = api.owner.post_empty(&format!("{tenant}/retry-provision")).await;
    assert_eq!(again.status, 202, "{}", again.text());
    tokio::time::timeout(PATIENCE, api.owner.succeeded(&again))
        .await
        .expect("in time");
    assert_eq!(api.owner.read(&tenant).await["status"], "awaiting_deploy");
}
