//! CI without a stored secret: identities of jobs by a real issuer of its own, the rules that let them in, and everything
//! that is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData as _};
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::server::clock::Clock;

use crate::api::rig::Api;
use crate::cli::rig::{House, Server};
use crate::gate::harness::Client;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const REQUEST_TOKEN: &str = "of-this-job-only";

/// A CI: it signs identities, publishes its keys, and gives a job its own identity.
#[derive(Clone)]
struct Ci(Arc<Inner>);

struct Inner {
    url: String,
    key: Mutex<(String, KeyPair)>,
    number: AtomicU64,
    given: AtomicU64,
}

impl Ci {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let key = KeyPair::generate().expect("a key");
        let ci = Self(Arc::new(Inner {
            url,
            key: Mutex::new(("one".to_owned(), key)),
            number: AtomicU64::new(0),
            given: AtomicU64::new(0),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(Self::discovery))
            .route("/keys", get(Self::keys))
            .route("/identity", get(Self::identity))
            .with_state(ci.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        ci
    }

    async fn discovery(State(ci): State<Self>) -> Json<Value> {
        let url = &ci.0.url;
        Json(json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }))
    }

    async fn keys(State(ci): State<Self>) -> Json<Value> {
        let (id, key) = &*ci.0.key.lock().expect("lock");
        Json(json!({ "keys": [{ "kty": "of a new kind", "kid": "other" }, published(id, key)] }))
    }

    /// As GitHub's runner answers its job.
    async fn identity(
        State(ci): State<Self>,
        headers: HeaderMap,
        Query(query): Query<Vec<(String, String)>>,
    ) -> Result<Json<Value>, StatusCode> {
        let shown = headers.get("authorization").and_then(|it| it.to_str().ok());
        if shown != Some(&format!("Bearer {REQUEST_TOKEN}")) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        ci.0.given.fetch_add(1, Ordering::SeqCst);
        let audience = query.iter().find(|(name, _)| name == "audience");
        let audience = audience.map(|(_, value)| value.clone()).unwrap_or_default();
        Ok(Json(json!({ "value": ci.token(&ci.claims(&audience)) })))
    }

    /// What a job of `acme/shop` on `main` says.
    fn claims(&self, audience: &str) -> Value {
        let now = Clock::system().now().as_millis() / 1000;
        let number = self.0.number.fetch_add(1, Ordering::SeqCst);
        json!({
            "iss": self.0.url, "aud": audience, "sub": "repo:acme/shop:ref:refs/heads/main",
            "iat": now, "nbf": now, "exp": now + 300, "jti": format!("job-{number}"),
            "repository": "acme/shop", "ref": "refs/heads/main", "ref_type": "branch",
        })
    }

    fn token(&self, claims: &Value) -> String {
        let (id, key) = &*self.0.key.lock().expect("lock");
        signed(id, key, claims)
    }

    fn rotate(&self) {
        *self.0.key.lock().expect("lock") = ("two".to_owned(), KeyPair::generate().expect("a key"));
    }
}

/// The public half of a key, as an issuer shows it.
pub(crate) fn published(id: &str, key: &KeyPair) -> Value {
    let point = key.der_bytes();
    let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
    json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": part(1), "y": part(33) })
}

pub(crate) fn signed(id: &str, key: &KeyPair, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    let key = EncodingKey::from_ec_der(&key.serialize_der());
    jsonwebtoken::encode(&header, claims, &key).expect("signed")
}

/// A server that allows this CI, and a tenant.
struct Place {
    api: Api,
    ci: Ci,
    /// The tenant's path.
    tenant: String,
    server: String,
}

impl Place {
    async fn start() -> Self {
        let ci = Ci::start().await;
        let mut server = Server::down();
        server.house.set("SYSTEMPROMPT_CI_ISSUERS", &ci.0.url);
        server.up();
        let api = Api::over(server);
        let tenant = api.owner.tenant("acme").await;
        let server = api.anonymous().url;
        Self {
            api,
            ci,
            tenant,
            server,
        }
    }

    fn id(&self) -> &str {
        self.tenant.rsplit('/').next().expect("an id")
    }

    async fn trust(&self, repository: &str, git_ref: &str) -> Value {
        let rule = json!({ "issuer": self.ci.0.url, "repository": repository, "ref": git_ref });
        let answer = self
            .api
            .owner
            .post(&format!("{}/trust-rules", self.tenant), &rule)
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    async fn exchange(&self, tenant: &str, token: &str) -> (u16, Value) {
        let fields = [
            ("grant_type", EXCHANGE),
            ("client_id", "systemprompt-cli"),
            ("subject_token", token),
            ("subject_token_type", ID_TOKEN),
            ("audience", tenant),
        ];
        let answer = self.api.anonymous().form("/api/v1/oauth/token", &fields).await;
        (answer.status, answer.json())
    }

    async fn job(&self) -> Client {
        let (status, answer) = self
            .exchange("acme", &self.ci.token(&self.ci.claims(&self.server)))
            .await;
        assert_eq!(status, 200, "{answer}");
        self.api
            .with_token(answer["access_token"].as_str().expect("a token"))
    }

    #[track_caller]
    fn refused((status, answer): &(u16, Value), why: &str) {
        assert_eq!(*status, 400, "{answer}");
        assert_eq!(answer["error"], "invalid_grant", "{answer}");
        let told = answer["error_description"].as_str().expect("a description");
        assert!(told.contains(why), "{told}");
    }
}

#[tokio::test]
async fn a_job_deploys_to_its_tenant_and_nothing_else() {
    let place = Place::start().await;
    let other = place.api.owner.tenant("other").await;
    let rule = place.trust("acme/shop", "main").await;
    assert_eq!(rule["ref"], "refs/heads/main");
    let token = place.ci.token(&place.ci.claims(&place.server));
    let (status, answer) = place.exchange(place.id(), &token).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["expires_in"], &answer["scope"], &answer["refresh_token"]),
        (&json!(600), &json!("read deploy"), &Value::Null)
    );
    assert_eq!(
        answer["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    let job = place
        .api
        .with_token(answer["access_token"].as_str().expect("a token"));
    let me = job.read("/api/v1/me").await;
    assert_eq!(me["tenant_id"], place.id());
    let deployed = job.deploy(&place.tenant, "one").await;
    job.succeeded(&deployed).await;
    // No secrets, no members' business, no other tenant, no account.
    let secret = json!({ "key": "OPENAI_API_KEY", "value": "sk-1" });
    let rules = format!("{}/trust-rules", place.tenant);
    for (method, path, body, status) in [
        (Method::POST, format!("{}/secrets", place.tenant), secret, 403),
        (Method::DELETE, place.tenant.clone(), Value::Null, 403),
        (Method::GET, rules.clone(), Value::Null, 403),
        (Method::GET, other, Value::Null, 404),
        (Method::GET, "/api/v1/tokens".to_owned(), Value::Null, 403),
    ] {
        let answer = job.say(method, &path, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    // By whom it was done is on record.
    let acts = place
        .api
        .owner
        .list(&format!("{}/audit?limit=200", place.tenant))
        .await;
    let exchanged = acts
        .iter()
        .find(|act| act["actor"] == "ci")
        .expect("the exchange is on record");
    assert_eq!(exchanged["credential_id"], rule["id"]);
    assert!(acts.iter().any(|act| act["action"] == "create_trust_rule"));
}

#[tokio::test]
async fn whoever_is_not_meant_is_refused() {
    let place = Place::start().await;
    place.trust("acme/shop", "main").await;
    let changed = |changes: &[(&str, Value)]| {
        let mut claims = place.ci.claims(&place.server);
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        claims
    };
    let now = Clock::system().now().as_millis() / 1000;
    let no_rule = "no trust rule of this tenant";
    for (changes, why) in [
        (&[("repository", json!("mallory/shop"))][..], no_rule),
        (&[("repository", Value::Null)], no_rule),
        (&[("ref", json!("refs/heads/main2"))], no_rule),
        (&[("ref", json!("refs/pull/1/merge"))], no_rule),
        (&[("ref", json!("main")), ("ref_type", json!("tag"))], no_rule),
        (&[("aud", json!("https://elsewhere.example"))], "another audience"),
        (&[("exp", json!(now - 120))], "has expired"),
        (&[("nbf", json!(now + 600))], "from the future"),
        (&[("jti", Value::Null)], "has no number"),
        (
            &[("iss", json!("https://token.actions.githubusercontent.com"))],
            no_rule,
        ),
    ] {
        let answer = place.exchange("acme", &place.ci.token(&changed(changes))).await;
        Place::refused(&answer, why);
    }
    // A key that is not the issuer's, under the name of one that is, and under a name of its own.
    let claims = place.ci.claims(&place.server);
    let mallory = KeyPair::generate().expect("a key");
    for id in ["one", "mine", "other"] {
        let answer = place.exchange("acme", &signed(id, &mallory, &claims)).await;
        Place::refused(&answer, "signed by no key");
    }
    // A signature with what everybody knows, and none at all.
    let header = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let payload = header(&claims.to_string());
    for head in [r#"{"alg":"none","kid":"one"}"#, r#"{"alg":"HS256","kid":"one"}"#] {
        let (status, answer) = place
            .exchange("acme", &format!("{}.{payload}.c2ln", header(head)))
            .await;
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("invalid_request")),
            "{answer}"
        );
    }
    for junk in ["", "a.b.c", "spt_x", &"x".repeat(5000)] {
        assert_eq!(place.exchange("acme", junk).await.0, 400, "{junk}");
    }
    // Whether there is such a tenant is nobody's business.
    let good = place.ci.token(&place.ci.claims(&place.server));
    Place::refused(&place.exchange("nobody", &good).await, no_rule);
    // The same identity is good for the one that trusts it, once.
    assert_eq!(place.exchange("acme", &good).await.0, 200);
    Place::refused(&place.exchange("acme", &good).await, "was used before");
}

#[tokio::test]
async fn a_rule_that_is_taken_back_lets_nobody_in_and_keys_change() {
    let place = Place::start().await;
    let rule = place.trust("acme/shop", "refs/heads/*").await;
    place.job().await;
    place.ci.rotate();
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    place.job().await;
    let rules = format!("{}/trust-rules", place.tenant);
    let listed = place.api.owner.list(&rules).await;
    assert_eq!(listed.len(), 1);
    let same = json!({ "issuer": place.ci.0.url, "repository": "acme/shop", "ref": "*" });
    assert_eq!(
        place.api.owner.post(&rules, &same).await.status,
        400,
        "the rule is there"
    );
    let elsewhere = json!({ "issuer": "https://ci.example", "repository": "acme/shop", "ref": "main" });
    let answer = place.api.owner.post(&rules, &elsewhere).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("one that the server allows"),
        "{}",
        answer.text()
    );
    let path = format!("{rules}/{}", rule["id"].as_str().expect("an id"));
    let removed = place.api.owner.ask(Method::DELETE, &path).await;
    assert_eq!(removed.status, 204);
    assert_eq!(place.api.owner.ask(Method::DELETE, &path).await.status, 404);
    let token = place.ci.token(&place.ci.claims(&place.server));
    Place::refused(&place.exchange("acme", &token).await, "no trust rule");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_signs_a_job_in_and_again_when_its_token_ends() {
    let place = Place::start().await;
    let owner = House::new()
        .with("SYSTEMPROMPT_API_URL", &place.server)
        .with("SYSTEMPROMPT_TOKEN", &place.api.token);
    let none = owner.run(&["tenant", "trust", "--tenant", "acme"]).ok();
    assert!(none.stdout.contains("no CI job may deploy"), "{}", none.whole());
    let issuer = place.ci.0.url.as_str();
    let add = |repository| {
        [
            "tenant",
            "trust",
            "add",
            "--tenant",
            "acme",
            "--issuer",
            issuer,
            "--repository",
            repository,
        ]
    };
    let added = owner.run(&add("acme/shop")).ok();
    assert!(
        added
            .whole()
            .contains("jobs of acme/shop at refs/heads/main may deploy"),
        "{}",
        added.whole()
    );
    assert_eq!(owner.run(&add("shop")).code, Some(2));

    let job = House::new()
        .with("CI", "true")
        .with("SYSTEMPROMPT_API_URL", &place.server)
        .with(
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            &format!("{issuer}/identity?version=2"),
        )
        .with("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN);
    let login = ["login", "--oidc", "--tenant", "acme", "--json"];
    assert_eq!(job.run(&login).ok().json()["stored_in"], "file");
    let whoami = |job: &House| job.run(&["whoami", "--json"]).ok().json()["account"].clone();
    assert_eq!(whoami(&job)["tenant_id"], place.id());
    assert_eq!(place.ci.0.given.load(Ordering::SeqCst), 1);

    // The token has ended, the job has not.
    let kept = job.read(".systemprompt/credentials.json");
    let ends = serde_json::from_str::<Value>(&kept).expect("JSON").to_string();
    let at = ends.find("\"expires_at\":\"").expect("an end") + "\"expires_at\":\"".len();
    let past = format!("{}2020{}", &ends[..at], &ends[at + 4..]);
    job.put(".systemprompt/credentials.json", &past);
    assert_eq!(whoami(&job)["tenant_id"], place.id());
    assert_eq!(place.ci.0.given.load(Ordering::SeqCst), 2);
    assert_eq!(whoami(&job)["tenant_id"], place.id());
    assert_eq!(place.ci.0.given.load(Ordering::SeqCst), 2, "the new one is kept");

    let elsewhere = House::new().with("SYSTEMPROMPT_API_URL", &place.server);
    let refused = elsewhere.run(&login[..4]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("id-token: write"), "{}", refused.whole());
    let gitlab = place.ci.claims(&place.server);
    let elsewhere = elsewhere.with("SYSTEMPROMPT_ID_TOKEN", &place.ci.token(&gitlab));
    elsewhere.run(&login).ok();
    let again = elsewhere.run(&login[..4]);
    assert!(again.stderr.contains("was used before"), "{}", again.whole());
}
