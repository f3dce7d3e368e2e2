//! What one server did another one knows: tenants, events, keyed requests; and one that does not belong is refused.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::api::rig::{free, text};
use crate::replicas::rig::{Pair, numbers_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_begun_at_one_is_followed_at_the_other() {
    let Some(pair) = Pair::start() else { return };
    let (one, two) = (pair.at(0), pair.at(1));
    let bought = one.checkout("acme").await;
    assert_eq!(bought.status, 201, "{}", bought.text());
    let tenant = format!("/api/v1/tenants/{}", text(&bought.json()["tenant_id"]));
    assert_eq!(numbers_until(&two, &tenant, 0, 8).await, [1, 2, 3, 4, 5, 6, 7, 8]);
    two.succeeded(&bought).await;
    // Every request of a push and a deploy meets another server than the one before.
    let deployed = pair.api.owner.deploy(&tenant, "one").await;
    pair.api.owner.succeeded(&deployed).await;
    for client in [&one, &two] {
        assert_eq!(client.read(&tenant).await["status"], "running");
    }
    let removed = two.ask(Method::DELETE, &tenant).await;
    assert_eq!(removed.status, 202, "{}", removed.text());
    one.succeeded(&removed).await;
    assert!(pair.api.server.world().resources().expect("world").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_at_the_other_server_sees_it_soon() {
    const EVENTS: u64 = 40;
    let Some(pair) = Pair::start() else { return };
    let (one, two) = (pair.at(0), pair.at(1));
    let tenant = one.tenant("acme").await;
    let request = two.call(Method::GET, &format!("{tenant}/events?since=8"));
    let mut stream = request
        .header("accept", "text/event-stream")
        .send()
        .await
        .expect("a stream");
    let mut took = Vec::new();
    for number in 9..9 + EVENTS {
        let began = Instant::now();
        one.stage(&tenant, "OPENAI_API_KEY", &format!("value {number}"))
            .await;
        let answered = began.elapsed();
        let mut text = String::new();
        while !text.contains(&format!("id: {number}\n")) {
            let chunk = stream.chunk().await.expect("a stream").expect("it goes on");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        took.push(began.elapsed().saturating_sub(answered));
    }
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100];
    eprintln!(
        "seen at the other server after the answer: half within {:?}, 95 % within {:?}, all within {:?}",
        at(50),
        at(95),
        at(100)
    );
    // Looking now and then alone would take seconds.
    assert!(at(50) < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_request_is_done_once_wherever_it_is_sent() {
    let Some(pair) = Pair::start() else { return };
    let ask = |index: usize| {
        let client = pair.at(index);
        async move {
            let request = client.call(Method::POST, "/api/v1/checkout").json(&free("acme"));
            client.send(request.header("idempotency-key", "the same")).await
        }
    };
    let answers = futures::future::join_all((0..8).map(|number| ask(number % 2))).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert!(!made.is_empty(), "{:?}", answers[0].text());
    assert!(
        made.iter()
            .all(|answer| answer.json()["tenant_id"] == made[0].json()["tenant_id"])
    );
    assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 409)));
    let again = ask(1).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (201, "true".into())
    );
    assert_eq!(pair.at(0).list("/api/v1/tenants").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_listener_costs_time_and_nothing_else() {
    let Some(pair) = Pair::start() else { return };
    let (one, two) = (pair.at(0), pair.at(1));
    let tenant = one.tenant("acme").await;
    let store = pair.store().await;
    let reading = numbers_until(&two, &tenant, 8, 18);
    let doing = async {
        for number in 0..10 {
            let mut tx = store.begin().await.expect("begun");
            tx.fetch_all(
                "SELECT CAST(pg_terminate_backend(pid) AS TEXT) AS ended FROM pg_stat_activity
                 WHERE datname = current_database() AND query LIKE 'LISTEN%'",
                vec![],
            )
            .await
            .expect("ended");
            tx.commit().await.expect("committed");
            one.stage(&tenant, "OPENAI_API_KEY", &format!("value {number}"))
                .await;
        }
    };
    let (seen, ()) = tokio::join!(reading, doing);
    assert_eq!(seen, (9..=18).collect::<Vec<u64>>());
    assert!(
        pair.api
            .server
            .log_of(1)
            .contains("lost the connection that hears other servers")
    );
    // Work that the other one queues is found too.
    let bought = two.checkout("beta").await;
    one.succeeded(&bought).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_other_keys_is_refused() {
    let Some(mut pair) = Pair::start() else { return };
    pair.api.owner.tenant("acme").await;
    pair.api.server.kill_one(1);
    let server = &pair.api.server;
    let data = server.data_dir();
    let own = server.house.path("own");
    let serve = |more: &[&str]| {
        let own = own.display().to_string();
        let base = [
            "serve",
            "--provider",
            "fake",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &own,
        ];
        server.house.run(&[base.as_slice(), more].concat())
    };
    let said = serve(&[]);
    assert_eq!(said.code, Some(2), "{}", said.whole());
    assert!(
        said.stderr
            .contains("the signing key is not the one that the other servers"),
        "{}",
        said.whole()
    );
    assert!(said.stderr.contains("--signing-key-file"), "{}", said.whole());
    let signing = format!("{data}/signing.key");
    let said = serve(&["--signing-key-file", &signing]);
    assert!(
        said.stderr.contains("the master key is not the one"),
        "{}",
        said.whole()
    );
    let said = serve(&["--signing-key-file", "/nonexistent"]);
    assert!(
        said.stderr
            .contains("failed to open the signing key `/nonexistent`"),
        "{}",
        said.whole()
    );
    // With the same keys a folder of its own is as good; the installation's name comes from the database.
    std::fs::remove_dir_all(&own).expect("removed");
    pair.api.server.up_one(
        1,
        &[
            "--data-dir",
            &own.display().to_string(),
            "--signing-key-file",
            &signing,
            "--master-key-file",
            &format!("{data}/master.key"),
            "--registry-dir",
            &format!("{data}/registry"),
            "--world-file",
            &format!("{data}/world.json"),
        ],
    );
    let read = |folder: &str| std::fs::read_to_string(format!("{folder}/instance")).expect("read");
    assert_eq!(read(&data), read(&own.display().to_string()));
    pair.api.server.kill_one(0);
    let two = pair.at(1);
    let tenant = format!(
        "/api/v1/tenants/{}",
        text(&two.list("/api/v1/tenants").await[0]["id"])
    );
    two.stage(&tenant, "OPENAI_API_KEY", "value").await;
    let deployed = pair.api.owner.deploy(&tenant, "one").await;
    pair.api.owner.succeeded(&deployed).await;
    assert_eq!(two.read(&tenant).await["status"], json!("running"));
}
