//! Signing in by a provider of identities: the whole way with a browser, whom it lets in, and everything that is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use serde_json::{Value, json};
use systemprompt::api::oauth::{CLIENT_ID, DEVICE_GRANT};

use crate::api::identity::{Browser, CLIENT, Provider, SECRET};
use crate::api::rig::{Api, PASSWORD, text};
use crate::api::sign_in::hidden;
use crate::api::trust::signed;
use crate::cli::rig::Server;
use crate::gate::harness::Answer;

const ADA: &str = "ada@example.com";

struct Place {
    api: Api,
    provider: Provider,
}

impl Place {
    /// A server with a provider named `company` that gives accounts to everybody of `company.example`.
    async fn start() -> Self {
        let provider = Provider::start().await;
        let mut server = Server::down();
        let listed = format!("company={},{CLIENT} other=http://127.0.0.1:1,sp", provider.url());
        server.house.set("SYSTEMPROMPT_OIDC_PROVIDERS", &listed);
        server.house.set("SYSTEMPROMPT_OIDC_COMPANY_SECRET", SECRET);
        server
            .house
            .set("SYSTEMPROMPT_OIDC_SIGN_UP", "company=company.example");
        server.up();
        let api = Api::over(server);
        api.account(ADA);
        let place = Self { api, provider };
        place.provider.registers(&format!(
            "{}/sign-in/with/company/back",
            place.api.anonymous().url
        ));
        place
    }

    fn browser(&self) -> Browser {
        Browser::new(self.api.anonymous())
    }

    /// A browser whose person the provider calls so, at the end of signing in.
    async fn arrived(&self, says: Value) -> (Browser, Answer) {
        self.provider.says(says);
        let mut browser = self.browser();
        let page = browser.sign_in_by("company", "/").await;
        (browser, page)
    }

    async fn acts(&self, action: &str) -> Vec<(String, String)> {
        let acts = self.api.owner.list("/api/v1/audit?limit=200").await;
        let named = acts.iter().filter(|act| act["action"] == action);
        let told = |act: &Value| act["target"].as_str().unwrap_or_default().to_owned();
        let mut acts: Vec<_> = named.map(|act| (text(&act["result"]), told(act))).collect();
        acts.sort();
        acts
    }
}

fn of(email: &str) -> Value {
    json!({ "sub": email, "email": email, "email_verified": true })
}

#[tokio::test]
async fn an_identity_lets_in_once_its_person_has_connected_it() {
    let place = Place::start().await;
    let page = place
        .browser()
        .get("/sign-in?next=%2Fdevice%3Fuser_code%3DBCDF-GHJK")
        .await;
    let button =
        "href=\"/sign-in/with/company?next=%2Fdevice%3Fuser_code%3DBCDF-GHJK\">Continue with Company<";
    assert!(page.text().contains(button), "{}", page.text());
    // Being called so by a provider does not make anybody Ada.
    let (mut browser, page) = place.arrived(of(ADA)).await;
    assert!(page.text().contains("name=\"password\""), "{}", page.text());
    assert!(!browser.cookies.keys().any(|name| name.starts_with("sp_session")));
    let next = hidden(&page, "next");
    assert_eq!(next, "/sign-in/connect");
    let form = [("email", ADA), ("password", PASSWORD), ("next", &next)];
    let answer = browser.post("/sign-in", &form).await;
    let page = browser.follow(answer).await;
    assert!(page.text().contains("Connect Company"), "{}", page.text());
    let before = browser.cookies.clone();
    let refused = browser.post("/sign-in/connect", &[("csrf", "wrong")]).await;
    assert_eq!(refused.status, 403);
    let csrf = hidden(&page, "csrf");
    let answer = browser.post("/sign-in/connect", &[("csrf", &csrf)]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/".to_owned()));
    assert_ne!(before, browser.cookies, "the session is a new one");
    let mut old = place.browser();
    old.cookies = before;
    assert_eq!(old.get("/").await.status, 303, "the one before has ended");
    // From now on it is enough.
    let (_, page) = place.arrived(of(ADA)).await;
    assert!(page.text().contains(&format!("as {ADA}")), "{}", page.text());
    // Whatever address it names later: it is the same person there.
    let (_, page) = place.arrived(json!({ "sub": ADA })).await;
    assert!(page.text().contains(&format!("as {ADA}")), "{}", page.text());
    assert_eq!(
        place.acts("connect_identity").await,
        [
            ("done".to_owned(), "company".to_owned()),
            ("refused".to_owned(), String::new())
        ]
    );
    assert_eq!(place.acts("sign_in_by_provider").await.len(), 2);
}

#[tokio::test]
async fn whose_address_is_not_certain_is_not_let_in() {
    let place = Place::start().await;
    for says in [
        json!({ "email": ADA }),
        json!({ "email": ADA, "email_verified": false }),
        json!({ "email": ADA, "email_verified": "no" }),
        json!({ "email": "not an address", "email_verified": true }),
        json!({ "email": "eve@company.example", "email_verified": false }),
    ] {
        let (browser, page) = place.arrived(says.clone()).await;
        assert_eq!(page.status, 403, "{says}");
        assert!(page.text().contains("not confirmed"), "{}", page.text());
        assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    }
    // Somebody else's: there is no account, and none is made outside of the domain that was named.
    for stranger in [
        "eve@example.com",
        "eve@company.example.org",
        "eve@notcompany.example",
    ] {
        let (browser, page) = place.arrived(of(stranger)).await;
        assert_eq!(page.status, 403, "{}", page.text());
        assert!(
            page.text().contains("There is no account for you"),
            "{}",
            page.text()
        );
        assert!(browser.cookies.is_empty());
    }
    // Who is signed in as somebody else does not get it connected.
    let (mut browser, _) = place.arrived(of(ADA)).await;
    place.api.account("eve@example.org");
    let form = [
        ("email", "eve@example.org"),
        ("password", PASSWORD),
        ("next", "/sign-in/connect"),
    ];
    let answer = browser.post("/sign-in", &form).await;
    let page = browser.follow(answer).await;
    assert!(page.text().contains("Sign out first"), "{}", page.text());
    let home = browser.get("/").await;
    let answer = browser
        .post("/sign-in/connect", &[("csrf", &hidden(&home, "csrf"))])
        .await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    let refused = place.acts("sign_in_by_provider").await;
    assert!(
        refused.len() == 8 && refused.iter().all(|(result, _)| result == "refused"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whoever_the_company_vouches_for_is_given_an_account_and_their_device_too() {
    let place = Place::start().await;
    let program = place.api.anonymous();
    let fields = [
        ("client_id", CLIENT_ID),
        ("scope", "read"),
        ("device_name", "laptop"),
    ];
    let login = program
        .form("/api/v1/oauth/device_authorization", &fields)
        .await
        .json();
    let link = text(&login["verification_uri_complete"]);
    // As a person does: the link, the button, the decision.
    place.provider.says(of("Bob@Company.Example"));
    let mut browser = place.browser();
    let page = browser
        .get(link.strip_prefix(&program.url).expect("our own page"))
        .await;
    let page = browser.follow(page).await;
    let way = page.text();
    let way = way
        .split("href=\"")
        .find(|rest| rest.starts_with("/sign-in/with/company"))
        .expect("a button");
    let way = way
        .split('"')
        .next()
        .expect("a way")
        .replace("&#38;", "&")
        .replace("&amp;", "&");
    let answer = browser.get(&way).await;
    let page = browser.follow(answer).await;
    assert!(page.text().contains("laptop"), "{}", page.text());
    let fields = [
        ("csrf", hidden(&page, "csrf")),
        ("user_code", hidden(&page, "user_code")),
        ("decision", "approve".to_owned()),
    ];
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(browser.post("/device", &fields).await.status, 200);
    let code = text(&login["device_code"]);
    let fields = [
        ("grant_type", DEVICE_GRANT),
        ("client_id", CLIENT_ID),
        ("device_code", code.as_str()),
    ];
    let tokens = program.form("/api/v1/oauth/token", &fields).await.json();
    let bob = place.api.with_token(&text(&tokens["access_token"]));
    let me = bob.read("/api/v1/me").await;
    assert_eq!(
        (&me["email"], &me["operator"]),
        (&json!("bob@company.example"), &json!(false))
    );
    // The same person the next time, not another account.
    let (_, page) = place.arrived(of("Bob@Company.Example")).await;
    assert!(page.text().contains("as bob@company.example"), "{}", page.text());
    // Another one who is called the same there has to be the first.
    let (_, page) = place
        .arrived(json!({ "sub": "2", "email": "bob@company.example", "email_verified": true }))
        .await;
    assert!(page.text().contains("name=\"password\""), "{}", page.text());
}

#[tokio::test]
async fn an_identity_that_is_not_for_this_sign_in_is_not_believed() {
    let place = Place::start().await;
    let bad = |changes: Value| {
        let mut says = of("bob@company.example");
        for (name, value) in changes.as_object().expect("claims") {
            says[name] = value.clone();
        }
        says
    };
    for changes in [
        json!({ "nonce": "another" }),
        json!({ "nonce": Value::Null }),
        json!({ "aud": "another" }),
        json!({ "aud": [CLIENT, "another"], "azp": "another" }),
        json!({ "iss": "https://accounts.google.com" }),
        json!({ "exp": 1_700_000_000 }),
        json!({ "sub": "" }),
    ] {
        let (browser, page) = place.arrived(bad(changes.clone())).await;
        assert_eq!(page.status, 403, "{changes}: {}", page.text());
        assert!(browser.cookies.is_empty(), "{changes}");
    }
    // Signed by a stranger under the provider's name, with what everybody knows, and not at all.
    let ways: [fn(&Value) -> String; 3] = [
        |claims| signed("one", &KeyPair::generate().expect("a key"), claims),
        |claims| unsigned(r#"{"alg":"none","kid":"one"}"#, claims),
        |claims| unsigned(r#"{"alg":"HS256","kid":"one"}"#, claims),
    ];
    for way in ways {
        place.provider.forges(Some(way));
        let (browser, page) = place.arrived(of("bob@company.example")).await;
        assert_eq!(page.status, 403, "{}", page.text());
        assert!(page.text().contains("not believed"), "{}", page.text());
        assert!(browser.cookies.is_empty());
    }
    place.provider.forges(None);
    let acts = place.api.owner.list("/api/v1/audit?limit=200").await;
    let refused = acts.iter().filter(|act| act["result"] == "refused");
    let codes: Vec<String> = refused.map(|act| text(&act["code"])).collect();
    assert_eq!(codes, vec!["identity-not-believed"; 10]);
    assert!(
        place
            .arrived(of("bob@company.example"))
            .await
            .1
            .text()
            .contains("as bob@company.example")
    );
}

fn unsigned(header: &str, claims: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", part(header), part(&claims.to_string()))
}

#[tokio::test]
async fn a_way_back_is_good_in_the_browser_that_began_it_once() {
    let place = Place::start().await;
    place.provider.says(of("bob@company.example"));
    let mut browser = place.browser();
    let begun = browser.get("/sign-in/with/company").await;
    let sent = browser
        .client
        .send(browser.client.http.get(begun.header("location")))
        .await;
    assert_eq!(sent.status, 303, "{}", sent.text());
    let back = sent.header("location");
    let back = back
        .strip_prefix(&browser.client.url)
        .expect("our own page")
        .to_owned();
    // A way back that somebody else has begun signs nobody in as them.
    let mut victim = place.browser();
    assert_eq!(victim.get(&back).await.status, 400);
    victim.get("/sign-in/with/company").await;
    assert_eq!(victim.get(&back).await.status, 400);
    let changed = back.replace("state=", "state=x");
    let away = browser.cookies.clone();
    for (path, status) in [
        (changed, 400),
        (back.replace("company/back", "other/back"), 400),
        (
            back.split("&iss=").next().expect("a way").to_owned() + "&iss=https://evil.example",
            403,
        ),
        (back.replace("code=code-", "error=access_denied&x="), 403),
        (back.replace("code=code-", "code=made-up-"), 403),
    ] {
        browser.cookies = away.clone();
        let answer = browser.get(&path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(browser.cookies.is_empty(), "a way back is used up: {path}");
    }
    browser.cookies = away.clone();
    assert_eq!(browser.get(&back).await.status, 303);
    browser.cookies = away;
    assert_eq!(browser.get(&back).await.status, 403, "the code has been used");
    // A provider that nobody has named, and one that is away.
    assert_eq!(place.browser().get("/sign-in/with/nobody").await.status, 404);
    let away = place.browser().get("/sign-in/with/other").await;
    assert_eq!(away.status, 502);
    assert!(!away.text().contains("127.0.0.1:1"), "{}", away.text());
}

#[tokio::test]
async fn a_session_that_was_planted_is_not_the_one_that_signs_in() {
    let place = Place::start().await;
    // Mallory signs in, and puts her cookie into Bob's browser.
    place.api.account("mallory@example.org");
    let mut mallory = place.browser();
    let form = [("email", "mallory@example.org"), ("password", PASSWORD)];
    assert_eq!(mallory.post("/sign-in", &form).await.status, 303);
    let planted = mallory.cookies.clone();
    place.provider.says(of("bob@company.example"));
    let mut bob = place.browser();
    bob.cookies = planted.clone();
    let page = bob.sign_in_by("company", "/").await;
    assert!(page.text().contains("as bob@company.example"), "{}", page.text());
    assert_ne!(bob.cookies, planted);
    assert_eq!(mallory.get("/").await.status, 303, "what was planted has ended");
}

#[tokio::test]
async fn who_is_not_named_in_the_identity_is_asked_for() {
    let place = Place::start().await;
    place.provider.tells(Some(json!({
        "sub": "7", "email": "carol@company.example", "email_verified": true,
    })));
    let (_, page) = place.arrived(json!({ "sub": "7" })).await;
    assert!(
        page.text().contains("as carol@company.example"),
        "{}",
        page.text()
    );
    // What stands in the signed identity is not asked for again.
    let says = json!({ "sub": "8", "email": "dave@company.example", "email_verified": false });
    place.provider.tells(Some(json!({
        "sub": "8", "email": "dave@company.example", "email_verified": true,
    })));
    let (_, page) = place.arrived(says).await;
    assert!(page.text().contains("not confirmed"), "{}", page.text());
    for (told, status, words) in [
        (
            json!({ "sub": "7", "email": "eve@company.example", "email_verified": true }),
            403,
            "not believed",
        ),
        (
            json!({ "sub": "9", "email": "eve@company.example" }),
            403,
            "not confirmed",
        ),
        (
            json!({ "email": "eve@company.example", "email_verified": true }),
            502,
            "did not answer well",
        ),
    ] {
        place.provider.tells(Some(told.clone()));
        let (browser, page) = place.arrived(json!({ "sub": "9" })).await;
        assert_eq!(page.status, status, "{told}: {}", page.text());
        assert!(page.text().contains(words), "{told}: {}", page.text());
        assert!(browser.cookies.is_empty(), "{told}");
    }
}
