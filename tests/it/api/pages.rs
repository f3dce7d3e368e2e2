//! The pages as a browser sees them: one-time links, signing in and out, and what other sites may not do.

use reqwest::Method;

use crate::api::rig::{Api, PASSWORD};
use crate::cli::rig::Server;
use crate::gate::harness::{Answer, Client};

const EVE: &str = "eve@example.org";

fn cookie_of(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

async fn with_cookie(client: &Client, path: &str, cookie: &str) -> Answer {
    client
        .send(client.call(Method::GET, path).header("cookie", cookie))
        .await
}

async fn password(client: &Client, email: &str, password: &str, next: &str) -> Answer {
    let form = [("email", email), ("password", password), ("next", next)];
    client.form("/sign-in", &form).await
}

#[tokio::test]
async fn a_link_works_once_and_looking_at_it_uses_nothing_up() {
    let api = Api::start();
    let anybody = api.anonymous();
    let link = api.command(&["link", Server::EMAIL, "--quiet"], "").stdout;
    let path = link
        .trim()
        .strip_prefix(&anybody.url)
        .expect("a link to this server")
        .to_owned();
    for _ in 0..2 {
        let page = anybody.get(&path).await;
        assert_eq!(page.status, 200);
        assert!(page.text().contains(Server::EMAIL), "{}", page.text());
    }
    let let_in = anybody.post_empty(&path).await;
    assert_eq!(let_in.status, 303, "{}", let_in.text());
    let home = with_cookie(&anybody, "/", &cookie_of(&let_in)).await;
    assert!(home.text().contains("operator of this server"), "{}", home.text());
    assert_eq!(anybody.get(&path).await.status, 404);
    assert_eq!(anybody.post_empty(&path).await.status, 404);
}

#[tokio::test]
async fn the_page_does_not_tell_who_has_an_account() {
    let api = Api::start();
    api.account(EVE);
    let anybody = api.anonymous();
    let wrong = password(&anybody, EVE, "wrong", "/").await;
    let unknown = password(&anybody, "bob@example.org", "wrong", "/").await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(unknown.text().replace("bob@", "eve@"), wrong.text());
}

#[tokio::test]
async fn who_signs_out_is_out_and_comes_back_to_where_they_were() {
    let api = Api::start();
    api.account(EVE);
    let anybody = api.anonymous();
    let let_in = password(
        &anybody,
        "Eve@Example.org",
        PASSWORD,
        "/device?user_code=BCDF-GHJK",
    )
    .await;
    assert_eq!(let_in.header("location"), "/device?user_code=BCDF-GHJK");
    let cookie = cookie_of(&let_in);
    let home = with_cookie(&anybody, "/", &cookie).await.text();
    assert!(!home.contains("operator of this server"), "{home}");
    let csrf = home
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let out = async |csrf: &str| {
        let request = anybody.call(Method::POST, "/sign-out").header("cookie", &cookie);
        anybody.send(request.form(&[("csrf", csrf)])).await
    };
    assert_eq!(out("wrong").await.status, 403);
    assert_eq!(out(csrf.expect("a form")).await.status, 303);
    let away = with_cookie(&anybody, "/device?user_code=BCDF-GHJK", &cookie).await;
    assert_eq!(
        away.header("location"),
        "/sign-in?next=%2Fdevice%3Fuser_code%3DBCDF-GHJK"
    );
}

#[tokio::test]
async fn nobody_is_led_to_another_site() {
    let api = Api::start();
    api.account(EVE);
    for next in ["https://evil.example", "//evil.example", "/\\evil.example"] {
        let let_in = password(&api.anonymous(), EVE, PASSWORD, next).await;
        assert_eq!(
            (let_in.status, let_in.header("location")),
            (303, "/".to_owned()),
            "{next}"
        );
    }
}

#[tokio::test]
async fn passwords_cannot_be_guessed_for_long() {
    let api = Api::start();
    let anybody = api.anonymous();
    let mut told = Vec::new();
    for _ in 0..22 {
        told.push(
            password(&anybody, "nobody@example.org", "guess", "/")
                .await
                .status,
        );
    }
    assert_eq!((told.first(), told.last()), (Some(&401), Some(&429)), "{told:?}");
}

#[tokio::test]
async fn pages_run_no_scripts_and_load_nothing_from_elsewhere() {
    let api = Api::start();
    let anybody = api.anonymous();
    for path in ["/docs", "/sign-in"] {
        let page = anybody.get(path).await;
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        let policy = page.header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        let text = page.text();
        assert!(
            !text.contains("<script") && !text.contains(" style="),
            "{path} has inline parts"
        );
        let linked = text.split("href=\"").skip(1);
        for part in linked.chain(text.split("src=\"").skip(1)) {
            let target = part.split('"').next().unwrap_or_default();
            assert!(
                target.starts_with('/') || target.starts_with('#'),
                "{path} loads {target}"
            );
        }
    }
    let style = anybody.get("/assets/style.css").await;
    assert_eq!(
        (style.status, style.header("content-type")),
        (200, "text/css; charset=utf-8".to_owned())
    );
}
