//! Tokens: the challenge, the trade, what a credential reaches and when it ends.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use systemprompt::api::id::TenantId;
use systemprompt::api::registry::tenant_tag;
use systemprompt::server::clock::Clock;
use systemprompt::server::registry::{Gate, GateAccess, GateSettings};

use crate::gate::harness::{Answer, Client, IMAGE, KEY, World, image_manifest};

const SCOPE: &str = "repository:systemprompt-images:pull,push";

fn credential(world: &World, tenant: &TenantId, access: GateAccess, seconds: u32) -> String {
    world.gate.mint(tenant, access, seconds).0.expose().to_owned()
}

async fn trade(client: &Client, password: &str, query: &str) -> Answer {
    let request = client.call(Method::GET, &format!("/v2/token?{query}"));
    client.send(request.basic_auth("anybody", Some(password))).await
}

fn with(world: &World, authorization: String) -> Client {
    let mut client = world.anonymous();
    client.authorization = Some(authorization);
    client
}

fn bearer(world: &World, answer: &Answer) -> Client {
    with(
        world,
        format!("Bearer {}", answer.json()["token"].as_str().expect("a token")),
    )
}

fn basic(world: &World, password: &str) -> Client {
    with(
        world,
        format!("Basic {}", STANDARD.encode(format!("systemprompt:{password}"))),
    )
}

#[tokio::test]
async fn everything_is_refused_without_a_token_and_says_where_to_get_one() {
    let world = World::start().await;
    let client = world.anonymous();
    let digest = format!("sha256:{}", "0".repeat(64));
    let host = world.gate.registry_host().to_owned();
    let (pull, push, delete) = ("pull", "pull,push", "delete");
    let cases = [
        (Method::GET, "/v2/".to_owned(), ""),
        (Method::GET, "/v2/_catalog".to_owned(), ""),
        (Method::GET, "/v2/%ff/tags/list".to_owned(), ""),
        (Method::GET, format!("blobs/{digest}"), pull),
        (Method::HEAD, format!("blobs/{digest}"), pull),
        (Method::DELETE, format!("blobs/{digest}"), delete),
        (Method::POST, "blobs/uploads/".to_owned(), push),
        (Method::GET, "blobs/uploads/0".to_owned(), push),
        (Method::PATCH, "blobs/uploads/0".to_owned(), push),
        (Method::PUT, "blobs/uploads/0".to_owned(), push),
        (Method::DELETE, "blobs/uploads/0".to_owned(), push),
        (Method::GET, "manifests/latest".to_owned(), pull),
        (Method::HEAD, "manifests/latest".to_owned(), pull),
        (Method::PUT, "manifests/latest".to_owned(), push),
        (Method::DELETE, "manifests/latest".to_owned(), delete),
        (Method::GET, "tags/list".to_owned(), pull),
        (Method::GET, format!("referrers/{digest}"), pull),
    ];
    for (method, path, actions) in cases {
        let answer = client.ask(method.clone(), &path).await;
        assert_eq!(answer.status, 401, "{method} {path}");
        let mut challenge = format!("Bearer realm=\"http://{host}/v2/token\",service=\"{host}\"");
        if !actions.is_empty() {
            challenge.push_str(&format!(",scope=\"repository:systemprompt-images:{actions}\""));
        }
        assert_eq!(answer.header("www-authenticate"), challenge, "{method} {path}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
        if method != Method::HEAD {
            assert_eq!(answer.problem(), (401, "UNAUTHORIZED".to_owned()));
        }
    }
    let hostile = client.get("/v2/a%22,evil=%22/tags/list").await;
    assert!(!hostile.header("www-authenticate").contains("evil"));
}

#[tokio::test]
async fn a_credential_is_traded_for_what_is_both_asked_and_allowed() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.anonymous();
    let (push, pull) = (GateAccess::Push, GateAccess::Pull);
    for (access, query, reads, begins) in [
        (push, format!("scope={SCOPE}"), 200, 202),
        (
            push,
            "scope=repository%3Asystemprompt-images%3Apush%2Cpull&service=x&account=y".to_owned(),
            200,
            202,
        ),
        (
            push,
            "scope=repository:systemprompt-images:pull".to_owned(),
            200,
            401,
        ),
        (pull, format!("scope={SCOPE}"), 200, 403),
        (push, "scope=repository:other:pull,push".to_owned(), 401, 401),
        (push, String::new(), 401, 401),
    ] {
        let answer = trade(&client, &credential(&world, &tenant, access, 600), &query).await;
        assert_eq!(answer.status, 200, "a partial grant is no error");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.json()["token"], answer.json()["access_token"]);
        assert_eq!(answer.json()["expires_in"], 600);
        assert_eq!(answer.json()["issued_at"], "2100-01-01T00:00:00.000Z");
        assert_eq!(answer.json()["refresh_token"], Value::Null);
        let bearer = bearer(&world, &answer);
        assert_eq!(bearer.get("/v2/").await.status, 200);
        assert_eq!(bearer.get("tags/list").await.status, reads, "{access:?} {query}");
        let begun = bearer.ask(Method::POST, "blobs/uploads/").await;
        assert_eq!(begun.status, begins, "{access:?} {query}");
        if begins == 401 {
            assert!(
                begun
                    .header("www-authenticate")
                    .ends_with("error=\"insufficient_scope\"")
            );
        }
    }
}

#[tokio::test]
async fn the_oauth_form_and_identity_tokens_work() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.anonymous();
    let password = credential(&world, &tenant, GateAccess::Push, 600);
    let offline = trade(&client, &password, "offline_token=true").await;
    let refresh = offline.json()["refresh_token"]
        .as_str()
        .expect("a refresh token")
        .to_owned();
    let forms = [
        json!({"grant_type": "refresh_token", "refresh_token": refresh, "client_id": "docker", "scope": SCOPE}),
        json!({"grant_type": "password", "username": "x", "password": password, "scope": SCOPE}),
    ];
    for form in forms {
        let answer = client
            .send(client.call(Method::POST, "/v2/token").form(&form))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(bearer(&world, &answer).get("tags/list").await.status, 200);
    }
    for (form, status) in [
        (
            json!({"grant_type": "refresh_token", "refresh_token": "wrong"}),
            401,
        ),
        (json!({"grant_type": "password", "username": "x"}), 401),
        (json!({"grant_type": "authorization_code"}), 400),
    ] {
        let answer = client
            .send(client.call(Method::POST, "/v2/token").form(&form))
            .await;
        assert_eq!(answer.status, status, "{form}");
    }
}

#[tokio::test]
async fn a_credential_works_as_basic_password_directly() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = basic(&world, &credential(&world, &tenant, GateAccess::Push, 600));
    let image = client.push_image(&tenant_tag(&tenant), "content").await;
    assert_eq!(
        client.get(&format!("manifests/{}", image.digest)).await.text(),
        image.manifest
    );
}

#[tokio::test]
async fn tokens_end_and_never_outlive_their_credential() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.anonymous();
    let (password, expires) = world.gate.mint(&tenant, GateAccess::Push, 1000);
    assert_eq!(expires.to_string(), "2100-01-01T00:16:40.000Z");
    let first = trade(&client, password.expose(), &format!("scope={SCOPE}")).await;
    assert_eq!(first.json()["expires_in"], 900);
    world.clock.advance_seconds(899);
    assert_eq!(bearer(&world, &first).get("tags/list").await.status, 200);
    world.clock.advance_seconds(1);
    assert_eq!(bearer(&world, &first).get("tags/list").await.status, 401);
    world.clock.advance_seconds(70);
    let last = trade(&client, password.expose(), &format!("scope={SCOPE}")).await;
    // Clients take less than 60 for 60; the token ends with its credential all the same.
    assert_eq!(last.json()["expires_in"], 60);
    world.clock.advance_seconds(30);
    assert_eq!(bearer(&world, &last).get("tags/list").await.status, 401);
    let ended = trade(&client, password.expose(), "").await;
    assert_eq!(ended.problem(), (401, "UNAUTHORIZED".to_owned()));
    assert_eq!(basic(&world, password.expose()).get("/v2/").await.status, 401);
}

#[tokio::test]
async fn a_credential_lives_a_day_at_most() {
    let world = World::start().await;
    let (_, expires) = world.gate.mint(&world.tenant(), GateAccess::Pull, u32::MAX);
    assert_eq!(expires.to_string(), "2100-01-02T00:00:00.000Z");
}

#[tokio::test]
async fn what_others_signed_and_the_other_kind_is_refused() {
    let world = World::start().await;
    let tenant = world.tenant();
    let client = world.anonymous();
    let directory = tempfile::tempdir().expect("a folder");
    let settings = GateSettings {
        registry_host: "other".to_owned(),
        realm: "http://other/v2/token".to_owned(),
        directory: directory.path().to_owned(),
        signing_key: [KEY[0] ^ 1; 32],
    };
    let other = Gate::open(settings, world.clock.clone()).await.expect("it opens");
    let forged = other.mint(&tenant, GateAccess::Manage, 600).0.expose().to_owned();
    let good = credential(&world, &tenant, GateAccess::Push, 600);
    let access = trade(&client, &good, &format!("scope={SCOPE}")).await;
    let access = access.json()["token"].as_str().expect("a token").to_owned();
    let bodies: Vec<&str> = good.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let unsigned = format!("{none}.{}.", bodies[1]);
    let claims = URL_SAFE_NO_PAD.decode(bodies[1]).expect("claims");
    let raised = String::from_utf8(claims)
        .expect("text")
        .replace("\"push\"", "\"manage\"");
    let raised = format!("{}.{}.{}", bodies[0], URL_SAFE_NO_PAD.encode(raised), bodies[2]);
    for password in [&forged, &unsigned, &raised, &access, "", "wrong"] {
        assert_eq!(trade(&client, password, "").await.status, 401, "{password}");
        assert_eq!(
            basic(&world, password).get("/v2/").await.status,
            401,
            "{password}"
        );
    }
    for token in [&forged, &unsigned, &good, "", "wrong"] {
        assert_eq!(
            with(&world, format!("Bearer {token}")).get("/v2/").await.status,
            401,
            "{token}"
        );
    }
    for header in [
        "",
        "Bearer",
        "Basic",
        "Basic !!!",
        "Negotiate abc",
        &format!("Basic {}", STANDARD.encode("x")),
    ] {
        assert_eq!(
            with(&world, header.to_owned()).get("/v2/").await.status,
            401,
            "{header}"
        );
    }
}

#[tokio::test]
async fn a_push_credential_writes_its_one_tag_and_removes_nothing() {
    let world = World::start().await;
    let (tenant, other) = (world.tenant(), world.tenant());
    let client = world.client(&tenant, GateAccess::Push).await;
    let image = client.push_image(&tenant_tag(&tenant), "content").await;
    let bytes = image.manifest.as_bytes();
    let denied = (403, "DENIED".to_owned());
    for tag in [
        "latest",
        &tenant_tag(&other),
        "tenant-",
        &format!("{}x", tenant_tag(&tenant)),
    ] {
        assert_eq!(
            client.put_manifest(tag, IMAGE, bytes).await.problem(),
            denied,
            "{tag}"
        );
        let path = format!("{}?tag={}&tag={tag}", image.digest, tenant_tag(&tenant));
        assert_eq!(
            client.put_manifest(&path, IMAGE, bytes).await.problem(),
            denied,
            "{tag}"
        );
    }
    let own = format!("{}?tag={}", image.digest, tenant_tag(&tenant));
    let answer = client.put_manifest(&own, IMAGE, bytes).await;
    assert_eq!(
        (answer.status, answer.header("oci-tag")),
        (201, tenant_tag(&tenant))
    );
    for path in [
        format!("manifests/{}", image.digest),
        format!("manifests/{}", tenant_tag(&tenant)),
        format!("blobs/{}", image.layer),
    ] {
        assert_eq!(client.delete(&path).await.problem(), denied, "{path}");
    }
    assert_eq!(
        client.get("tags/list").await.json()["tags"],
        json!([tenant_tag(&tenant)])
    );
}

#[tokio::test]
async fn a_pull_credential_only_reads() {
    let world = World::start().await;
    let tenant = world.tenant();
    let image = world
        .client(&tenant, GateAccess::Push)
        .await
        .push_image(&tenant_tag(&tenant), "content")
        .await;
    let before = world.files();
    let client = world.client(&tenant, GateAccess::Pull).await;
    assert_eq!(
        client.get(&format!("blobs/{}", image.layer)).await.text(),
        "content"
    );
    let manifest = image_manifest(&image.layer, &[]).to_string();
    let denied = (403, "DENIED".to_owned());
    let tag = tenant_tag(&tenant);
    assert_eq!(
        client
            .put_manifest(&tag, IMAGE, manifest.as_bytes())
            .await
            .problem(),
        denied
    );
    let own = format!("blobs/uploads/?mount={}&from=systemprompt-images", image.layer);
    for (method, path) in [
        (Method::POST, "blobs/uploads/"),
        (Method::POST, own.as_str()),
        (Method::GET, "blobs/uploads/0"),
        (Method::PATCH, "blobs/uploads/0"),
        (Method::PUT, "blobs/uploads/0"),
        (Method::DELETE, "blobs/uploads/0"),
        (Method::DELETE, "manifests/latest"),
    ] {
        assert_eq!(
            client.ask(method.clone(), path).await.problem(),
            denied,
            "{method} {path}"
        );
    }
    assert_eq!(world.files(), before);
}

#[tokio::test]
async fn only_one_repository_exists() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Manage).await;
    for name in [
        "other",
        "systemprompt-images/x",
        "x/systemprompt-images",
        "systemprompt-images2",
        "UPPER",
        "a..b",
    ] {
        let path = format!("/v2/{name}/tags/list");
        assert_eq!(
            client.get(&path).await.problem(),
            (404, "NAME_UNKNOWN".to_owned()),
            "{name}"
        );
        let path = format!("/v2/{name}/blobs/uploads/");
        let begun = client.ask(Method::POST, &path).await;
        assert_eq!(begun.problem(), (403, "DENIED".to_owned()), "{name}");
    }
    for path in [
        "/v2/_catalog",
        "/v2/systemprompt-images",
        "/v2/systemprompt-images/nonsense/x",
    ] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    for (method, path) in [
        (Method::POST, "tags/list"),
        (Method::PUT, "blobs/uploads/"),
        (Method::PUT, "/v2/"),
    ] {
        let answer = client.ask(method.clone(), path).await;
        assert_eq!(
            answer.problem(),
            (405, "UNSUPPORTED".to_owned()),
            "{method} {path}"
        );
    }
}

#[test]
fn the_signing_key_is_not_shown() {
    let settings = GateSettings {
        registry_host: String::new(),
        realm: String::new(),
        directory: "/".into(),
        signing_key: [171; 32],
    };
    assert!(!format!("{settings:?}").contains("171"));
}

#[tokio::test]
async fn the_system_clock_mints_too() {
    let directory = tempfile::tempdir().expect("a folder");
    let settings = GateSettings {
        registry_host: "localhost:1".to_owned(),
        realm: "http://localhost:1/v2/token".to_owned(),
        directory: directory.path().to_owned(),
        signing_key: KEY,
    };
    let clock = Clock::system();
    let gate = Gate::open(settings, clock.clone()).await.expect("it opens");
    let (token, expires) = gate.mint(&TenantId::new(clock.uuid()), GateAccess::Push, 300);
    assert!((295..=300).contains(&expires.seconds_since(clock.now())));
    // Goes through encoders that know no other characters (X-Registry-Auth).
    assert!(
        token
            .expose()
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    );
}
