//! Who visits, at a real Caddy: what the app is told and by whom, and what becomes of visitors when nobody can tell. A
//! socket that answers by the cookie plays the server; what the server says is tested in tests/it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use systemprompt::server::edge::{DOOR, Edge as _, Traffic};
use systemprompt::server::providers::{Provider as _, TenantSpec};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::edge::Front;
use crate::installation::Installation;
use crate::need;

/// Everything by which a visitor may try to say who they are.
const CLAIMS: [&str; 9] = [
    "X-Session-User",
    "x-session-user",
    "X_Session_User",
    "X-Session_User",
    "X_Session-User",
    "X.Session.User",
    "X-Session-Tenant",
    "X_SESSION_TENANT",
    "X-Session-Assertion",
];

/// Paths and headers of what the edge has asked.
type Asked = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// Plays the server at its end of the socket, and keeps what it was asked.
struct Door {
    folder: TempDir,
    asked: Asked,
    open: Option<JoinHandle<()>>,
}

impl Door {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), everybody).expect("a mode");
        let asked = Arc::default();
        let mut door = Self {
            folder,
            asked,
            open: None,
        };
        door.open();
        door
    }

    fn open(&mut self) {
        let path = self.folder.path().join(DOOR);
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        let router = Router::new().fallback(answer).with_state(Arc::clone(&self.asked));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        let open = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        self.open = Some(open);
    }

    /// The server is gone.
    async fn close(&mut self) {
        let open = self.open.take().expect("open");
        open.abort();
        let _ = open.await;
    }

    fn last(&self) -> HeaderMap {
        self.asked
            .lock()
            .expect("lock")
            .last()
            .expect("it was asked")
            .1
            .clone()
    }
}

async fn answer(State(asked): State<Asked>, uri: Uri, headers: HeaderMap) -> axum::response::Response {
    asked
        .lock()
        .expect("lock")
        .push((uri.to_string(), headers.clone()));
    if uri.path() != "/internal/edge/authorize" {
        return format!("own {uri}").into_response();
    }
    let shown = |name: &str| {
        headers
            .get(name)
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let by = match (
        shown("cookie").contains("sp_edge_8080=good"),
        shown("authorization").as_str(),
    ) {
        (true, _) => "session",
        (_, "Bearer ours") => "token",
        _ => return (StatusCode::UNAUTHORIZED, [("x-told", "no")], "who are you?").into_response(),
    };
    let who = [
        ("x-session-user", "acc_1"),
        ("x-session-tenant", "ten_1"),
        ("x-session-assertion", "signed"),
        ("x-session-by", by),
    ];
    (who, "").into_response()
}

struct Visit {
    front: Front,
    client: reqwest::Client,
}

impl Visit {
    /// What the app sees of a request with these headers; the status where it sees none.
    async fn seen(&self, headers: &[(&str, &str)]) -> Result<String, u16> {
        let url = format!("{}/cgi-bin/env?x=1", self.front.edge.url("acme"));
        let mut request = self.client.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("answers");
        match answer.status().as_u16() {
            200 => Ok(answer.text().await.expect("text")),
            status => Err(status),
        }
    }
}

fn variable<'a>(environment: &'a str, name: &str) -> Option<&'a str> {
    environment
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

async fn serve_env(installation: &Installation, front: &Front, tenant: &TenantSpec) {
    front.attach(installation, tenant).await;
    let spec = installation.running(tenant, 1, &["httpd", "-f", "-p", "8080", "-h", "/www"]);
    let machine = installation
        .provider()
        .start_machine(&spec)
        .await
        .expect("started")
        .external_id;
    front.send_to(installation, &spec, &machine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_edge_says_who_visits() {
    need!(Installation::available());
    let installation = Installation::new();
    let mut door = Door::new();
    let front = Front::with_door(&installation, Some(door.folder.path().to_owned()));
    let (tenant, other) = (
        installation.made_tenant("acme", 0).await,
        installation.made_tenant("bolt", 1).await,
    );
    serve_env(&installation, &front, &tenant).await;
    front.attach(&installation, &other).await;
    front.serve(&installation, &other, 1).await;
    let client = front.client("acme").build().expect("client");
    let visit = Visit { front, client };

    nobody_is_asked(&visit, &door).await;
    everybody_is_asked(&visit, &door).await;
    tokens_sockets_and_own_paths(&visit).await;
    bodies_and_deploys(&installation, &visit, &tenant).await;
    without_the_server(&visit, &mut door).await;

    visit.front.edge.ask_first("acme", false).await.expect("told");
    assert_eq!(visit.front.get("acme", "/").await, (200, "v2".to_owned()));
    visit.front.edge.ask_first("acme", true).await.expect("told");
    let told = [
        "method",
        "header.Authorization",
        "header.Cookie",
        "header.X-Session-User",
        "header.Origin",
    ];
    let told = told
        .map(|what| format!("{what}=<{{http.request.{what}}}>"))
        .join(" ");
    let respond = ["caddy", "respond", "--listen", ":8080", "--body", &told];
    let spec = installation.running(&tenant, 3, &respond);
    let machine = installation.start(&spec).await;
    visit.front.send_to(&installation, &spec, &machine).await;
    preflights_come_through_and_nothing_else(&visit, &door).await;
    let spec = installation.running(
        &tenant,
        4,
        &["nc", "-ll", "-p", "8080", "-e", "/bin/sh", "-c", LIVE],
    );
    let machine = installation
        .provider()
        .start_machine(&spec)
        .await
        .expect("started");
    visit
        .front
        .send_to(&installation, &spec, &machine.external_id)
        .await;
    sockets_and_streams_stay_open(&visit).await;
}

fn claims() -> Vec<(&'static str, &'static str)> {
    let all = CLAIMS.iter().map(|name| (*name, "mallory"));
    all.chain([("X-Session-User", "mallory too")]).collect()
}

async fn nobody_is_asked(visit: &Visit, door: &Door) {
    // Nobody is asked, and still nobody says of themselves who they are.
    let claims = claims();
    let all = [claims.as_slice(), &[("Cookie", "a=b; sp_edge_8080=good; c=d")]].concat();
    let seen = visit.seen(&all).await.expect("served");
    assert!(!seen.to_lowercase().contains("mallory"), "{seen}");
    assert_eq!(
        variable(&seen, "HTTP_HOST").map(|host| host.split(':').next()),
        Some(Some("acme.localhost"))
    );
    assert_eq!(variable(&seen, "HTTP_COOKIE"), Some("a=b; c=d"), "{seen}");
    assert!(door.asked.lock().expect("lock").is_empty());
}

async fn everybody_is_asked(visit: &Visit, door: &Door) {
    let claims = claims();
    // From now on everybody is, with the next request.
    for _ in 0..2 {
        visit.front.edge.ask_first("acme", true).await.expect("told");
        assert_eq!(visit.seen(&claims).await, Err(401));
    }
    let told = door.last();
    assert_eq!(
        (told["x-edge-label"].clone(), told["x-forwarded-method"].clone()),
        ("acme".parse().expect("text"), "GET".parse().expect("text"))
    );
    assert_eq!(told["x-forwarded-uri"], "/cgi-bin/env?x=1");
    for (cookies, left) in [
        ("sp_edge_8080=good", None),
        (
            "sp_edge_8080=good; sp_edge_away_8080=x; a=b; c=d",
            Some("a=b; c=d"),
        ),
        (
            "a=b; sp_edge_8080=good; __Host-sp_edge_8443=x; xsp_edge_1=y",
            Some("a=b; xsp_edge_1=y"),
        ),
    ] {
        // A visitor can neither say more nor less than the edge, nor come as another tenant's.
        let more = [
            ("Cookie", cookies),
            ("Connection", "X-Session-User, X-Session-Tenant"),
            ("X-Edge-Label", "bolt"),
            ("X-Forwarded-Uri", "/else"),
        ];
        let seen = visit
            .seen(&[claims.as_slice(), &more].concat())
            .await
            .expect("let in");
        assert!(!seen.contains("mallory"), "{seen}");
        for (name, value) in [("USER", "acc_1"), ("TENANT", "ten_1"), ("ASSERTION", "signed")] {
            assert_eq!(
                variable(&seen, &format!("HTTP_X_SESSION_{name}")),
                Some(value),
                "{seen}"
            );
        }
        assert_eq!(variable(&seen, "HTTP_COOKIE"), left, "{cookies}");
        assert_eq!(door.last()["x-edge-label"], "acme");
        assert_eq!(door.last()["x-forwarded-uri"], "/cgi-bin/env?x=1");
    }
}

/// What was asked for as a socket says everything again; everybody else is sent two events, one much later.
const LIVE: &str = r#"upgrade=
while read -r line; do
  case "$line" in [Uu]pgrade:*) upgrade=1;; esac
  [ ${#line} -le 1 ] && break
done
if [ "$upgrade" ]; then
  printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
  exec cat
fi
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: one\n\n'
sleep 3
printf 'data: two\n\n'"#;

/// A socket that a visitor opens who is let in goes both ways, and events come when they are sent.
async fn sockets_and_streams_stay_open(visit: &Visit) {
    let url = visit.front.edge.url("acme");
    let host = url.strip_prefix("http://").expect("an address");
    let port: u16 = host.rsplit_once(':').expect("a port").1.parse().expect("a port");
    for (cookie, status) in [("sp_edge_8080=good", "101"), ("sp_edge_8080=over", "401")] {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connected");
        let request = format!(
            "GET /live HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: {cookie}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let head = heard(&mut socket, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        if status == "101" {
            for said in ["one", "two"] {
                socket.write_all(said.as_bytes()).await.expect("sent");
                assert_eq!(heard(&mut socket, said).await, said);
            }
        }
    }
    let request = visit.client.get(&url).header("Cookie", "sp_edge_8080=good");
    let began = Instant::now();
    let mut answer = request.send().await.expect("answers");
    let first = answer.chunk().await.expect("read").expect("an event");
    assert_eq!(first, "data: one\n\n");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(
        answer.chunk().await.expect("read").expect("an event"),
        "data: two\n\n"
    );
}

/// What comes until `end` has come.
async fn heard(socket: &mut tokio::net::TcpStream, end: &str) -> String {
    let mut all = String::new();
    let read = async {
        let mut bytes = [0; 1024];
        while !all.contains(end) {
            let length = socket.read(&mut bytes).await.expect("read");
            assert_ne!(length, 0, "it was closed after {all:?}");
            all.push_str(std::str::from_utf8(&bytes[..length]).expect("text"));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("it comes");
    all
}

/// A browser asks without credentials whether another site's page may ask: the app answers, and learns nothing of anybody.
async fn preflights_come_through_and_nothing_else(visit: &Visit, door: &Door) {
    let url = format!("{}/cgi-bin/env?x=1", visit.front.edge.url("acme"));
    let send = |method: reqwest::Method, headers: &[(&'static str, &'static str)]| {
        let mut request = visit.client.request(method, &url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move { request.send().await.expect("answers") }
    };
    let origin = ("Origin", "https://app.example.com");
    let wanted = ("Access-Control-Request-Method", "DELETE");
    let asked = door.asked.lock().expect("lock").len();
    let shown = [
        origin,
        wanted,
        ("Cookie", "sp_edge_8080=good; a=b"),
        ("Authorization", "Bearer ours"),
    ];
    let claims = claims();
    let all = [shown.as_slice(), claims.as_slice()];
    let answer = send(reqwest::Method::OPTIONS, &all.concat()).await;
    assert_eq!(answer.status().as_u16(), 200);
    let seen = answer.text().await.expect("text");
    assert_eq!(
        seen,
        "method=<OPTIONS> header.Authorization=<> header.Cookie=<> header.X-Session-User=<> \
         header.Origin=<https://app.example.com>"
    );
    assert_eq!(door.asked.lock().expect("lock").len(), asked, "nobody is asked");
    // Anything else that calls itself so is asked as before.
    for (method, headers) in [
        (reqwest::Method::OPTIONS, vec![]),
        (reqwest::Method::OPTIONS, vec![origin]),
        (reqwest::Method::OPTIONS, vec![wanted]),
        (reqwest::Method::GET, vec![origin, wanted]),
        (reqwest::Method::POST, vec![origin, wanted]),
    ] {
        let answer = send(method.clone(), &headers).await;
        assert_eq!(answer.status().as_u16(), 401, "{method} {headers:?}");
    }
}

async fn tokens_sockets_and_own_paths(visit: &Visit) {
    // Our own token is not the app's; its own is.
    let seen = visit
        .seen(&[("Authorization", "Bearer ours")])
        .await
        .expect("let in");
    assert!(!seen.contains("ours"), "{seen}");
    let both = [("Authorization", "Bearer apps"), ("Cookie", "sp_edge_8080=good")];
    assert!(visit.seen(&both).await.expect("let in").contains("Bearer apps"));
    // What opens a socket goes on as it came.
    let socket = [
        ("Cookie", "sp_edge_8080=good"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    ];
    let seen = visit.seen(&socket).await.expect("let in");
    assert_eq!(variable(&seen, "HTTP_UPGRADE"), Some("websocket"), "{seen}");
    // The server's own paths never reach the app.
    let own = format!("{}/.systemprompt/session?code=1", visit.front.edge.url("acme"));
    let own = visit
        .client
        .get(own)
        .send()
        .await
        .expect("answers")
        .text()
        .await
        .expect("text");
    assert_eq!(own, "own /.systemprompt/session?code=1");
}

/// Bodies arrive whole, also of requests that were held, which are asked once they may go on.
async fn bodies_and_deploys(installation: &Installation, visit: &Visit, tenant: &TenantSpec) {
    let front = &visit.front;
    front.serve(installation, tenant, 2).await;
    let url = front.edge.url("acme");
    let send = |size: usize, cookie: &'static str| {
        let request = visit.client.post(format!("{url}/")).header("Cookie", cookie);
        let request = request.body(vec![b'x'; size]);
        async move {
            let answer = request.send().await.expect("answers");
            (answer.status().as_u16(), answer.text().await.expect("text"))
        }
    };
    for size in [0, 10, 3_000_000] {
        assert_eq!(
            send(size, "sp_edge_8080=good").await,
            (200, "v2".to_owned()),
            "{size} bytes"
        );
    }
    assert_eq!(send(10, "").await.0, 401);
    front.edge.switch("acme", Traffic::Held).await.expect("held");
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(send(3_000_000, "sp_edge_8080=good"));
    waiting.spawn(send(10, "sp_edge_8080=over"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(waiting.try_join_next().is_none(), "nobody is answered meanwhile");
    front.edge.let_go("acme", 2).await.expect("let go");
    let mut answers: Vec<u16> = waiting
        .join_all()
        .await
        .into_iter()
        .map(|(status, _)| status)
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, [200, 401]);
}

/// Where nobody can tell, nobody is let in; others' visitors notice nothing, and a server that is back is found at once.
async fn without_the_server(visit: &Visit, door: &mut Door) {
    door.close().await;
    let began = Instant::now();
    let url = format!("{}/", visit.front.edge.url("acme"));
    let request = visit.client.get(&url).header("Cookie", "sp_edge_8080=good");
    let answer = request
        .header("Accept", "application/json")
        .send()
        .await
        .expect("answers");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"5".parse().expect("text"))
    );
    let told = answer.text().await.expect("text");
    assert!(told.contains("Nobody can be let in at the moment"), "{told}");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "it is not waited for long"
    );
    assert_eq!(visit.front.get("bolt", "/").await, (200, "v1".to_owned()));
    // One that starts again meanwhile is waited for.
    let request = visit
        .client
        .post(&url)
        .header("Cookie", "sp_edge_8080=good")
        .body(vec![b'x'; 100_000]);
    let waits = async { request.send().await.expect("answers").status().as_u16() };
    let back = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        door.open();
    };
    let (status, ()) = tokio::join!(waits, back);
    assert_eq!(status, 200);
}
