//! Uploads: they go on where they were, whatever happened to the client or the server.

use std::time::Duration;

use reqwest::Method;
use systemprompt::server::registry::GateAccess;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::gate::harness::{Client, World, pattern, sha256, sha512};

async fn length_of(client: &Client, location: &str) -> usize {
    let answer = client.get(location).await;
    assert_eq!(answer.status, 204);
    let range = answer.header("range");
    range
        .strip_prefix("0-")
        .expect("from the start")
        .parse::<usize>()
        .expect("a number")
        + 1
}

#[tokio::test]
async fn an_upload_goes_on_after_the_client_was_cut_off() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let content = pattern(1, 900_000);
    let location = client.begin().await;
    let host = client.url.trim_start_matches("http://").to_owned();
    let mut wire = tokio::net::TcpStream::connect(&host).await.expect("it connects");
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n",
        client.authorization.as_deref().expect("a token"),
        content.len(),
    );
    wire.write_all(head.as_bytes()).await.expect("it is sent");
    wire.write_all(&content[..600_000]).await.expect("it is sent");
    wire.flush().await.expect("it is sent");
    let arrived = async {
        while length_of(&client, &location).await < 262_144 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), arrived)
        .await
        .expect("what was sent is kept at once");
    drop(wire);
    // What came is written when the connection ends; a new part waits for that.
    let mut done = length_of(&client, &location).await;
    loop {
        let answer = client.patch(&location, Some(done), &content[done..]).await;
        match answer.status {
            202 => break,
            416 => done = length_of(&client, &location).await,
            _ => panic!("{} {}", answer.status, answer.text()),
        }
    }
    assert!((262_144..=600_000).contains(&done), "{done}");
    let digest = sha256(&content);
    assert_eq!(client.finish(&location, &digest, &[]).await.status, 201);
    assert!(client.get(&format!("blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let world = World::start().await;
    let tenant = world.tenant();
    let content = pattern(2, 500_000);
    let client = world.client(&tenant, GateAccess::Push).await;
    let (half, empty) = (client.begin().await, client.begin().await);
    assert_eq!(
        client.patch(&half, Some(0), &content[..300_000]).await.status,
        202
    );
    let world = world.restart().await;
    let client = world.client(&tenant, GateAccess::Push).await;
    assert_eq!(length_of(&client, &half).await, 300_000);
    assert_eq!(
        client
            .patch(&half, Some(300_000), &content[300_000..])
            .await
            .status,
        202
    );
    assert_eq!(client.finish(&half, &sha256(&content), &[]).await.status, 201);
    assert_eq!(client.finish(&empty, &sha256(b"late"), b"late").await.status, 201);
    let digest = sha256(&content);
    assert!(client.get(&format!("blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn a_chunk_that_is_sent_again_is_refused_and_harms_nothing() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let location = client.begin().await;
    assert_eq!(client.patch(&location, Some(0), b"first ").await.status, 202);
    let again = client.patch(&location, Some(0), b"first ").await;
    assert_eq!(again.problem(), (416, "BLOB_UPLOAD_INVALID".to_owned()));
    assert_eq!(
        (again.header("range"), again.header("location")),
        ("0-5".to_owned(), location.clone())
    );
    assert_eq!(
        client.patch(&location, Some(6), b"second").await.header("range"),
        "0-11"
    );
    assert_eq!(
        client
            .finish(&location, &sha256(b"first second"), &[])
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn a_chunk_must_be_as_long_as_it_says() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let location = client.begin().await;
    let send = async |range: &str, streamed: bool| {
        let bytes = b"0123456789".to_vec();
        let body = match streamed {
            // Without a length of its own in the head, only the range says how much must come.
            true => reqwest::Body::wrap_stream(tokio_stream::iter([Ok::<_, std::io::Error>(bytes)])),
            false => bytes.into(),
        };
        let request = client
            .call(Method::PATCH, &location)
            .header("content-range", range);
        client.send(request.body(body)).await
    };
    for (range, streamed) in [
        ("0-8", false),
        ("0-10", false),
        ("0-8", true),
        ("0-10", true),
        ("9-0", false),
        ("x", false),
    ] {
        let answer = send(range, streamed).await;
        assert_eq!(
            answer.problem(),
            (400, "SIZE_INVALID".to_owned()),
            "{range} {streamed}"
        );
    }
    assert_eq!(send("0-9", true).await.status, 202);
    assert_eq!(
        client.finish(&location, &sha256(b"0123456789"), &[]).await.status,
        201
    );
}

#[tokio::test]
async fn a_finished_refused_or_cancelled_upload_is_unknown() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let unknown = (404, "BLOB_UPLOAD_UNKNOWN".to_owned());
    let (finished, refused, cancelled) = (client.begin().await, client.begin().await, client.begin().await);
    assert_eq!(client.finish(&finished, &sha256(b"x"), b"x").await.status, 201);
    assert_eq!(
        client.finish(&refused, &sha256(b"y"), b"x").await.problem(),
        (400, "DIGEST_INVALID".to_owned())
    );
    assert_eq!(client.delete(&cancelled).await.status, 204);
    for location in [&finished, &refused, &cancelled, "blobs/uploads/nonsense"] {
        assert_eq!(client.get(location).await.problem(), unknown, "{location}");
        assert_eq!(client.delete(location).await.problem(), unknown, "{location}");
        assert_eq!(
            client.patch(location, None, b"x").await.problem(),
            unknown,
            "{location}"
        );
        assert_eq!(
            client.finish(location, &sha256(b"x"), b"x").await.problem(),
            unknown,
            "{location}"
        );
    }
    assert_eq!(world.files().len(), 1, "{:?}", world.files());
}

#[tokio::test]
async fn the_digest_may_be_of_another_kind_than_was_hashed() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let content = pattern(3, 400_000);
    let announced = client
        .ask(Method::POST, "blobs/uploads/?digest-algorithm=sha512")
        .await;
    assert_eq!(announced.status, 202);
    for location in [announced.header("location"), client.begin().await] {
        client.patch(&location, None, &content).await;
        let answer = client.finish(&location, &sha512(&content), &[]).await;
        assert_eq!(answer.header("docker-content-digest"), sha512(&content));
    }
    let location = client
        .ask(Method::POST, "blobs/uploads/?digest-algorithm=sha512")
        .await
        .header("location");
    assert_eq!(
        client.finish(&location, &sha256(&content), &content).await.status,
        201
    );
    let unknown = client
        .ask(Method::POST, "blobs/uploads/?digest-algorithm=md5")
        .await;
    assert_eq!(unknown.problem(), (400, "DIGEST_INVALID".to_owned()));
    for digest in ["", "md5:0", "sha256:0"] {
        let location = client.begin().await;
        let answer = client.finish(&location, digest, b"x").await;
        assert_eq!(answer.problem(), (400, "DIGEST_INVALID".to_owned()), "{digest}");
    }
}

#[tokio::test]
async fn two_at_once_on_one_upload_do_not_mix() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let content = pattern(4, 800_000);
    for _ in 0..5 {
        let location = client.begin().await;
        let (one, two) = tokio::join!(
            client.patch(&location, Some(0), &content),
            client.patch(&location, Some(0), &content)
        );
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 416]);
        assert_eq!(client.finish(&location, &sha256(&content), &[]).await.status, 201);
    }
}

#[tokio::test]
async fn a_body_is_awaited_only_after_the_token_was_looked_at() {
    let world = World::start().await;
    let host = world.url.trim_start_matches("http://").to_owned();
    let mut wire = tokio::net::TcpStream::connect(&host).await.expect("it connects");
    let head = format!(
        "POST /v2/systemprompt-images/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    wire.write_all(head.as_bytes()).await.expect("it is sent");
    let mut answer = String::new();
    wire.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn a_tenant_writes_so_much_at_once_and_no_more() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Push).await;
    let other = world.client(&world.tenant(), GateAccess::Push).await;
    let host = client.url.trim_start_matches("http://").to_owned();
    // A wire may come just while the seat that is left is taken by a request: so one more is opened until one is refused.
    let mut wires = Vec::new();
    let refused = async {
        loop {
            let answer = client.send(client.call(Method::POST, "blobs/uploads/")).await;
            if answer.status == 429 {
                break answer;
            }
            let mut wire = tokio::net::TcpStream::connect(&host).await.expect("it connects");
            let head = format!(
                "PATCH {} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\nContent-Length: 9\r\n\r\n",
                answer.header("location"),
                client.authorization.as_deref().expect("a token"),
            );
            wire.write_all(head.as_bytes()).await.expect("it is sent");
            wires.push(wire);
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused)
        .await
        .expect("too many are refused");
    assert!(wires.len() >= 24, "{} were enough", wires.len());
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(refused.json()["errors"][0]["code"], "TOOMANYREQUESTS");
    other.begin().await;
    assert_eq!(
        client.get("tags/list").await.status,
        200,
        "who reads is not held up"
    );
    drop(wires);
    let again = async {
        while client
            .send(client.call(Method::POST, "blobs/uploads/"))
            .await
            .status
            != 202
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("the seats come back");
}
