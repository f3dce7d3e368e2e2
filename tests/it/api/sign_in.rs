//! Device login over HTTP with a browser's part played on the real pages; refresh, reuse, revocation.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::api::oauth::{CLIENT_ID, DEVICE_GRANT, EXCHANGE_GRANT, REFRESH_GRANT};

use crate::api::rig::{Api, PASSWORD, text};
use crate::gate::harness::{Answer, Client};

const TOKEN: &str = "/api/v1/oauth/token";
pub(crate) const EMAIL: &str = "ada@example.com";

/// A server with an account that has a password.
fn started() -> (Api, Client) {
    let api = Api::start();
    api.account(EMAIL);
    let program = api.anonymous();
    (api, program)
}

/// A program begins a login.
async fn begun(program: &Client, scope: &str) -> Value {
    let fields = [
        ("client_id", CLIENT_ID),
        ("scope", scope),
        ("device_name", "laptop <b>"),
    ];
    let answer = program.form("/api/v1/oauth/device_authorization", &fields).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

async fn poll(program: &Client, login: &Value) -> Answer {
    let code = text(&login["device_code"]);
    let fields = [
        ("grant_type", DEVICE_GRANT),
        ("client_id", CLIENT_ID),
        ("device_code", &code),
    ];
    program.form(TOKEN, &fields).await
}

async fn refresh(program: &Client, token: &Value) -> Answer {
    let token = text(token);
    let fields = [
        ("grant_type", REFRESH_GRANT),
        ("client_id", CLIENT_ID),
        ("refresh_token", &token),
    ];
    program.form(TOKEN, &fields).await
}

/// Status and word of a refusal in OAuth's form.
fn refusal(answer: &Answer) -> (u16, String) {
    assert_eq!(answer.header("cache-control"), "no-store");
    (answer.status, text(&answer.json()["error"]))
}

/// A browser that has signed in.
struct Browser {
    client: Client,
    cookie: String,
}

impl Browser {
    async fn sign_in(client: &Client) -> Self {
        let fields = [("email", EMAIL), ("password", PASSWORD), ("next", "/device")];
        let answer = client.form("/sign-in", &fields).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, "/device".to_owned())
        );
        let cookie = answer.header("set-cookie");
        for wanted in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(wanted), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        Self {
            client: client.clone(),
            cookie,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let request = self.client.call(Method::GET, path);
        self.client.send(request.header("cookie", &self.cookie)).await
    }

    /// Sends the form of the approval page; `origin` is what the browser says it comes from.
    async fn send(&self, fields: &[(&str, &str)], origin: Option<&str>) -> Answer {
        let mut request = self
            .client
            .call(Method::POST, "/device")
            .header("cookie", &self.cookie);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        self.client.send(request.form(fields)).await
    }

    /// Looks at a login as the link leads, and decides.
    async fn decide(&self, login: &Value, decision: &str) -> Answer {
        let link = text(&login["verification_uri_complete"]);
        let page = self
            .get(link.strip_prefix(&self.client.url).expect("our own page"))
            .await;
        assert_eq!(page.status, 200, "{}", page.text());
        let (csrf, code) = (hidden(&page, "csrf"), hidden(&page, "user_code"));
        assert_eq!(code, text(&login["user_code"]));
        assert!(page.text().contains("laptop &#60;b&#62;"), "{}", page.text());
        let fields = [
            ("csrf", csrf.as_str()),
            ("user_code", &code),
            ("decision", decision),
        ];
        self.send(&fields, Some(&self.client.url)).await
    }
}

/// The value of a hidden field.
pub(crate) fn hidden(page: &Answer, name: &str) -> String {
    let page = page.text();
    let field = format!("name=\"{name}\" value=\"");
    let rest = page
        .split_once(&field)
        .unwrap_or_else(|| panic!("no `{name}`: {page}"))
        .1;
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// The tokens of a login that was approved.
pub(crate) async fn signed_in(program: &Client) -> Value {
    let login = begun(program, "read deploy").await;
    let browser = Browser::sign_in(program).await;
    assert_eq!(browser.decide(&login, "approve").await.status, 200);
    let answer = poll(program, &login).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_login_from_the_code_to_the_first_request() {
    let (api, program) = started();
    let login = begun(&program, "read deploy").await;
    assert_eq!(
        refusal(&poll(&program, &login).await),
        (400, "authorization_pending".to_owned())
    );
    let link = text(&login["verification_uri_complete"]);
    let page = program
        .get(link.strip_prefix(&program.url).expect("our own page"))
        .await;
    assert_eq!(page.status, 303, "who is not signed in signs in first");
    assert!(
        page.header("location")
            .starts_with("/sign-in?next=%2Fdevice%3Fuser_code%3D")
    );
    let browser = Browser::sign_in(&program).await;
    let told = browser.decide(&login, "approve").await;
    assert!(told.text().contains("The device is signed in"), "{}", told.text());
    let tokens = poll(&program, &login).await;
    assert_eq!(tokens.header("cache-control"), "no-store");
    let tokens = tokens.json();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["scope"], "read deploy");
    let me = api
        .with_token(&text(&tokens["access_token"]))
        .read("/api/v1/me")
        .await;
    assert_eq!(
        (&me["email"], &me["credential"]),
        (&json!(EMAIL), &json!("session"))
    );
    assert_eq!(me["scopes"], json!(["read", "deploy"]));
    assert_eq!(
        refusal(&poll(&program, &login).await),
        (400, "invalid_grant".to_owned())
    );
}

#[tokio::test]
async fn the_codes_are_as_the_standard_wants_them() {
    let (_api, program) = started();
    let login = begun(&program, "read").await;
    let code = text(&login["user_code"]);
    let letters = |part: &str| part.len() == 4 && part.bytes().all(|b| b"BCDFGHJKLMNPQRSTVWXZ".contains(&b));
    assert!(code.split('-').all(letters) && code.len() == 9, "{code}");
    assert!(text(&login["device_code"]).len() >= 43);
    assert_eq!(login["verification_uri"], format!("{}/device", program.url));
    assert_eq!(
        (&login["interval"], &login["expires_in"]),
        (&json!(5), &json!(900))
    );
}

#[tokio::test]
async fn who_polls_too_fast_is_slowed_down() {
    let (_api, program) = started();
    let login = begun(&program, "read").await;
    assert_eq!(refusal(&poll(&program, &login).await).1, "authorization_pending");
    assert_eq!(refusal(&poll(&program, &login).await).1, "slow_down");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        refusal(&poll(&program, &login).await).1,
        "slow_down",
        "10 s hold now"
    );
}

#[tokio::test]
async fn a_denied_login_is_told_so() {
    let (_api, program) = started();
    let login = begun(&program, "read").await;
    let browser = Browser::sign_in(&program).await;
    let told = browser.decide(&login, "deny").await;
    assert!(told.text().contains("The login was denied"));
    assert_eq!(
        refusal(&poll(&program, &login).await),
        (400, "access_denied".to_owned())
    );
    let fields = [("csrf", "x"), ("user_code", "BCDF-GHJK"), ("decision", "approve")];
    assert_eq!(
        browser.send(&fields, None).await.status,
        403,
        "denied or not, a form needs its token"
    );
}

#[tokio::test]
async fn forms_that_are_not_the_pages_own_approve_nothing() {
    let (_api, program) = started();
    let login = begun(&program, "read").await;
    let browser = Browser::sign_in(&program).await;
    let csrf = hidden(&browser.get("/device").await, "csrf");
    let code = text(&login["user_code"]);
    let mut forged = csrf.clone();
    forged.replace_range(..1, if csrf.starts_with('A') { "B" } else { "A" });
    let with = |csrf: String| {
        [
            ("csrf", csrf),
            ("user_code", code.clone()),
            ("decision", "approve".to_owned()),
        ]
    };
    for (csrf, origin) in [(forged, None), (csrf, Some("https://evil.example"))] {
        let fields = with(csrf);
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(browser.send(&fields, origin).await.status, 403);
    }
    assert_eq!(refusal(&poll(&program, &login).await).1, "authorization_pending");
}

#[tokio::test]
async fn guessing_codes_ends_soon() {
    let (_api, program) = started();
    let browser = Browser::sign_in(&program).await;
    let mut statuses = Vec::new();
    for guess in ["BCDF-GHJK", "BCDF-GHJL", "BCDF-GHJM", "BCDF-GHJN"]
        .iter()
        .cycle()
        .take(12)
    {
        statuses.push(browser.get(&format!("/device?user_code={guess}")).await.status);
    }
    assert_eq!(statuses[..10], [404; 10]);
    assert_eq!(statuses[10..], [429; 2]);
}

#[tokio::test]
async fn a_wrong_password_lets_nobody_in() {
    let (_api, program) = started();
    for (email, password) in [(EMAIL, "wrong"), ("nobody@example.com", PASSWORD)] {
        let answer = program
            .form("/sign-in", &[("email", email), ("password", password)])
            .await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("set-cookie"), "");
        assert!(
            answer.text().contains("do not belong together"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn requests_that_are_no_grant_are_refused_in_the_standards_words() {
    let (_api, program) = started();
    let client = ("client_id", CLIENT_ID);
    for (fields, wanted) in [
        (
            vec![("grant_type", DEVICE_GRANT), client, ("device_code", "x")],
            "invalid_grant",
        ),
        (
            vec![("grant_type", REFRESH_GRANT), client, ("refresh_token", "x")],
            "invalid_grant",
        ),
        (vec![("grant_type", "password"), client], "unsupported_grant_type"),
        (vec![("grant_type", DEVICE_GRANT), client], "invalid_request"),
        (vec![("grant_type", DEVICE_GRANT)], "invalid_request"),
    ] {
        let answer = program.form(TOKEN, &fields).await;
        assert_eq!(refusal(&answer), (400, wanted.to_owned()), "{fields:?}");
    }
    for (fields, wanted) in [
        (vec![("client_id", "somebody")], "invalid_client"),
        (vec![client, ("scope", "read everything")], "invalid_scope"),
    ] {
        let answer = program.form("/api/v1/oauth/device_authorization", &fields).await;
        assert_eq!(refusal(&answer), (400, wanted.to_owned()), "{fields:?}");
    }
}

#[tokio::test]
async fn a_refresh_gives_a_new_pair() {
    let (api, program) = started();
    let first = signed_in(&program).await;
    let second = refresh(&program, &first["refresh_token"]).await;
    assert_eq!(second.status, 200, "{}", second.text());
    let second = second.json();
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(second["scope"], "read deploy");
    let lost_answer = refresh(&program, &first["refresh_token"]).await.json();
    assert_eq!(
        lost_answer["refresh_token"], second["refresh_token"],
        "a lost answer is given again"
    );
    let caller = api.with_token(&text(&second["access_token"]));
    assert_eq!(caller.get("/api/v1/me").await.status, 200);
}

#[tokio::test]
async fn a_used_refresh_token_that_comes_back_ends_the_session() {
    let (api, program) = started();
    let first = signed_in(&program).await;
    let second = refresh(&program, &first["refresh_token"]).await.json();
    let third = refresh(&program, &second["refresh_token"]).await.json();
    let reused = refresh(&program, &first["refresh_token"]).await;
    assert_eq!(refusal(&reused), (400, "invalid_grant".to_owned()));
    let newest = refresh(&program, &third["refresh_token"]).await;
    assert_eq!(refusal(&newest), (400, "invalid_grant".to_owned()));
    let caller = api.with_token(&text(&third["access_token"]));
    assert_eq!(caller.get("/api/v1/me").await.status, 401);
}

#[tokio::test]
async fn revoking_either_token_ends_the_session() {
    let (api, program) = started();
    for which in ["refresh_token", "access_token"] {
        let tokens = signed_in(&program).await;
        let caller = api.with_token(&text(&tokens["access_token"]));
        assert_eq!(caller.get("/api/v1/me").await.status, 200);
        let token = text(&tokens[which]);
        let fields = [("token", token.as_str()), ("client_id", CLIENT_ID)];
        assert_eq!(program.form("/api/v1/oauth/revoke", &fields).await.status, 200);
        assert_eq!(caller.get("/api/v1/me").await.status, 401, "{which}");
        assert_eq!(refresh(&program, &tokens["refresh_token"]).await.status, 400);
    }
    let fields = [("token", "made up"), ("client_id", CLIENT_ID)];
    let unknown = program.form("/api/v1/oauth/revoke", &fields).await;
    assert_eq!(unknown.status, 200, "RFC 7009 section 2.2");
}

#[tokio::test]
async fn the_metadata_leads_to_routes_that_are_there() {
    let (_api, program) = started();
    let metadata = program.read("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata["issuer"], program.url);
    for name in [
        "token_endpoint",
        "device_authorization_endpoint",
        "revocation_endpoint",
    ] {
        let url = text(&metadata[name]);
        let path = url.strip_prefix(&program.url).expect("our own");
        assert_eq!(program.form(path, &[("x", "y")]).await.status, 400, "{name}");
    }
    assert_eq!(
        metadata["grant_types_supported"],
        json!([DEVICE_GRANT, REFRESH_GRANT, EXCHANGE_GRANT])
    );
}
