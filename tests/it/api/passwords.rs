//! Wrong passwords over HTTP: who is held up by them, how they are told, and who is not.

use reqwest::Method;

use crate::api::rig::{Api, PASSWORD};
use crate::gate::harness::{Answer, Client};

const EMAIL: &str = "ada@example.com";

/// Somebody at another address of this machine, who talks to one of the servers: whatever is between hides the address.
fn at(api: &Api, address: &str, port: Option<&u16>) -> Client {
    let http = reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .local_address(address.parse::<std::net::IpAddr>().expect("an address"));
    Client {
        http: http.build().expect("a client"),
        url: format!("http://127.0.0.1:{}", port.expect("a server")),
        ..api.anonymous()
    }
}

async fn sign_in(client: &Client, password: &str, cookie: &str) -> Answer {
    let form = [("email", EMAIL), ("password", password)];
    let request = client.call(Method::POST, "/sign-in").header("cookie", cookie);
    client.send(request.form(&form)).await
}

fn cookies(answer: &Answer) -> Vec<&str> {
    let all = answer.headers.get_all("set-cookie").iter();
    all.map(|cookie| cookie.to_str().expect("text")).collect()
}

#[tokio::test]
async fn a_stranger_who_hammers_does_not_keep_the_owner_out() {
    let api = Api::start();
    api.account(EMAIL);
    // Of several servers each knows what the others have counted.
    let (one, other) = (api.server.ports.first(), api.server.ports.last());
    let owner = at(&api, "127.0.0.1", other);
    let first = sign_in(&owner, PASSWORD, "").await;
    assert_eq!(first.status, 303, "{}", first.text());
    let stranger = at(&api, "127.0.0.2", one);
    let mut looked_at = 0;
    let held_up = loop {
        let answer = sign_in(&stranger, "a guess", "").await;
        if answer.status != 401 {
            break answer;
        }
        looked_at += 1;
    };
    assert_eq!((looked_at, held_up.status), (6, 429));
    let wait: u32 = held_up.header("retry-after").parse().expect("seconds");
    assert!((1..=5).contains(&wait), "{wait}");
    assert!(
        held_up.text().contains(&format!("Wait {wait} s")),
        "{}",
        held_up.text()
    );
    for port in [one, other] {
        let stranger = at(&api, "127.0.0.2", port);
        assert_eq!(sign_in(&stranger, PASSWORD, "").await.status, 429);
    }
    assert_eq!(sign_in(&owner, PASSWORD, "").await.status, 303);
    // The owner's browser behind the stranger's address: what stays of a sign-in says who it is.
    let [session, device] = cookies(&first)[..] else {
        panic!("{:?}", cookies(&first));
    };
    for wanted in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=7776000"] {
        assert!(device.contains(wanted), "{device}");
    }
    assert!(!session.contains("Max-Age"), "{session}");
    let kept = device.split(';').next().expect("a cookie");
    assert_eq!(sign_in(&stranger, PASSWORD, kept).await.status, 303);
    let forged = format!("{}AAAA", kept.get(..kept.len() - 4).expect("long enough"));
    assert_eq!(sign_in(&stranger, PASSWORD, &forged).await.status, 429);
    // Nor does it wait for what may be asked from that address at all.
    let mut asked = 0;
    while sign_in(&stranger, "a guess", "")
        .await
        .header("ratelimit")
        .is_empty()
    {
        asked += 1;
        assert!(asked < 40, "the address is never out of requests");
    }
    assert_eq!(sign_in(&stranger, PASSWORD, kept).await.status, 303);
}
