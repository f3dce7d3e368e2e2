//! A tenant's history as a stream and as pages: nothing lost, nothing doubled, from any place on.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use systemprompt::api::id::TenantId;
use systemprompt::server::world::Fault;

use crate::api::rig::{Api, PATIENCE, open_connections, problem, text};
use crate::gate::harness::Client;

/// One frame of a stream: what stands in each of its fields.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: String,
    event: String,
    data: String,
}

/// Reads a stream until `enough` says so of what came so far, or it ends.
async fn raw(caller: &Client, request: RequestBuilder, enough: impl Fn(&str) -> bool) -> String {
    let request = request.header("accept", "text/event-stream");
    let response = caller.http.execute(request.build().expect("a request")).await;
    let response = response.expect("the server answers");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut body = response.bytes_stream();
    let mut came = String::new();
    let reading = async {
        while let Some(chunk) = body.next().await {
            came.push_str(std::str::from_utf8(&chunk.expect("a chunk")).expect("UTF-8"));
            if enough(&came) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the stream comes");
    came
}

fn frames(came: &str) -> Vec<Frame> {
    let whole = came.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let mut all = Vec::new();
    for part in whole.split("\n\n") {
        let mut frame = Frame::default();
        for line in part.lines() {
            match line.split_once(": ") {
                Some(("id", value)) => value.clone_into(&mut frame.id),
                Some(("event", value)) => value.clone_into(&mut frame.event),
                Some(("data", value)) => value.clone_into(&mut frame.data),
                _ => {}
            }
        }
        if !frame.id.is_empty() {
            all.push(frame);
        }
    }
    all
}

/// The numbers of the events up to the one of this name.
async fn numbers(caller: &Client, request: RequestBuilder, last: &str) -> Vec<u64> {
    let wanted = format!("event: {last}\n");
    let came = raw(caller, request, |came| {
        came.contains(&wanted) && came.ends_with("\n\n")
    })
    .await;
    let frames = frames(&came);
    frames
        .iter()
        .map(|frame| frame.id.parse().expect("a number"))
        .collect()
}

fn events(caller: &Client, tenant: &str, query: &str) -> RequestBuilder {
    caller.call(Method::GET, &format!("{tenant}/events{query}"))
}

/// Makes a creation take about three seconds.
fn slow(api: &Api) {
    let world = api.server.world();
    for call in ["provider.create_network", "databases.create", "databases.attach"] {
        world.plan(call, 1, Fault::Delay { millis: 1500 }).expect("plans");
    }
}

#[tokio::test]
async fn a_stream_tells_a_creation_while_it_goes_on() {
    let api = Api::start();
    slow(&api);
    let bought = api.owner.checkout("acme").await.json();
    let tenant = format!("/api/v1/tenants/{}", text(&bought["tenant_id"]));
    let request = events(&api.owner, &tenant, "");
    assert_eq!(
        numbers(&api.owner, request, "infrastructure_ready").await,
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
}

#[tokio::test]
async fn a_stream_says_what_the_page_says() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let came = raw(&api.owner, events(&api.owner, &tenant, ""), |came| {
        came.contains("event: infrastructure_ready\n") && came.ends_with("\n\n")
    })
    .await;
    assert!(came.starts_with("retry: 1000\n\n"), "{came}");
    let told: Vec<Value> = frames(&came)
        .iter()
        .map(|frame| serde_json::from_str(&frame.data).expect("JSON"))
        .collect();
    assert_eq!(told, api.owner.list(&format!("{tenant}/events")).await);
    for (frame, event) in frames(&came).iter().zip(&told) {
        assert_eq!(frame.id, event["seq"].to_string());
        assert_eq!(frame.event, text(&event["event"]));
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_the_reader_was() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let last = "infrastructure_ready";
    let from = |query: &str, id: Option<&str>| {
        let request = events(&api.owner, &tenant, query);
        match id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        }
    };
    assert_eq!(
        numbers(&api.owner, from("", Some("3")), last).await,
        [4, 5, 6, 7, 8]
    );
    assert_eq!(numbers(&api.owner, from("?since=6", None), last).await, [7, 8]);
    // A browser that comes back sends the address that it was given at first.
    assert_eq!(numbers(&api.owner, from("?since=2", Some("7")), last).await, [8]);
    assert_eq!(numbers(&api.owner, from("", Some("")), last).await.len(), 8);
    let refused = api.owner.send(from("", Some("seven"))).await;
    assert_eq!(problem(&refused), (400, "invalid-request".to_owned()));
}

#[tokio::test]
async fn a_reader_that_comes_back_after_every_event_misses_none() {
    let api = Api::start();
    slow(&api);
    let bought = api.owner.checkout("acme").await.json();
    let tenant = format!("/api/v1/tenants/{}", text(&bought["tenant_id"]));
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let last = seen.last().copied().unwrap_or(0_u64);
        let request = events(&api.owner, &tenant, "").header("last-event-id", last.to_string());
        let came = raw(&api.owner, request, |came| {
            came.contains("data: ") && came.ends_with("\n\n")
        })
        .await;
        seen.extend(
            frames(&came)
                .iter()
                .map(|frame| frame.id.parse::<u64>().expect("a number")),
        );
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn a_reader_that_knows_everything_hears_what_comes_next() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let request = events(&api.owner, &tenant, "?since=8");
    let reading = numbers(&api.owner, request, "secret_set");
    let setting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.owner.stage(&tenant, "OPENAI_API_KEY", "v").await;
    };
    let (seen, ()) = tokio::join!(reading, setting);
    assert_eq!(seen, [9]);
}

#[tokio::test]
async fn a_silent_stream_beats() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let request = events(&api.owner, &tenant, "?since=8");
    let began = std::time::Instant::now();
    let came = raw(&api.owner, request, |came| came.contains("\n:")).await;
    assert_eq!(came, "retry: 1000\n\n:\n\n");
    let took = began.elapsed().as_secs();
    assert!((14..40).contains(&took), "after {took} s");
}

#[tokio::test]
async fn without_an_accept_header_it_is_a_page() {
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let page = api.owner.get(&format!("{tenant}/events?limit=3")).await;
    assert_eq!(page.header("content-type"), "application/json");
    let next = format!("{tenant}/events?since=3&limit=3");
    assert_eq!(page.header("link"), format!("<{next}>; rel=\"next\""));
    assert_eq!(page.json()["next_cursor"], "3");
    let rest = api.owner.list(&next).await;
    let numbers: Vec<&Value> = rest.iter().map(|event| &event["seq"]).collect();
    assert_eq!(numbers, [&json!(4), &json!(5), &json!(6)]);
    let last = api.owner.get(&format!("{tenant}/events?since=8")).await;
    assert_eq!(last.json(), json!({"data": [], "next_cursor": null}));
    for query in ["limit=0", "limit=201", "since=-1", "colour=red"] {
        let answer = api.owner.get(&format!("{tenant}/events?{query}")).await;
        assert_eq!(problem(&answer), (400, "invalid-request".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_let_go_and_goes_on_later() {
    const EVENTS: u64 = 40_000;
    let api = Api::start();
    let tenant = api.owner.tenant("acme").await;
    let id: TenantId = tenant.rsplit('/').next().expect("an id").parse().expect("an id");
    let store = api.server.store().await;
    let mut tx = store.begin().await.expect("begun");
    // In one statement: PostgreSQL keeps every version of the tenant's row until the end of a transaction.
    let many = "WITH RECURSIVE numbers (number) AS
            (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 40000)
        INSERT INTO events (tenant_id, seq, operation_id, event, status, message, detail, at)
        SELECT tenant_id, seq + number, NULL, 'secret_set', status, $2, detail, at
        FROM events, numbers WHERE tenant_id = $1 AND seq = 8";
    let long = vec![id.as_str().into(), "x".repeat(400).into()];
    assert_eq!(tx.execute(many, long).await.expect("written"), EVENTS);
    let last = "UPDATE tenants SET last_event_seq = 40008 WHERE id = $1";
    tx.execute(last, vec![id.as_str().into()]).await.expect("written");
    tx.commit().await.expect("committed");
    let port = *api.server.ports.last().expect("a port");
    let mut reader = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let request = format!(
        "GET {tenant}/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        api.token
    );
    std::io::Write::write_all(&mut reader, request.as_bytes()).expect("asked");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(open_connections(port), 1, "it is given time");
    let began = std::time::Instant::now();
    while open_connections(port) > 0 {
        assert!(began.elapsed() < 2 * PATIENCE, "it is kept");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    eprintln!(
        "let go {:?} after it stopped",
        began.elapsed() + Duration::from_secs(5)
    );
    let last = 8 + EVENTS;
    let rest = events(&api.owner, &tenant, &format!("?since={}", last - 3));
    let came = raw(&api.owner, rest, |came| came.contains(&format!("id: {last}\n"))).await;
    assert_eq!(frames(&came).len() as u64, 3);
}
