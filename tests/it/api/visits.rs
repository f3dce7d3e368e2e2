//! Edge sessions: what the edge is told of visitors at its door, and the way of a browser to a tenant's host and back. The
//! tests play the edge; tests/real has a real one.

use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::server::clock::Clock;

use crate::api::identity::Browser;
use crate::api::rig::{Api, PASSWORD, problem, text};
use crate::api::trust::{published, signed};
use crate::cli::rig::Server;
use crate::gate::harness::{Answer, Client};

const ADA: &str = "ada@example.com";
const BOB: &str = "bob@example.com";
const AUTHORIZE: &str = "/internal/edge/authorize";
const PAGE: &str = "text/html,application/xhtml+xml";

/// A server, the tenant `acme` of Ada's, and the socket by which its edge asks.
struct Place {
    api: Api,
    ada: Client,
    tenant: String,
    door: Client,
}

impl Place {
    async fn start(who: &str) -> Self {
        Self::over(Api::start(), json!({ "who": who })).await
    }

    async fn over(api: Api, sessions: Value) -> Self {
        let ada = api.account(ADA);
        let tenant = ada.tenant("acme").await;
        let path = format!("{}/edge/authorize.sock", api.server.data_dir());
        let http = reqwest::Client::builder()
            .unix_socket(path)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let door = Client {
            http: http.expect("a client"),
            url: "http://acme.localhost:8080".to_owned(),
            authorization: None,
        };
        let place = Self {
            api,
            ada,
            tenant,
            door,
        };
        if sessions["who"] != "off" {
            place.set(sessions).await;
        }
        place
    }

    async fn set(&self, sessions: Value) {
        let answer = self
            .ada
            .say(Method::PATCH, &self.tenant, &json!({ "sessions": sessions }))
            .await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        self.ada.succeeded(&answer).await;
    }

    /// A request at a tenant's host, as the edge passes it on.
    async fn at(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.door.call(Method::GET, path);
        let usual = [
            ("x-edge-label", "acme"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", "/report?x=1"),
            ("x-forwarded-proto", "http"),
        ];
        for (name, value) in usual {
            if !headers.iter().any(|(other, _)| *other == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.door.send(request).await
    }

    async fn asked(&self, headers: &[(&str, &str)]) -> Answer {
        self.at(AUTHORIZE, headers).await
    }

    /// A browser in which this person has signed in to the server.
    async fn browser(&self, email: &str) -> Browser {
        let mut browser = Browser::new(self.api.anonymous());
        let form = [("email", email), ("password", PASSWORD), ("next", "/")];
        assert_eq!(browser.post("/sign-in", &form).await.status, 303);
        browser
    }

    /// Sent away from the tenant's host: where to, and the cookie that is kept there.
    async fn sent_away(&self, headers: &[(&str, &str)]) -> (String, String) {
        let answer = self.asked(&[headers, &[("accept", PAGE)]].concat()).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let to = answer.header("location");
        let own = self.api.anonymous().url;
        let path = to
            .strip_prefix(&own)
            .unwrap_or_else(|| panic!("{to} is not {own}"));
        (path.to_owned(), kept(&answer, "sp_edge_away_8080"))
    }

    /// The whole way: the cookie by which this browser is known at the tenant's host.
    async fn enter(&self, browser: &mut Browser) -> String {
        let (visit, away) = self.sent_away(&[]).await;
        let back = onward(&browser.get(&visit).await);
        let answer = self.at(&back, &[("cookie", &away)]).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, "/report?x=1".to_owned())
        );
        kept(&answer, "sp_edge_8080")
    }

    async fn account_of(&self, client: &Client) -> String {
        text(&client.read("/api/v1/me").await["account_id"])
    }
}

/// The cookie that an answer gives out, as it is sent back.
#[track_caller]
fn kept(answer: &Answer, name: &str) -> String {
    let all = answer.headers.get_all("set-cookie").iter();
    let all: Vec<&str> = all.map(|cookie| cookie.to_str().expect("text")).collect();
    let begin = format!("{name}=");
    let cookie = all
        .iter()
        .find(|cookie| cookie.starts_with(&begin) && !cookie.contains("Max-Age=0"));
    let cookie = cookie.unwrap_or_else(|| panic!("no {name} in {all:?}"));
    for wanted in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(wanted), "{cookie}");
    }
    // For this host alone.
    assert!(!cookie.contains("Domain"), "{cookie}");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

/// Where a page sends its browser on to, without the tenant's host.
#[track_caller]
fn onward(page: &Answer) -> String {
    let page = page.text();
    let begin = "content=\"0; url=http://acme.localhost:8080";
    let rest = page.split_once(begin).unwrap_or_else(|| panic!("{page}")).1;
    rest.split('"').next().unwrap_or_default().replace("&#38;", "&")
}

#[tokio::test]
async fn a_browser_is_known_at_the_tenants_host_until_it_is_signed_out() {
    let place = Place::start("members").await;
    let shown = place.ada.read(&place.tenant).await;
    assert_eq!(shown["sessions"], json!({"who": "members"}));
    let events = place.ada.event_names(&place.tenant).await;
    assert_eq!(events.last().map(String::as_str), Some("sessions_changed"));
    let asked = place.api.server.world().change(|state| state.asked_first.clone());
    assert!(asked.expect("a world").contains("acme"));

    let mut browser = place.browser(ADA).await;
    let cookie = place.enter(&mut browser).await;
    let known = place.asked(&[("cookie", &cookie), ("accept", PAGE)]).await;
    assert_eq!(known.status, 200, "{}", known.text());
    let account = place.account_of(&place.ada).await;
    let tenant = text(&shown["id"]);
    assert_eq!(known.header("x-session-user"), account);
    assert_eq!(known.header("x-session-tenant"), tenant);
    assert_eq!(known.header("x-session-by"), "session");
    let claims = verified(&place, &known.header("x-session-assertion"), &tenant).await;
    assert_eq!(
        (text(&claims["sub"]), text(&claims["email"])),
        (account, ADA.to_owned())
    );
    let life = claims["exp"].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time");
    assert_eq!(life, 60);

    // The visit is on record, with whose it was.
    let acts = place.ada.list(&format!("{}/audit?limit=50", place.tenant)).await;
    assert!(
        acts.iter().any(|act| act["action"] == "visit_tenant"),
        "{acts:#?}"
    );

    // Who signs out here is signed out there, with the very next request.
    let csrf = hidden(&browser.get("/").await, "csrf");
    assert_eq!(browser.post("/sign-out", &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 401);

    // And the other way round; a look at the page, or another site's form, signs nobody out.
    let mut browser = place.browser(ADA).await;
    let cookie = place.enter(&mut browser).await;
    let out = "/.systemprompt/sign-out";
    assert_eq!(place.at(out, &[("cookie", &cookie)]).await.status, 200);
    let request = |origin: &str| {
        let request = place.door.call(Method::POST, out).header("x-edge-label", "acme");
        request
            .header("cookie", &cookie)
            .header("origin", origin.to_owned())
    };
    assert_eq!(
        place
            .door
            .send(request("http://evil.localhost:8080"))
            .await
            .status,
        403
    );
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 200);
    assert_eq!(
        place
            .door
            .send(request("http://acme.localhost:8080"))
            .await
            .status,
        200
    );
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 401);
    assert_eq!(browser.get("/").await.status, 303, "here too");

    // A session that is ended in the list of sessions, and a member who is none any more.
    let mut browser = place.browser(ADA).await;
    let cookie = place.enter(&mut browser).await;
    let listed = place.ada.list("/api/v1/sessions").await;
    let id = listed
        .iter()
        .map(|session| text(&session["id"]))
        .find(|id| id.starts_with("brw_"));
    let path = format!("/api/v1/sessions/{}", id.expect("a browser"));
    assert_eq!(place.ada.delete(&path).await.status, 204);
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 401);
}

/// What an assertion says, once it was found good with a published key.
async fn verified(place: &Place, assertion: &str, tenant: &str) -> Value {
    let here = place.api.anonymous().read("/.well-known/jwks.json").await;
    let there = place.at("/.systemprompt/jwks.json", &[]).await.json();
    assert_eq!(here["keys"], there["keys"]);
    let header = jsonwebtoken::decode_header(assertion).expect("a header");
    assert_eq!(
        (header.alg, header.typ.as_deref()),
        (Algorithm::EdDSA, Some("session+jwt"))
    );
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(here).expect("keys");
    let key = keys.find(&header.kid.expect("a key's name")).expect("its key");
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let mut wanted = jsonwebtoken::Validation::new(Algorithm::EdDSA);
    wanted.set_audience(&[tenant]);
    wanted.set_issuer(&[place.api.anonymous().url]);
    let read = jsonwebtoken::decode::<Value>(assertion, &key, &wanted);
    read.expect("good").claims
}

fn hidden(page: &Answer, name: &str) -> String {
    let (page, field) = (page.text(), format!("name=\"{name}\" value=\""));
    let rest = page.split_once(&field).unwrap_or_else(|| panic!("{page}")).1;
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_sign_in_cannot_be_put_upon_somebody_else_or_lead_elsewhere() {
    let place = Place::start("members").await;
    let bolt = place.ada.tenant("bolt").await;
    let mut browser = place.browser(ADA).await;
    let (visit, away) = place.sent_away(&[]).await;
    let back = onward(&browser.get(&visit).await);
    let other = place.sent_away(&[]).await.1;
    // Another browser's, one without any, another tenant's host.
    for (cookie, label) in [(other.as_str(), "acme"), ("", "acme"), (away.as_str(), "bolt")] {
        let answer = place
            .at(&back, &[("cookie", cookie), ("x-edge-label", label)])
            .await;
        assert!(answer.status >= 400, "{cookie} at {label}: {}", answer.status);
        assert!(
            !answer.header("set-cookie").starts_with("sp_edge_8080"),
            "{:?}",
            answer.headers
        );
    }
    let entered = place.at(&back, &[("cookie", &away)]).await;
    let cookie = kept(&entered, "sp_edge_8080");
    // It works once.
    assert_eq!(place.at(&back, &[("cookie", &away)]).await.status, 400);
    // What a browser was known by before is good no more once it is known anew.
    let (visit, away) = place.sent_away(&[]).await;
    let back = onward(&browser.get(&visit).await);
    let both = format!("{away}; {cookie}");
    let anew = kept(&place.at(&back, &[("cookie", &both)]).await, "sp_edge_8080");
    assert_ne!(anew, cookie);
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 401);
    assert_eq!(place.asked(&[("cookie", &anew)]).await.status, 200);
    // A session is of one tenant.
    let there = [("cookie", anew.as_str()), ("x-edge-label", "bolt")];
    assert_eq!(place.asked(&there).await.status, 503, "it asks nobody yet");
    let members = json!({"sessions": {"who": "members"}});
    let answer = place.ada.say(Method::PATCH, &bolt, &members).await;
    place.ada.succeeded(&answer).await;
    assert_eq!(place.asked(&there).await.status, 401);

    // Addresses that lead elsewhere lead home.
    for uri in ["//evil.example/x", "/\\evil.example", "https://evil.example/"] {
        let (visit, away) = place.sent_away(&[("x-forwarded-uri", uri)]).await;
        let back = onward(&browser.get(&visit).await);
        let answer = place.at(&back, &[("cookie", &away)]).await;
        assert_eq!(answer.header("location"), "/", "{uri}");
    }
    // Under HTTPS no other host of the domain can put a cookie in the place of ours.
    let secure = [("accept", PAGE), ("x-forwarded-proto", "https")];
    let answer = place.asked(&secure).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-sp_edge_away_8443="), "{cookie}");
    assert!(cookie.contains("Secure"), "{cookie}");
    assert!(answer.header("location").ends_with("&secure=true"));
}

#[tokio::test]
async fn only_those_are_let_in_whom_the_owner_has_named() {
    let place = Place::start("members").await;
    place.api.account(BOB);
    let mut bob = place.browser(BOB).await;
    let (visit, away) = place.sent_away(&[]).await;
    let refused = bob.get(&visit).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("not a member"), "{}", refused.text());

    place.set(json!({"who": "accounts"})).await;
    // A stranger is asked before the site is told who they are.
    let page = bob.get(&visit).await;
    assert!(
        page.text().contains("Continue as bob@example.com"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("code="), "{}", page.text());
    let state = hidden(&page, "state");
    let path = visit.split('?').next().unwrap_or_default().to_owned();
    let wrong = [("csrf", "wrong"), ("state", state.as_str()), ("secure", "false")];
    assert_eq!(bob.post(&path, &wrong).await.status, 403);
    let csrf = hidden(&page, "csrf");
    let form = [
        ("csrf", csrf.as_str()),
        ("state", state.as_str()),
        ("secure", "false"),
    ];
    let back = onward(&bob.post(&path, &form).await);
    let cookie = kept(&place.at(&back, &[("cookie", &away)]).await, "sp_edge_8080");
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 200);

    // The owner's word counts with the next request.
    place.set(json!({"who": "members"})).await;
    let answer = place.asked(&[("cookie", &cookie)]).await;
    assert_eq!(
        (answer.status, text(&answer.json()["code"])),
        (403, "not-let-in".to_owned())
    );
    let page = place.asked(&[("cookie", &cookie), ("accept", PAGE)]).await;
    assert!(page.text().contains("Sign out"), "{}", page.text());

    place.set(json!({"who": "off"})).await;
    let asked = place.api.server.world().change(|state| state.asked_first.clone());
    assert!(asked.expect("a world").is_empty());
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 503);
    assert!(place.ada.read(&place.tenant).await.get("sessions").is_none());
    // Names that nobody asks for.
    let (status, _) = problem(&place.api.anonymous().get("/internal/edge/authorize").await);
    assert_eq!(status, 404, "the door is nowhere else");
    assert_eq!(
        place.api.anonymous().get("/.systemprompt/session").await.status,
        404
    );
}

#[tokio::test]
async fn programs_show_a_token_or_are_told_that_they_must() {
    let place = Place::start("members").await;
    let anonymous = place.asked(&[("accept", "*/*")]).await;
    assert_eq!(problem(&anonymous), (401, "session-required".to_owned()));
    assert_eq!(
        anonymous.header("www-authenticate"),
        "Bearer realm=\"acme.localhost\""
    );
    assert_eq!(anonymous.header("set-cookie"), "");
    // A script in a page is a program, and so is what opens a socket; a form that was sent is not sent elsewhere.
    for headers in [
        [("accept", PAGE), ("sec-fetch-mode", "cors")],
        [("accept", PAGE), ("upgrade", "websocket")],
        [("accept", PAGE), ("x-forwarded-method", "POST")],
    ] {
        assert_eq!(place.asked(&headers).await.status, 401, "{headers:?}");
    }
    let bearer = |token: &str| format!("Bearer {token}");
    let token = bearer(&place.api.token_of(ADA, "read", &[]));
    let answer = place.asked(&[("authorization", &token)]).await;
    assert_eq!(
        (answer.status, answer.header("x-session-by")),
        (200, "token".to_owned())
    );
    assert_eq!(
        answer.header("x-session-user"),
        place.account_of(&place.ada).await
    );

    place.ada.tenant("bolt").await;
    let bolt = place.ada.list("/api/v1/tenants").await;
    let bolt = bolt.iter().find(|tenant| tenant["name"] == "bolt").expect("bolt");
    for (scopes, more) in [
        ("read", vec!["--tenant", bolt["id"].as_str().expect("an id")]),
        ("deploy", vec![]),
    ] {
        let token = bearer(&place.api.token_of(ADA, scopes, &more));
        assert_eq!(
            place.asked(&[("authorization", &token)]).await.status,
            403,
            "{scopes} {more:?}"
        );
    }
    place.api.account(BOB);
    let bobs = bearer(&place.api.token_of(BOB, "read", &[]));
    assert_eq!(place.asked(&[("authorization", &bobs)]).await.status, 403);
    assert_eq!(
        place
            .asked(&[("authorization", "Bearer spt_nonsense")])
            .await
            .status,
        401
    );
    // The app's own tokens are the app's: they let nobody in, and stay where they are beside a session.
    assert_eq!(
        place
            .asked(&[("authorization", "Bearer the-apps-own")])
            .await
            .status,
        401
    );
    let mut browser = place.browser(ADA).await;
    let cookie = place.enter(&mut browser).await;
    let answer = place
        .asked(&[("cookie", &cookie), ("authorization", "Bearer the-apps-own")])
        .await;
    assert_eq!(
        (answer.status, answer.header("x-session-by")),
        (200, "session".to_owned())
    );
}

#[tokio::test]
async fn directus_lets_its_users_in() {
    const KEY: &str = "a-directus-secret-of-enough-letters";
    let place = Place::over(Api::start(), json!({"who": "off"})).await;
    let sessions = json!({"who": "issuer", "issuer": {"issuer": "directus", "secret": "DIRECTUS_SECRET",
        "claim": "id", "cookie": "directus_session_token", "sign_in_url": "https://cms.example.com/admin/login"}});
    let patch = json!({ "sessions": sessions });
    let refused = place.ada.say(Method::PATCH, &place.tenant, &patch).await;
    assert_eq!(problem(&refused).0, 400);
    assert!(
        refused.text().contains("has no secret `DIRECTUS_SECRET`"),
        "{}",
        refused.text()
    );
    place
        .ada
        .stage(&place.tenant, "DIRECTUS_SECRET", "too short")
        .await;
    let refused = place.ada.say(Method::PATCH, &place.tenant, &patch).await;
    assert!(
        refused.text().contains("at least 32 characters"),
        "{}",
        refused.text()
    );
    place.ada.stage(&place.tenant, "DIRECTUS_SECRET", KEY).await;
    place.set(sessions.clone()).await;
    assert_eq!(place.ada.read(&place.tenant).await["sessions"], sessions);

    let now = Clock::system().now().as_millis() / 1000;
    let token = |key: &str, exp: i64| {
        let claims =
            json!({"id": "4b1c", "role": "r", "app_access": true, "iat": now, "exp": exp, "iss": "directus"});
        let key = EncodingKey::from_secret(key.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("signed")
    };
    let good = format!("a=b; directus_session_token={}", token(KEY, now + 900));
    let answer = place.asked(&[("cookie", &good)]).await;
    assert_eq!(
        (answer.status, answer.header("x-session-user")),
        (200, "directus|4b1c".to_owned())
    );
    let bearer = format!("Bearer {}", token(KEY, now + 900));
    let answer = place.asked(&[("authorization", &bearer)]).await;
    assert_eq!(
        (answer.status, answer.header("x-session-by")),
        (200, "session".to_owned()),
        "its tokens are the app's too"
    );
    for bad in [
        token(KEY, now - 120),
        token("another-secret-of-enough-letters!!", now + 900),
    ] {
        let cookie = format!("directus_session_token={bad}");
        assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 401);
    }
    // Nobody else: not even the owner.
    let own = format!("Bearer {}", place.api.token_of(ADA, "read", &[]));
    assert_eq!(place.asked(&[("authorization", &own)]).await.status, 401);
    let answer = place.asked(&[("accept", PAGE)]).await;
    assert_eq!(answer.header("location"), "https://cms.example.com/admin/login");
    // Without its key nobody can tell: that is nobody's fault, and nobody is let in.
    let path = format!("{}/secrets/DIRECTUS_SECRET?stage=true", place.tenant);
    assert!(place.ada.delete(&path).await.status < 300);
    assert_eq!(place.asked(&[("cookie", &good)]).await.status, 503);
}

#[tokio::test]
async fn an_issuer_with_published_keys_lets_in_by_tokens_for_this_site() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let key = KeyPair::generate().expect("a key");
    let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
    let keys = json!({"keys": [published("one", &key)]});
    let router = Router::new()
        .route(
            "/.well-known/openid-configuration",
            get(async move || Json(discovery)),
        )
        .route("/keys", get(async move || Json(keys)));
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut server = Server::down();
    server.house.set("SYSTEMPROMPT_CI_ISSUERS", &url);
    server.up();
    let issuer = json!({"issuer": url, "audience": "shop"});
    let place = Place::over(Api::over(server), json!({"who": "members", "issuer": issuer})).await;
    let now = Clock::system().now().as_millis() / 1000;
    let bearer = |audience: &str, key: &KeyPair| {
        let claims = json!({"iss": url, "sub": "ada", "aud": audience, "exp": now + 300});
        format!("Bearer {}", signed("one", key, &claims))
    };
    let answer = place.asked(&[("authorization", &bearer("shop", &key))]).await;
    assert_eq!(
        (answer.status, answer.header("x-session-user")),
        (200, format!("{url}|ada"))
    );
    let stranger = KeyPair::generate().expect("a key");
    for bad in [bearer("blog", &key), bearer("shop", &stranger)] {
        assert_eq!(place.asked(&[("authorization", &bad)]).await.status, 401);
    }
    // Members come in beside them.
    let mut browser = place.browser(ADA).await;
    let cookie = place.enter(&mut browser).await;
    assert_eq!(place.asked(&[("cookie", &cookie)]).await.status, 200);
    let elsewhere =
        json!({"who": "members", "issuer": {"issuer": "https://id.example.com", "audience": "shop"}});
    let refused = place
        .ada
        .say(Method::PATCH, &place.tenant, &json!({ "sessions": elsewhere }))
        .await;
    assert_eq!(problem(&refused).0, 400);
}
