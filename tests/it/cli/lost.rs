//! Answers that get lost on their way, and servers that ask for patience.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cli::rig::{House, Server};

/// A proxy to `target` that does not deliver the answers to the first `times` requests that begin with `begin`.
fn swallow(target: u16, begin: &'static str, times: u32) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let left = Arc::new(AtomicU32::new(times));
    let counter = Arc::clone(&left);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let left = Arc::clone(&counter);
            std::thread::spawn(move || one_connection(client, target, begin, &left));
        }
    });
    (port, left)
}

fn one_connection(mut client: TcpStream, target: u16, begin: &str, left: &AtomicU32) {
    let mut server = TcpStream::connect(("127.0.0.1", target)).expect("connects");
    let mut answers = server.try_clone().expect("clones");
    let mut back = client.try_clone().expect("clones");
    let swallowing = Arc::new(AtomicU32::new(0));
    let is_swallowing = Arc::clone(&swallowing);
    std::thread::spawn(move || {
        let mut bytes = [0_u8; 65536];
        while let Ok(count @ 1..) = answers.read(&mut bytes) {
            if is_swallowing.load(Ordering::SeqCst) == 1 || back.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = back.shutdown(Shutdown::Both);
    });
    let mut bytes = [0_u8; 65536];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let is_first = |left: u32| left.checked_sub(1);
        if bytes.starts_with(begin.as_bytes())
            && left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_first)
                .is_ok()
        {
            swallowing.store(1, Ordering::SeqCst);
        }
        if server.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
}

#[test]
fn a_purchase_whose_answer_is_lost_is_made_once() {
    let mut server = Server::start();
    let (port, left) = swallow(server.port, "POST /api/v1/checkout ", 2);
    server.talk_to(port);
    let said = server.tenant("acme");
    assert_eq!(left.load(Ordering::SeqCst), 0, "two answers were lost");
    assert!(!said.stderr.contains("already"), "{}", said.whole());
    let listed = server.run(&["tenant", "list", "--json"]).ok();
    assert_eq!(listed.json()["tenants"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_became_of_a_change_is_asked_for_longer_than_whether_a_server_is_there() {
    let mut server = Server::start();
    let (port, left) = swallow(server.port, "POST /api/v1/reconcile ", 5);
    server.talk_to(port);
    let began = Instant::now();
    server.run(&["server", "reconcile"]).ok();
    assert_eq!(left.load(Ordering::SeqCst), 0, "five answers were lost");
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "the pauses between six tries add up to more than a server that is not there is waited for"
    );
}

#[test]
fn credentials_whose_answer_is_lost_are_fetched_again() {
    let mut server = Server::start();
    let created = server
        .run(&[
            "tenant", "create", "acme", "--plan", "free", "--yes", "--detach", "--json",
        ])
        .ok();
    let id = created.json()["tenant"]["id"].as_str().expect("an id").to_owned();
    std::thread::sleep(Duration::from_millis(1500));
    // The confirmation gets lost for good: the credentials are on the disk all the same, and can be had again.
    let route: &'static str = Box::leak(format!("POST /api/v1/tenants/{id}/credentials/").into_boxed_str());
    let (port, _) = swallow(server.port, route, u32::MAX);
    server.talk_to(port);
    let mut child = server.house.start(&["tenant", "show", &id, "--secrets"]);
    let secrets = server
        .house
        .path(&format!(".systemprompt/profiles/{id}/secrets.json"));
    let began = Instant::now();
    while !secrets.exists() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    assert!(secrets.exists());
    server.talk_to(server.port);
    server.run(&["tenant", "show", &id, "--secrets"]).ok();
}

#[test]
fn a_deletion_that_was_taken_up_again_is_forgotten_and_its_name_is_the_next_ones() {
    let server = Server::start();
    let id = |said: &crate::cli::rig::Said| said.json()["tenant"]["id"].as_str().expect("an id").to_owned();
    server.tenant("acme");
    let old = id(&server.run(&["tenant", "show", "acme", "--json"]).ok());
    let broken = systemprompt::server::world::Fault::Fatal;
    server
        .world()
        .plan("provider.remove_volume", 1, broken)
        .expect("planned");
    let stuck = server.run(&["tenant", "delete", "acme", "--yes", "--json"]);
    assert_eq!(stuck.code, Some(1), "{}", stuck.whole());
    let status = server.run(&["tenant", "status", "acme", "--json"]).ok();
    let operation = status.json()["current_operation"]["id"]
        .as_str()
        .expect("an operation")
        .to_owned();
    server.run(&["operation", "retry", &operation]).ok();
    assert!(!server.house.read(".systemprompt/tenants.json").contains(&old));
    let profile = format!(".systemprompt/profiles/{old}");
    assert!(!server.house.path(&profile).exists());
    server.tenant("acme");
    let new = id(&server.run(&["tenant", "show", "acme", "--json"]).ok());
    assert_ne!(new, old);

    // Deleted from elsewhere: this project hears nothing of it, and asks the server once two have the name.
    let elsewhere = server
        .house
        .script(r#"mkdir ../elsewhere && cd ../elsewhere && exec "$PROGRAM" tenant delete acme --yes"#)
        .output()
        .expect("bash runs");
    assert!(elsewhere.status.success(), "{elsewhere:?}");
    assert!(server.house.read(".systemprompt/tenants.json").contains(&new));
    server.tenant("acme");
    let newest = id(&server.run(&["tenant", "show", "acme", "--json"]).ok());
    assert!(newest != new && newest != old, "{newest}");
    let gone = server.run(&["tenant", "delete", &new, "--yes"]);
    assert_eq!(gone.code, Some(5), "{}", gone.whole());
    assert!(!server.house.read(".systemprompt/tenants.json").contains(&new));
}

/// A server that answers every request with the next of these; the last one again and again.
fn answers(answers: Vec<String>) -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let served = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&served);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut request = [0_u8; 65536];
            let _ = socket.read(&mut request);
            let number = counter.fetch_add(1, Ordering::SeqCst) as usize;
            let answer = answers.get(number).or(answers.last()).expect("an answer");
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    (port, served)
}

fn house(port: u16) -> House {
    House::new()
        .with("SYSTEMPROMPT_TOKEN", "spt_x")
        .with("SYSTEMPROMPT_API_URL", &format!("http://127.0.0.1:{port}"))
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let later = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let me = r#"{"account_id":"acc_00000000000000000000000001","email":"a@example.com","operator":false,
        "scopes":[],"tenant_id":null,"credential":"api_token","expires_at":"2030-01-01T00:00:00Z"}"#;
    let good = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{me}",
        me.len()
    );
    let (port, served) = answers(vec![later.to_owned(), later.to_owned(), good]);
    let began = Instant::now();
    house(port).run(&["whoami"]).ok();
    assert_eq!(served.load(Ordering::SeqCst), 3);
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "it waits as long as it was told"
    );
}

#[test]
fn a_token_is_not_carried_elsewhere() {
    let (elsewhere, visited) = answers(vec!["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()]);
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 0\r\n\r\n"
    );
    let (port, _) = answers(vec![redirect]);
    let said = house(port).run(&["whoami"]);
    assert_eq!(said.code, Some(1), "{}", said.whole());
    assert!(said.stderr.contains("redirects to"), "{}", said.whole());
    assert_eq!(visited.load(Ordering::SeqCst), 0);
}
