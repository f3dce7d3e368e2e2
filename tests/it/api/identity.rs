//! A small provider of identities (OpenID Connect) that checks what it is asked, and a browser that keeps cookies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use systemprompt::server::clock::Clock;

use crate::api::trust::{published, signed};
use crate::gate::harness::{Answer, Client};

/// What it knows the server by, with a character that must be encoded.
pub(crate) const CLIENT: &str = "client:one";
pub(crate) const SECRET: &str = "s3cret:of%the+client";

type Fields = BTreeMap<String, String>;
/// Another way to sign what an identity says.
type Forgery = fn(&Value) -> String;

/// A provider at which one person is signed in.
#[derive(Clone)]
pub(crate) struct Provider(Arc<Inner>);

struct Inner {
    url: String,
    key: KeyPair,
    redirect_uri: Mutex<String>,
    /// What its identities say besides, or instead.
    says: Mutex<Value>,
    /// How its tokens are signed instead.
    forge: Mutex<Option<Forgery>>,
    /// What it tells besides, where it tells anything (`/userinfo`).
    tells: Mutex<Option<Value>>,
    /// Codes that were given out, with what was asked.
    codes: Mutex<BTreeMap<String, Fields>>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let provider = Self(Arc::new(Inner {
            url,
            key: KeyPair::generate().expect("a key"),
            redirect_uri: Mutex::default(),
            says: Mutex::new(json!({})),
            forge: Mutex::default(),
            tells: Mutex::default(),
            codes: Mutex::default(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(Self::discovery))
            .route("/keys", get(Self::keys))
            .route("/authorize", get(Self::authorize))
            .route("/token", post(Self::token))
            .route("/userinfo", get(Self::userinfo))
            .with_state(provider.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    /// The only address that it sends anybody back to.
    pub(crate) fn registers(&self, redirect_uri: &str) {
        redirect_uri.clone_into(&mut self.0.redirect_uri.lock().expect("lock"));
    }

    /// Who is signed in there, and whatever else its identities say.
    pub(crate) fn says(&self, claims: Value) {
        *self.0.says.lock().expect("lock") = claims;
    }

    /// What it tells besides; nobody has been told before whether it does.
    pub(crate) fn tells(&self, claims: Option<Value>) {
        *self.0.tells.lock().expect("lock") = claims;
    }

    async fn userinfo(State(provider): State<Self>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
        let shown = headers.get("authorization").and_then(|it| it.to_str().ok());
        let tells = provider.0.tells.lock().expect("lock").clone();
        match tells {
            Some(claims) if shown == Some("Bearer at") => Ok(Json(claims)),
            _ => Err(StatusCode::UNAUTHORIZED),
        }
    }

    /// Signs its tokens in another way.
    pub(crate) fn forges(&self, way: Option<Forgery>) {
        *self.0.forge.lock().expect("lock") = way;
    }

    async fn discovery(State(provider): State<Self>) -> Json<Value> {
        let at = |path: &str| format!("{}{path}", provider.0.url);
        let mut says = json!({
            "issuer": provider.0.url, "jwks_uri": at("/keys"),
            "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        });
        if provider.0.tells.lock().expect("lock").is_some() {
            says["userinfo_endpoint"] = json!(at("/userinfo"));
        }
        Json(says)
    }

    async fn keys(State(provider): State<Self>) -> Json<Value> {
        Json(json!({ "keys": [published("one", &provider.0.key)] }))
    }

    /// The person is signed in here already: they are sent back at once.
    async fn authorize(State(provider): State<Self>, Query(asked): Query<Fields>) -> Response {
        let is = |name: &str, value: &str| asked.get(name).is_some_and(|it| it == value);
        let long = |name: &str| asked.get(name).is_some_and(|it| it.len() >= 43);
        let back = provider.0.redirect_uri.lock().expect("lock").clone();
        let sound = is("response_type", "code")
            && is("client_id", CLIENT)
            && is("redirect_uri", &back)
            && is("code_challenge_method", "S256")
            && ["state", "nonce", "code_challenge"].into_iter().all(long)
            && asked
                .get("scope")
                .is_some_and(|scope| scope.split(' ').any(|word| word == "openid"));
        if !sound {
            return (
                StatusCode::BAD_REQUEST,
                format!("{asked:?} is not to go to {back}"),
            )
                .into_response();
        }
        let mut codes = provider.0.codes.lock().expect("lock");
        let code = format!("code-{}", codes.len());
        let state = &asked["state"];
        let to = format!("{back}?code={code}&state={state}&iss={}", provider.0.url);
        codes.insert(code, asked);
        Redirect::to(&to).into_response()
    }

    async fn token(
        State(provider): State<Self>,
        headers: HeaderMap,
        Form(form): Form<Fields>,
    ) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
        let refused = |word: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": word })));
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let wanted = STANDARD.encode(format!("{}:{}", encoded(CLIENT), encoded(SECRET)));
        let shown = headers.get("authorization").and_then(|it| it.to_str().ok());
        if shown != Some(&format!("Basic {wanted}")) {
            return Err(refused("invalid_client"));
        }
        // A code works once.
        let code = form.get("code").cloned().unwrap_or_default();
        let asked = provider.0.codes.lock().expect("lock").insert(code, Fields::new());
        let asked = asked.unwrap_or_default();
        let verifier = form.get("code_verifier").cloned().unwrap_or_default();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let same = asked.contains_key("redirect_uri")
            && form.get("redirect_uri") == asked.get("redirect_uri")
            && asked.get("code_challenge") == Some(&challenge)
            && form
                .get("grant_type")
                .is_some_and(|grant| grant == "authorization_code");
        if !same {
            return Err(refused("invalid_grant"));
        }
        let now = Clock::system().now().as_millis() / 1000;
        let mut claims = json!({
            "iss": provider.0.url, "aud": CLIENT, "sub": "person-1", "iat": now, "exp": now + 300,
            "nonce": asked["nonce"],
        });
        let says = provider.0.says.lock().expect("lock").clone();
        for (name, value) in says.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        let forge = *provider.0.forge.lock().expect("lock");
        let token = forge.map_or_else(|| signed("one", &provider.0.key, &claims), |forge| forge(&claims));
        Ok(Json(
            json!({ "id_token": token, "access_token": "at", "token_type": "Bearer" }),
        ))
    }
}

/// A browser: it keeps what it is told to keep, and says so again.
pub(crate) struct Browser {
    pub(crate) client: Client,
    pub(crate) cookies: BTreeMap<String, String>,
}

impl Browser {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            cookies: BTreeMap::new(),
        }
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Answer {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let answer = self
            .client
            .send(request.header("cookie", cookies.join("; ")))
            .await;
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().expect("a cookie");
            for wanted in ["HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(cookie.contains(wanted), "{cookie}");
            }
            let (name, rest) = cookie.split_once('=').expect("a cookie");
            let value = rest.split(';').next().unwrap_or_default();
            self.cookies.remove(name);
            if !value.is_empty() {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let request = self.client.call(Method::GET, path);
        self.send(request).await
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let origin = self.client.url.clone();
        let request = self.client.call(Method::POST, path).header("origin", origin);
        self.send(request.form(fields)).await
    }

    /// Goes where an answer leads, and further; answers the page at the end.
    pub(crate) async fn follow(&mut self, mut answer: Answer) -> Answer {
        for _ in 0..10 {
            if answer.status != 303 {
                return answer;
            }
            let to = answer.header("location");
            answer = match to.strip_prefix(&self.client.url).unwrap_or(&to) {
                path if path.starts_with('/') => self.get(path).await,
                // Elsewhere: nothing that is kept here is told there.
                elsewhere => self.client.send(self.client.http.get(elsewhere)).await,
            };
        }
        panic!("the browser is sent round in circles");
    }

    /// Presses a button of the sign-in page; answers the page at the end.
    pub(crate) async fn sign_in_by(&mut self, provider: &str, next: &str) -> Answer {
        let answer = self.get(&format!("/sign-in/with/{provider}?next={next}")).await;
        self.follow(answer).await
    }
}
