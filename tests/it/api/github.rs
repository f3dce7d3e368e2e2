//! Signing in by GitHub: a small GitHub that is as strict as the real one, and says its refusals with 200.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::api::identity::Browser;
use crate::api::rig::{Api, PASSWORD, problem, text};
use crate::api::sign_in::hidden;
use crate::cli::rig::Server;
use crate::gate::harness::Answer;

pub(crate) const CLIENT: &str = "Iv1.8a61f9b3a7aba766";
pub(crate) const SECRET: &str = "gh-client-secret-0123456789";
pub(crate) const TOKEN: &str = "gho_16C7e42F292c6912E7710c838347Ae178B4a";
const ADA: &str = "ada@example.com";

type Fields = BTreeMap<String, String>;

/// A GitHub at which one person is signed in.
#[derive(Clone)]
pub(crate) struct GitHub(Arc<Inner>);

struct Inner {
    url: String,
    redirect_uri: Mutex<String>,
    person: Mutex<(Value, Value)>,
    codes: Mutex<BTreeMap<String, Fields>>,
    /// The word of the refusal that it answers to every code, where it does.
    refuses: Mutex<Option<&'static str>>,
    /// What was asked of its API.
    asked: Mutex<Vec<String>>,
}

impl GitHub {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let github = Self(Arc::new(Inner {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            redirect_uri: Mutex::default(),
            person: Mutex::default(),
            codes: Mutex::default(),
            refuses: Mutex::default(),
            asked: Mutex::default(),
        }));
        let router = Router::new()
            .route("/login/oauth/authorize", get(Self::authorize))
            .route("/login/oauth/access_token", post(Self::token))
            .route("/api/v3/user", get(Self::user))
            .route("/api/v3/user/emails", get(Self::emails))
            .with_state(github.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        github
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    /// The only address that it sends anybody back to.
    pub(crate) fn registers(&self, redirect_uri: &str) {
        redirect_uri.clone_into(&mut self.0.redirect_uri.lock().expect("lock"));
    }

    /// What it answers to every code instead.
    pub(crate) fn refuses(&self, word: Option<&'static str>) {
        *self.0.refuses.lock().expect("lock") = word;
    }

    /// Who is signed in there.
    pub(crate) fn is(&self, id: u64, emails: Value) {
        let user = json!({ "login": "ada", "id": id, "email": "shown@example.com" });
        *self.0.person.lock().expect("lock") = (user, emails);
    }

    async fn authorize(State(github): State<Self>, Query(asked): Query<Fields>) -> Response {
        let is = |name: &str, value: &str| asked.get(name).is_some_and(|it| it == value);
        let long = |name: &str| asked.get(name).is_some_and(|it| it.len() >= 43);
        let back = github.0.redirect_uri.lock().expect("lock").clone();
        let sound = is("client_id", CLIENT)
            && is("redirect_uri", &back)
            && is("code_challenge_method", "S256")
            && is("scope", "read:user user:email")
            && long("state")
            && long("code_challenge");
        if !sound {
            return (StatusCode::NOT_FOUND, format!("{asked:?}")).into_response();
        }
        let mut codes = github.0.codes.lock().expect("lock");
        let code = format!("c{}", codes.len());
        let to = format!("{back}?code={code}&state={}", asked["state"]);
        codes.insert(code, asked);
        Redirect::to(&to).into_response()
    }

    /// Refusals are 200, as the real one has them; without `Accept` it answers a form.
    async fn token(State(github): State<Self>, headers: HeaderMap, Form(form): Form<Fields>) -> Response {
        if headers
            .get("accept")
            .is_none_or(|accept| accept != "application/json")
        {
            return "error=not_acceptable".into_response();
        }
        let refused = |word: &str| {
            let text = "The code passed is incorrect or expired.";
            Json(json!({ "error": word, "error_description": text, "error_uri": "https://docs.github.com" }))
                .into_response()
        };
        let is = |name: &str, value: &str| form.get(name).is_some_and(|it| it == value);
        if !is("client_id", CLIENT) || !is("client_secret", SECRET) {
            return refused("incorrect_client_credentials");
        }
        if let Some(word) = *github.0.refuses.lock().expect("lock") {
            return refused(word);
        }
        let code = form.get("code").cloned().unwrap_or_default();
        let asked = github.0.codes.lock().expect("lock").insert(code, Fields::new());
        let asked = asked.unwrap_or_default();
        let verifier = form.get("code_verifier").cloned().unwrap_or_default();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        if asked.get("code_challenge") != Some(&challenge) {
            return refused("bad_verification_code");
        }
        if form.get("redirect_uri") != asked.get("redirect_uri") {
            return refused("redirect_uri_mismatch");
        }
        let scope = "read:user,user:email";
        Json(json!({ "access_token": TOKEN, "scope": scope, "token_type": "bearer" })).into_response()
    }

    /// Its API takes nothing from programs that do not say which they are.
    fn api(&self, headers: &HeaderMap, what: &str, answer: impl Fn(&(Value, Value)) -> Value) -> Response {
        let shown = |name: &str| {
            headers
                .get(name)
                .and_then(|it| it.to_str().ok())
                .unwrap_or_default()
        };
        if shown("user-agent").is_empty() {
            return StatusCode::FORBIDDEN.into_response();
        }
        if shown("authorization") != format!("Bearer {TOKEN}") {
            return (
                StatusCode::UNAUTHORIZED,
                Json(json!({ "message": "Bad credentials" })),
            )
                .into_response();
        }
        self.0.asked.lock().expect("lock").push(what.to_owned());
        Json(answer(&self.0.person.lock().expect("lock"))).into_response()
    }

    async fn user(State(github): State<Self>, headers: HeaderMap) -> Response {
        github.api(&headers, "user", |person| person.0.clone())
    }

    async fn emails(State(github): State<Self>, headers: HeaderMap) -> Response {
        github.api(&headers, "emails", |person| person.1.clone())
    }
}

struct Place {
    api: Api,
    github: GitHub,
}

impl Place {
    async fn start() -> Self {
        let github = GitHub::start().await;
        let mut server = Server::down();
        let listed = format!("github={},{CLIENT}", github.0.url);
        server.house.set("SYSTEMPROMPT_GITHUB_PROVIDERS", &listed);
        server.house.set("SYSTEMPROMPT_OIDC_GITHUB_SECRET", SECRET);
        let domain = "github=company.example";
        server.house.set("SYSTEMPROMPT_OIDC_SIGN_UP", domain);
        server.up();
        let api = Api::over(server);
        let back = format!("{}/sign-in/with/github/back", api.anonymous().url);
        github.registers(&back);
        Self { api, github }
    }

    async fn arrived(&self, id: u64, emails: Value) -> (Browser, Answer) {
        self.github.is(id, emails);
        let mut browser = Browser::new(self.api.anonymous());
        let page = browser.sign_in_by("github", "/").await;
        (browser, page)
    }
}

pub(crate) fn primary(email: &str, verified: bool) -> Value {
    json!([
        { "email": "other@company.example", "primary": false, "verified": true, "visibility": null },
        { "email": email, "primary": true, "verified": verified, "visibility": "private" },
    ])
}

#[tokio::test]
async fn a_person_of_github_signs_in_and_stays_the_same_person() {
    let place = Place::start().await;
    let page = Browser::new(place.api.anonymous()).get("/sign-in").await;
    assert!(page.text().contains("Continue with GitHub<"), "{}", page.text());
    let (_, page) = place.arrived(583_231, primary("Bob@company.example", true)).await;
    assert!(page.text().contains("as bob@company.example"), "{}", page.text());
    // Their number is who they are, whatever address they have later, confirmed or not.
    let (_, page) = place
        .arrived(583_231, primary("new@elsewhere.example", false))
        .await;
    assert!(page.text().contains("as bob@company.example"), "{}", page.text());
    // Another one who has the address now is asked for the account's own proof.
    let (browser, page) = place.arrived(7, primary("bob@company.example", true)).await;
    assert!(page.text().contains("name=\"password\""), "{}", page.text());
    assert!(!browser.cookies.keys().any(|name| name.starts_with("sp_session")));
    // Who has an account already connects the two once.
    place.api.account(ADA);
    let (mut browser, page) = place.arrived(8, primary(ADA, true)).await;
    let next = hidden(&page, "next");
    let form = [("email", ADA), ("password", PASSWORD), ("next", next.as_str())];
    let answer = browser.post("/sign-in", &form).await;
    let page = browser.follow(answer).await;
    assert!(page.text().contains("Connect GitHub"), "{}", page.text());
    let csrf = hidden(&page, "csrf");
    assert_eq!(
        browser.post("/sign-in/connect", &[("csrf", &csrf)]).await.status,
        303
    );
    let (_, page) = place.arrived(8, json!([])).await;
    assert!(page.text().contains(&format!("as {ADA}")), "{}", page.text());
}

#[tokio::test]
async fn only_an_address_that_is_confirmed_and_the_first_is_believed() {
    let place = Place::start().await;
    for emails in [
        primary("eve@company.example", false),
        json!([{ "email": "eve@company.example", "primary": false, "verified": true }]),
        json!([]),
    ] {
        let (browser, page) = place.arrived(9, emails.clone()).await;
        assert_eq!(page.status, 403, "{emails}: {}", page.text());
        assert!(page.text().contains("not confirmed"), "{}", page.text());
        assert!(browser.cookies.is_empty());
    }
    let (_, page) = place.arrived(9, primary("eve@example.org", true)).await;
    assert!(
        page.text().contains("There is no account for you"),
        "{}",
        page.text()
    );
}

#[tokio::test]
async fn a_refusal_that_is_called_200_is_one() {
    let place = Place::start().await;
    for (word, status) in [
        ("bad_verification_code", 403),
        ("incorrect_client_credentials", 502),
    ] {
        place.github.refuses(Some(word));
        let (browser, page) = place.arrived(9, primary("bob@company.example", true)).await;
        assert_eq!(page.status, status, "{word}: {}", page.text());
        assert!(browser.cookies.is_empty());
    }
    assert!(place.github.0.asked.lock().expect("lock").is_empty());
    place.github.refuses(None);
    // The way back is this browser's, for this GitHub, once.
    let mut browser = Browser::new(place.api.anonymous());
    let begun = browser.get("/sign-in/with/github").await;
    let sent = browser
        .client
        .send(browser.client.http.get(begun.header("location")))
        .await;
    let back = sent.header("location");
    let back = back
        .strip_prefix(&browser.client.url)
        .expect("our page")
        .to_owned();
    let away = browser.cookies.clone();
    for (path, status) in [
        (back.replace("state=", "state=x"), 400),
        (format!("{back}&iss=https://evil.example"), 403),
        (format!("{back}&iss={}/login/oauth", place.github.0.url), 303),
        (back, 403),
    ] {
        browser.cookies = away.clone();
        let answer = browser.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let acts = place.api.owner.list("/api/v1/audit?limit=200").await;
    let refused = acts.iter().filter(|act| act["action"] == "sign_in_by_provider");
    let mut codes: Vec<String> = refused
        .filter(|act| !act["code"].is_null())
        .map(|act| text(&act["code"]))
        .collect();
    codes.sort();
    assert_eq!(
        codes,
        [
            "denied-by-provider",
            "denied-by-provider",
            "identity-not-believed",
            "provider-unavailable",
        ]
    );
}

#[tokio::test]
async fn an_identity_is_taken_away_and_the_last_way_in_is_not() {
    let place = Place::start().await;
    let ada = place.api.account(ADA);
    let (mut browser, page) = place.arrived(8, primary(ADA, true)).await;
    let next = hidden(&page, "next");
    let form = [("email", ADA), ("password", PASSWORD), ("next", next.as_str())];
    let answer = browser.post("/sign-in", &form).await;
    let page = browser.follow(answer).await;
    let csrf = hidden(&page, "csrf");
    browser.post("/sign-in/connect", &[("csrf", &csrf)]).await;
    let (mut elsewhere, page) = place.arrived(8, json!([])).await;
    assert!(page.text().contains(&format!("as {ADA}")), "{}", page.text());
    let listed = ada.list("/api/v1/identities").await;
    let [identity] = listed.as_slice() else {
        panic!("{listed:?}");
    };
    assert_eq!(
        (
            &identity["provider"],
            &identity["issuer"],
            &identity["subject"],
            &identity["email"]
        ),
        (
            &json!("github"),
            &json!(place.github.0.url),
            &json!("8"),
            &json!(ADA)
        )
    );
    let path = format!("/api/v1/identities/{}", text(&identity["id"]));
    // Whoever is somebody else does not learn that it is there.
    assert_eq!(place.api.owner.list("/api/v1/identities").await.len(), 0);
    assert_eq!(place.api.owner.ask(Method::DELETE, &path).await.status, 404);
    assert_eq!(ada.ask(Method::DELETE, &path).await.status, 204);
    assert_eq!(ada.ask(Method::DELETE, &path).await.status, 404);
    assert_eq!(
        elsewhere.get("/").await.status,
        303,
        "whom it let in is signed out"
    );
    let (_, page) = place.arrived(8, primary(ADA, true)).await;
    assert!(page.text().contains("name=\"password\""), "{}", page.text());
    let acts = place.api.owner.list("/api/v1/audit?limit=200").await;
    let removed: Vec<_> = acts
        .iter()
        .filter(|act| act["action"] == "remove_identity" && act["result"] == "done")
        .map(|act| text(&act["target"]))
        .collect();
    assert_eq!(removed, [format!("github {}", text(&identity["id"]))]);
    // An account that has nothing else keeps it.
    place.arrived(9, primary("bob@company.example", true)).await;
    let token = place.api.token_of("bob@company.example", "read,admin", &[]);
    let bob = place.api.with_token(&token);
    let listed = bob.list("/api/v1/identities").await;
    let path = format!("/api/v1/identities/{}", text(&listed[0]["id"]));
    let refused = bob.ask(Method::DELETE, &path).await;
    assert_eq!(problem(&refused), (409, "last-way-in".to_owned()));
    let (_, page) = place.arrived(9, json!([])).await;
    assert!(page.text().contains("as bob@company.example"), "{}", page.text());
}
