//! The pages in a real Chromium: cookies, forms of other sites, frames, scripts, sessions that were planted.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::extract::Query;
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::chromium::Chromium;
use crate::{answers, need};

const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "correct horse battery staple";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with an account, and a site next to it that means harm.
struct Place {
    server: Child,
    url: String,
    /// On the same machine, another port: the same site, another origin.
    near: String,
    /// Another site.
    far: String,
    _folder: tempfile::TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Place {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let site = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let near = format!("http://{}", site.local_addr().expect("an address"));
        let far = near.replace("127.0.0.1", "localhost");
        let router = Router::new()
            .route("/form", get(form))
            .route("/frame", get(frame))
            .route("/authorize", get(async || Html("<h1>The provider</h1>")))
            .route(
                "/.well-known/openid-configuration",
                get({
                    let near = near.clone();
                    async move || discovery(&near)
                }),
            )
            .route("/keys", get(async || Json(json!({ "keys": [] }))));
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(site, router).await });
        let (server, url) = serve(folder.path(), &near);
        let place = Self {
            server,
            url,
            near,
            far,
            _folder: folder,
        };
        place.until_ready().await;
        place
    }

    async fn until_ready(&self) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let began = Instant::now();
        loop {
            let answer = client.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Signs in as a person does.
    fn sign_in(&self, browser: &mut Chromium) {
        browser.go(&self.at("/sign-in"));
        browser.run(&format!(
            "document.getElementById('email').value = '{EMAIL}';
             document.getElementById('password').value = '{PASSWORD}';
             document.querySelector('form[action=\"/sign-in\"] button').click()"
        ));
        browser.until("document.querySelector('h1')?.textContent === 'You are signed in'");
    }
}

fn serve(folder: &Path, provider: &str) -> (Child, String) {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let password = folder.join("password");
    std::fs::File::create(&password)
        .and_then(|mut file| file.write_all(PASSWORD.as_bytes()))
        .expect("written");
    let server = Command::new(env!("CARGO_BIN_EXE_systemprompt"))
        .args(["serve", "--provider", "fake", "--admin-email", EMAIL, "--listen"])
        .arg(address.to_string())
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--admin-password-file")
        .arg(&password)
        .args(["--oidc-provider", &format!("company={provider},systemprompt")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    (server, format!("http://{address}"))
}

fn discovery(url: &str) -> Json<Value> {
    Json(json!({
        "issuer": url, "jwks_uri": format!("{url}/keys"),
        "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
    }))
}

/// A page that sends a form elsewhere as soon as somebody looks at it.
async fn form(Query(query): Query<Vec<(String, String)>>) -> Html<String> {
    let to = query.first().map(|(_, to)| to.clone()).unwrap_or_default();
    Html(format!(
        "<form id=f method=post action=\"{to}\"><input name=csrf value=x><input name=user_code value=BCDFGHJK>\
         <input name=decision value=approve><input name=email value=\"{EMAIL}\">\
         <input name=password value=\"{PASSWORD}\"></form><script>f.submit()</script>"
    ))
}

/// A page that shows another one in a frame.
async fn frame(Query(query): Query<Vec<(String, String)>>) -> Html<String> {
    let of = query.first().map(|(_, of)| of.clone()).unwrap_or_default();
    Html(format!(
        "<h1>Win a prize</h1><iframe src=\"{of}\" width=600 height=600></iframe>"
    ))
}

fn heading(browser: &mut Chromium) -> String {
    browser
        .run("document.querySelector('h1')?.textContent ?? ''")
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_the_browsers_own_and_no_other_site_acts_with_it() {
    need!(answers("chromium", &["--version"]));
    let place = Place::start().await;
    let mut browser = Chromium::start();
    // A cookie that somebody has planted before the person signs in.
    let port = place.url.rsplit(':').next().expect("a port");
    let (name, known_by) = (format!("sp_session_{port}"), format!("sp_device_{port}"));
    browser.call(
        "Network.setCookie",
        &json!({ "name": name, "value": "planted", "url": place.url }),
    );
    place.sign_in(&mut browser);
    let cookies = browser.call("Network.getCookies", &json!({ "urls": [place.url] }))["cookies"].take();
    let cookies = cookies.as_array().expect("cookies");
    let named = |name: &str| cookies.iter().find(|cookie| cookie["name"] == name);
    let [Some(cookie), Some(device)] = [named(&name), named(&known_by)] else {
        panic!("a session and what the browser is known by, and not {cookies:?}");
    };
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    // The session ends with the browser; what it is known by stays for as long as it is good.
    for (cookie, ends) in [(cookie, true), (device, false)] {
        assert_eq!(
            (
                &cookie["httpOnly"],
                &cookie["sameSite"],
                &cookie["session"],
                &cookie["path"]
            ),
            (&json!(true), &json!("Lax"), &json!(ends), &json!("/"))
        );
    }
    assert!(cookie["value"] != "planted" && cookie["value"].as_str().is_some_and(|value| value.len() == 43));
    assert_eq!(browser.run("document.cookie"), json!(""), "no script sees it");
    // Forms of another origin of this site, which the cookie goes with, and of another site, which it does not.
    for (site, path, told) in [
        (&place.near, "/sign-out", "This form came from another site"),
        (&place.near, "/device", "This form came from another site"),
        (&place.near, "/sign-in", "This form came from another site"),
        (&place.far, "/sign-in", "This form came from another site"),
        // Signed in already, so the page leads on at once: the person came without the cookie, and looks with it.
        (&place.far, "/sign-out", "You are signed in"),
    ] {
        browser.go(&format!("{site}/form?to={}", place.at(path)));
        browser.until(&format!(
            "location.href.startsWith('{}') && document.readyState === 'complete'",
            place.url
        ));
        assert_eq!(heading(&mut browser), told, "{site} {path}");
        browser.go(&place.at("/"));
        assert_eq!(heading(&mut browser), "You are signed in", "{site} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_frames_a_page_or_runs_a_script_in_it() {
    need!(answers("chromium", &["--version"]));
    let place = Place::start().await;
    let mut browser = Chromium::start();
    place.sign_in(&mut browser);
    for site in [&place.near, &place.far] {
        for path in ["/device", "/sign-in", "/docs"] {
            browser.go(&format!("{site}/frame?of={}", place.at(path)));
            assert_eq!(heading(&mut browser), "Win a prize");
            let frames = browser.frames();
            assert!(
                !frames.iter().any(|frame| frame.starts_with(&place.url)),
                "{frames:?}"
            );
        }
    }
    // Other pages are shown in such a frame: it is not the frame that fails, nor the look at it.
    for (site, other) in [
        (&place.near, &place.far),
        (&place.far, &place.near),
        (&place.near, &place.near),
    ] {
        browser.go(&format!("{site}/frame?of={other}/authorize"));
        let frames = browser.frames();
        assert!(
            frames.iter().any(|frame| *frame == format!("{other}/authorize")),
            "{frames:?}"
        );
    }
    for path in ["/", "/device", "/docs"] {
        browser.go(&place.at(path));
        let ran = browser.run(
            "(() => {
                const script = document.createElement('script');
                script.textContent = 'window.pwned = 1';
                document.body.append(script);
                document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned = 2\"><a id=bad href=\"javascript:window.pwned=3\">x</a>');
                document.getElementById('bad').click();
                return new Promise(done => setTimeout(() => done(window.pwned ?? 0), 500));
            })()",
        );
        assert_eq!(ran, json!(0), "a script ran on {path}");
        // The style sheet is let through: the page is not bare.
        let font = browser.run("getComputedStyle(document.body).fontFamily");
        assert!(
            font.as_str().is_some_and(|font| font.contains("system-ui")),
            "{font}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_of_a_provider_leads_there() {
    need!(answers("chromium", &["--version"]));
    let place = Place::start().await;
    let mut browser = Chromium::start();
    browser.go(&place.at("/device?user_code=BCDF-GHJK"));
    assert_eq!(heading(&mut browser), "Sign in");
    let picture = browser.call("Page.captureScreenshot", &json!({ "format": "png" }));
    let picture = STANDARD
        .decode(picture["data"].as_str().expect("a picture"))
        .expect("base64");
    // To be looked at by whoever changes the page.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sign-in.png");
    std::fs::File::create(file)
        .and_then(|mut file| file.write_all(&picture))
        .expect("written");
    browser.run("document.querySelector('a.go-by').click()");
    browser.until("document.querySelector('h1')?.textContent === 'The provider'");
    let asked = browser.run("location.href");
    let asked = url::Url::parse(asked.as_str().expect("an address")).expect("a URL");
    let of = |name: &str| {
        asked
            .query_pairs()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.into_owned())
    };
    assert_eq!(of("redirect_uri"), Some(place.at("/sign-in/with/company/back")));
    assert_eq!(of("code_challenge_method").as_deref(), Some("S256"));
    // Nothing of the page that the person came from is told there.
    assert_eq!(browser.run("document.referrer"), json!(""));
    // Back with another answer than the one that belongs to this browser.
    browser.go(&place.at("/sign-in/with/company/back?code=1&state=made-up"));
    assert_eq!(heading(&mut browser), "This sign-in was not begun here");
}
