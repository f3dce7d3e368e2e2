//! A running server, people who have tokens for it, and the words that most tests say.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use systemprompt::api::routes::{ALL, Access, Route};

use crate::cli::rig::{Said, Server};
use crate::gate::harness::{Answer, Client};

/// Long enough for a busy machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What may stand in `scope`.
pub(crate) const SCOPES: [&str; 4] = ["read", "deploy", "secrets", "admin"];
/// Long enough for the rules.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A running server and its first account.
pub(crate) struct Api {
    pub(crate) server: Server,
    pub(crate) owner: Client,
    pub(crate) token: String,
}

impl Api {
    /// Starts a server; its operator has a token that may do everything.
    pub(crate) fn start() -> Self {
        Self::over(Server::start_unsigned())
    }

    /// The same over servers that are there.
    pub(crate) fn over(server: Server) -> Self {
        let token = server.token();
        let owner = client(&server, Some(&format!("Bearer {token}")));
        Self { server, owner, token }
    }

    /// Somebody who shows this in `Authorization`.
    pub(crate) fn showing(&self, authorization: &str) -> Client {
        client(&self.server, Some(authorization))
    }

    /// Somebody with this token.
    pub(crate) fn with_token(&self, token: &str) -> Client {
        self.showing(&format!("Bearer {token}"))
    }

    /// Somebody who shows nothing.
    pub(crate) fn anonymous(&self) -> Client {
        client(&self.server, None)
    }

    /// A command of `systemprompt server` on this server's data.
    pub(crate) fn command(&self, arguments: &[&str], input: &str) -> Said {
        let data = self.server.data_dir();
        let mut all = vec!["server"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--data-dir", &data]);
        self.server.house.feed(&all, input).ok()
    }

    /// A command of `systemprompt tenant` on the tenant `acme`.
    pub(crate) fn of_acme(&self, words: &str) -> Said {
        let mut arguments = vec!["tenant"];
        arguments.extend(words.split(' '));
        arguments.extend_from_slice(&["--tenant", "acme"]);
        self.server.run(&arguments)
    }

    /// A new account with a password, and a token of it that may do everything.
    pub(crate) fn account(&self, email: &str) -> Client {
        self.command(&["account", "create", email], &format!("{PASSWORD}\n"));
        self.with_token(&self.token_of(email, &SCOPES.join(","), &[]))
    }

    /// A new token of an account.
    pub(crate) fn token_of(&self, email: &str, scopes: &str, more: &[&str]) -> String {
        let mut arguments = vec![
            "token",
            "create",
            "--account",
            email,
            "--scope",
            scopes,
            "--quiet",
        ];
        if !more.contains(&"--expires-in") {
            arguments.extend_from_slice(&["--expires-in", "1d"]);
        }
        arguments.extend_from_slice(more);
        self.command(&arguments, "").stdout.trim().to_owned()
    }

    /// The operator with a token of these scopes only.
    pub(crate) fn limited(&self, scopes: &str, more: &[&str]) -> Client {
        self.with_token(&self.token_of(Server::EMAIL, scopes, more))
    }
}

/// Somebody who shows this, or nothing, in `Authorization`.
pub(crate) fn client(server: &Server, authorization: Option<&str>) -> Client {
    let http = reqwest::Client::builder()
        // Plain HTTP: reading the machine's certificates would take longer than most calls.
        .tls_certs_only([])
        .no_proxy()
        // A connection of the pool may be one to a server that was killed.
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE);
    Client {
        http: http.build().expect("a client"),
        url: format!("http://127.0.0.1:{}", server.port),
        authorization: authorization.map(str::to_owned),
    }
}

/// What most tests say to the API.
impl Client {
    /// A request with a JSON body.
    pub(crate) async fn say(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.send(self.call(method, path).json(body)).await
    }

    /// `POST` of a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.say(Method::POST, path, body).await
    }

    /// `POST` without a body.
    pub(crate) async fn post_empty(&self, path: &str) -> Answer {
        self.ask(Method::POST, path).await
    }

    /// `POST` of a form.
    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(self.call(Method::POST, path).form(fields)).await
    }

    /// `GET` of a document that is there.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The entries of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let page = self.read(path).await;
        page["data"].as_array().expect("entries").clone()
    }

    /// Buys a tenant of the free plan.
    pub(crate) async fn checkout(&self, name: &str) -> Answer {
        self.post("/api/v1/checkout", &free(name)).await
    }

    /// Buys a tenant and waits until its infrastructure is there; answers its path.
    pub(crate) async fn tenant(&self, name: &str) -> String {
        let answer = self.checkout(name).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        self.succeeded(&answer).await;
        format!("/api/v1/tenants/{}", text(&answer.json()["tenant_id"]))
    }

    /// Waits for the operation that an answer names; answers it.
    pub(crate) async fn finished(&self, answer: &Answer) -> Value {
        let told = answer.json();
        assert!(answer.status < 300, "{}", answer.text());
        let id = if told["operation_id"].is_string() {
            text(&told["operation_id"])
        } else {
            text(&told["id"])
        };
        let began = Instant::now();
        loop {
            let operation = self.read(&format!("/api/v1/operations/{id}")).await;
            let status = text(&operation["status"]);
            if ["succeeded", "failed", "undone", "stuck", "abandoned"].contains(&status.as_str()) {
                return operation;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {operation:#}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// The same for one that must succeed.
    pub(crate) async fn succeeded(&self, answer: &Answer) -> Value {
        let operation = self.finished(answer).await;
        assert_eq!(operation["status"], "succeeded", "{operation:#}");
        operation
    }

    /// Pushes a small image for the tenant through the gate; answers its reference and its digest.
    pub(crate) async fn push(&self, tenant: &str, content: &str) -> (String, String) {
        let token = self.read(&format!("{tenant}/registry-token")).await;
        let part = |name: &str| text(&token[name]);
        let mut gate = self.clone();
        gate.authorization = None;
        let path = "/v2/token?scope=repository:systemprompt-images:pull,push";
        let request = gate.call(Method::GET, path);
        let answer = gate
            .send(request.basic_auth(part("username"), Some(part("token"))))
            .await;
        gate.authorization = Some(format!("Bearer {}", text(&answer.json()["token"])));
        let image = gate.push_image(&part("tag"), content).await;
        let reference = format!("{}/{}:{}", part("registry"), part("repository"), part("tag"));
        (reference, image.digest)
    }

    /// Pushes an image and asks for its release.
    pub(crate) async fn deploy(&self, tenant: &str, content: &str) -> Answer {
        let (image, digest) = self.push(tenant, content).await;
        let body = json!({"image": image, "digest": digest, "message": content});
        let answer = self.post(&format!("{tenant}/deploy"), &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer
    }

    /// Sets a secret that waits for the next deploy.
    pub(crate) async fn stage(&self, tenant: &str, key: &str, value: &str) {
        let path = format!("{tenant}/secrets?stage=true");
        let answer = self.post(&path, &json!({"key": key, "value": value})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The names of the tenant's events, in order.
    pub(crate) async fn event_names(&self, tenant: &str) -> Vec<String> {
        let events = self.list(&format!("{tenant}/events?limit=200")).await;
        events.iter().map(|event| text(&event["event"])).collect()
    }

    /// A request to a route of the table, with a body that its handler takes.
    pub(crate) fn to(&self, route: &Route, path: &str) -> RequestBuilder {
        let method: Method = route.method.parse().expect("a method");
        let request = self.call(method, path);
        match body_of(route) {
            Some(body) => request.json(&body),
            None => request,
        }
    }
}

/// How many connections to the port the kernel still keeps open on the server's side.
pub(crate) fn open_connections(port: u16) -> usize {
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let established = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[3] == "01"
    };
    table.lines().skip(1).filter(established).count()
}

/// A good purchase of a free tenant.
pub(crate) fn free(name: &str) -> Value {
    json!({"price_id": "pri_free", "name": name, "region": "local"})
}

/// The text in a document.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

/// Status and code of a problem.
pub(crate) fn problem(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    (answer.status, text(&answer.json()["code"]))
}

/// A problem without what differs from request to request.
pub(crate) fn without_request_id(answer: &Answer) -> Value {
    let mut document = answer.json();
    let told = document["request_id"].take();
    assert_eq!(text(&told), answer.header("x-request-id"));
    document
}

/// The routes under one tenant, with the scope that each needs.
pub(crate) fn tenant_routes() -> impl Iterator<Item = (&'static Route, &'static str)> {
    ALL.iter().filter_map(|route| match route.access {
        Access::Tenant(scope) => Some((route, scope)),
        _ => None,
    })
}

/// The route's path with these parameters, and something harmless for every other one.
pub(crate) fn filled(route: &Route, parameters: &[(&str, &str)]) -> String {
    let id = |prefix: &str| format!("{prefix}_00000000000000000000000000");
    let mut path = route.path.to_owned();
    for (name, value) in parameters {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    for (name, value) in [
        ("tenant_id", id("ten")),
        ("operation_id", id("op")),
        ("checkout_id", id("chk")),
        ("token_id", id("tok")),
        ("session_id", id("ses")),
        ("identity_id", id("idn")),
        ("account_id", id("acc")),
        ("grant_id", id("sup")),
        ("rule_id", id("tru")),
        ("number", "1".to_owned()),
        ("key", "ANTHROPIC_API_KEY".to_owned()),
        ("token", "spc_unknown".to_owned()),
    ] {
        path = path.replace(&format!("{{{name}}}"), &value);
    }
    assert!(
        !path.contains('{'),
        "{path} has a parameter that this test does not know"
    );
    path
}

fn body_of(route: &Route) -> Option<Value> {
    let body = match (route.method, route.path.rsplit('/').next().unwrap_or_default()) {
        ("POST", "checkout") => free("somebody"),
        ("POST", "tokens") => json!({"name": "x", "scopes": ["read"], "expires_in_seconds": 60}),
        ("POST", "deploy") => json!({"image": "current"}),
        ("POST", "rotate-jwt-secret") => json!({"overlap_seconds": 60}),
        ("POST", "restore") => json!({"version": 1}),
        ("POST", "rollback") => json!({"release": 1}),
        ("POST", "reconcile") => json!({"dry_run": true}),
        ("POST", "members") => json!({"email": "nobody@example.com", "role": "owner"}),
        ("PATCH", "{account_id}") => json!({"role": "owner"}),
        // Too short, so that no door is opened by it.
        ("POST", "support-grants") => json!({"access": "full", "expires_in_seconds": 1}),
        ("POST", "trust-rules") => json!({
            "issuer": "https://token.actions.githubusercontent.com", "repository": "acme/shop", "ref": "main",
        }),
        ("POST", "secrets") => json!({"key": "OPENAI_API_KEY", "value": "stolen"}),
        ("PATCH", "{key}") => json!({"value": "stolen"}),
        ("PATCH", "{tenant_id}") => json!({"name": "stolen"}),
        _ => return None,
    };
    Some(body)
}

/// Compares with the snapshot of this name; what differs from run to run is named instead.
#[track_caller]
pub(crate) fn snapshot(name: &str, shown: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, name) in [
        (
            r"\b(ten|op|acc|chk|req|res|tok|sup|tru)_[0-9a-hjkmnp-tv-z]{26}\b",
            "${1}_ID",
        ),
        (r"\bt_[0-9a-hjkmnp-tv-z]{26}", "t_ID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"localhost:\d+", "localhost:PORT"),
        (r"sha256:[0-9a-f]{64}", "sha256:DIGEST"),
        (r#"("digest": ")[0-9a-f]{12}""#, "${1}DIGEST\""),
        (r"\bspc_[0-9A-Za-z_-]{43}", "spc_TOKEN"),
        (r"\bsp-[a-z0-9]{6}-", "sp-INSTANCE-"),
        (r";r=\d+;t=\d+", ";r=LEFT;t=SECONDS"),
    ] {
        settings.add_filter(pattern, name);
    }
    settings.bind(|| insta::assert_snapshot!(name, shown));
}

/// A document as a snapshot holds it.
pub(crate) fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).expect("JSON")
}
