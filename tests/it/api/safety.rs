//! A server that others can reach: what it refuses, TLS and its renewal, and whose word about callers counts.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::api::rig::{Api, PATIENCE, problem};
use crate::cli::rig::{House, Server};

fn careless() -> House {
    House::new()
        .with("SYSTEMPROMPT_PROVIDER", "fake")
        .with("SYSTEMPROMPT_TRUSTED_PROXIES", "0.0.0.0/0")
        .with("ALLOWED_ORIGINS", "*")
        .with("SYSTEMPROMPT_ADMIN_EMAIL", "admin@example.com")
}

#[test]
fn one_message_lists_every_fault_with_its_mend() {
    let mut house = careless();
    house.set("ENVIRONMENT", "production");
    house.put("password", "admin123\n");
    let password = house.path("password").display().to_string();
    let serve = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-email",
        "admin@example.com",
        "--admin-password-file",
        &password,
    ];
    let said = house.run(&serve);
    assert_eq!(said.code, Some(2), "{}", said.whole());
    for (name, mend) in [
        ("admin-password", "--admin-password-file"),
        ("public-url", "--public-url"),
        ("proxy-headers", "--trusted-proxy"),
        ("cors", "--allowed-origin"),
        ("billing", "--billing off"),
        ("provider", "--provider docker"),
    ] {
        let line = said
            .stderr
            .lines()
            .find(|line| line.contains(&format!("{name}: ")));
        let line = line.unwrap_or_else(|| panic!("{name} is missing: {}", said.stderr));
        assert!(line.contains(mend), "{line}");
    }
    assert!(said.stderr.contains("(6 faults)"), "{}", said.stderr);
    assert!(!said.stderr.contains("admin123"));
    house.put("password", "eleven char\n");
    assert!(house.run(&serve).stderr.contains("fewer than 12 characters"));
}

#[test]
fn a_public_address_is_enough_to_be_careful() {
    let house = House::new().with("SYSTEMPROMPT_PROVIDER", "fake");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let said = house.run(&["serve", "--listen", address]);
        assert_eq!(said.code, Some(2), "{}", said.whole());
        assert!(said.stderr.contains("tls: "), "{}", said.stderr);
    }
    let said = house.run(&["serve", "--listen", "0.0.0.0:0", "--json"]);
    let refused: Value = serde_json::from_str(said.stderr.lines().last().expect("a line")).expect("JSON");
    assert!(refused.to_string().contains("tls: "), "{refused}");
}

#[test]
fn the_checklist_says_what_is_so() {
    let server = Server::start_unsigned();
    let data = server.data_dir();
    let check = |more: &[&str]| {
        let arguments = [&["server", "check", "--json", "--data-dir", &data], more].concat();
        server.house.run(&arguments)
    };
    let standing = |document: &Value, name: &str| {
        let checks = document["checks"].as_array().expect("checks");
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check {name}"))["standing"].clone()
    };
    let said = check(&[]);
    assert_eq!(said.code, Some(1), "{}", said.whole());
    let careless = said.json();
    for (name, expected) in [
        ("master-key", "pass"),
        ("admin-password", "pass"),
        ("tls", "fail"),
        ("public-url", "fail"),
        ("proxy-headers", "pass"),
        ("cors", "pass"),
        ("billing", "fail"),
        ("environment", "judge"),
        ("certificate", "skip"),
        ("operators", "pass"),
        ("audit", "pass"),
        ("file-modes", "pass"),
        ("backups", "fail"),
    ] {
        assert_eq!(standing(&careless, name), expected, "{name}: {careless:#}");
    }
    std::fs::create_dir(Path::new(&data).join("backups")).expect("a folder");
    std::fs::File::create(Path::new(&data).join("backups/today")).expect("a file");
    let files = certificate(Path::new(&data), "localhost");
    let good = check(&[
        "--tls-cert",
        &files.0,
        "--tls-key",
        &files.1,
        "--public-url",
        "https://api.example.com",
        "--billing",
        "off",
        "--provider",
        "docker",
    ])
    .json();
    for name in [
        "tls",
        "public-url",
        "billing",
        "provider",
        "certificate",
        "backups",
    ] {
        assert_eq!(standing(&good, name), "pass", "{name}: {good:#}");
    }
}

#[test]
fn files_that_hold_secrets_are_told_when_others_may_read_them() {
    let server = Server::alone();
    let data = server.data_dir();
    let standing = |more: &[&str]| {
        let arguments = [&["server", "check", "--json", "--data-dir", &data], more].concat();
        let document = server.house.run(&arguments).json();
        let checks = document["checks"].as_array().expect("checks");
        let found = checks.iter().find(|check| check["name"] == "file-modes");
        found.expect("the check")["standing"].clone()
    };
    for name in ["master.key", "systemprompt.db-wal", "master.canary"] {
        let file = Path::new(&data).join(name);
        set_mode(&file, 0o644);
        assert_eq!(standing(&[]), "fail", "{name}");
        set_mode(&file, 0o600);
    }
    assert_eq!(standing(&[]), "pass");
    server.house.put("password", "a password of the operator's\n");
    let password = server.house.path("password");
    set_mode(&password, 0o644);
    let file = password.display().to_string();
    let careless = standing(&[
        "--admin-email",
        "operator@example.com",
        "--admin-password-file",
        &file,
    ]);
    assert_eq!(careless, "fail");
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
}

/// A certificate of this name and its key, as files; a second call replaces them.
fn certificate(folder: &Path, name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let write = |file: &str, text: String| {
        let path = folder.join(file);
        let mut new = tempfile::NamedTempFile::new_in(folder).expect("a file");
        std::io::Write::write_all(&mut new, text.as_bytes()).expect("written");
        new.persist(&path).expect("renamed");
        path.display().to_string()
    };
    let key = write("tls.key", made.signing_key.serialize_pem());
    (write("tls.crt", made.cert.pem()), key)
}

/// Somebody who trusts what is in the file now.
fn trusting(file: &str) -> reqwest::Client {
    let pem = std::fs::read(file).expect("a file");
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

#[tokio::test]
async fn a_new_certificate_is_served_and_open_connections_stay() {
    let mut server = Server::start_unsigned();
    server.stop_well();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, key) = certificate(folder.path(), "localhost");
    server.house.set("SYSTEMPROMPT_TLS_CERT", &file);
    server.house.set("SYSTEMPROMPT_TLS_KEY", &key);
    let public = format!("https://localhost:{}", server.port);
    server.house.set("SYSTEMPROMPT_PUBLIC_URL", &public);
    server.up();
    let url = format!("{public}/livez");
    let ask = async |client: &reqwest::Client| {
        client
            .get(&url)
            .send()
            .await
            .map(|answer| answer.status().as_u16())
    };
    let old = trusting(&file);
    let answer = old.get(&url).send().await.expect("TLS");
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("strict-transport-security"));
    drop(answer.bytes().await);
    let old_file = std::fs::read(&file).expect("a file");
    certificate(folder.path(), "localhost");
    let new = trusting(&file);
    let began = Instant::now();
    // Every server of several: connections go to one after the other.
    while ask(&trusting(&file)).await.is_err() || ask(&trusting(&file)).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the new certificate is not served");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // The old client would not trust the new certificate: its connection is the one from before.
    assert_eq!(ask(&old).await.expect("the connection stayed"), 200);
    let stranger = folder.path().join("old.crt");
    std::io::Write::write_all(&mut std::fs::File::create(&stranger).expect("a file"), &old_file)
        .expect("written");
    assert!(ask(&trusting(&stranger.display().to_string())).await.is_err());
    // A file that cannot be used changes nothing.
    std::fs::File::create(&file).expect("emptied");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ask(&new).await.expect("served on"), 200);
    assert!(server.log().contains("the new certificate cannot be used"));
    // Whoever does not speak TLS holds nobody up.
    let plain = std::net::TcpStream::connect(("127.0.0.1", server.port)).expect("connected");
    assert_eq!(ask(&new).await.expect("served on"), 200);
    drop(plain);
}

#[tokio::test]
async fn only_named_proxies_are_believed_about_callers() {
    let mut api = Api::start();
    let claim = async |api: &Api| {
        let request = api.owner.call(Method::POST, "/api/v1/checkout").json(&json!({}));
        let answer = api
            .owner
            .send(request.header("x-forwarded-for", "9.9.9.9, 198.51.100.7"))
            .await;
        assert_eq!(problem(&answer).0, 400);
        let entries = api.owner.list("/api/v1/audit?limit=200").await;
        entries.last().expect("an entry")["address"].clone()
    };
    assert_eq!(claim(&api).await, "127.0.0.1");
    api.server.stop_well();
    api.server
        .house
        .set("SYSTEMPROMPT_TRUSTED_PROXIES", "127.0.0.0/8");
    api.server.up();
    assert_eq!(claim(&api).await, "198.51.100.7");
}

#[tokio::test]
async fn pages_of_named_sites_only_may_call() {
    let mut api = Api::start();
    let ask = async |api: &Api, origin: &str| {
        let request = api.anonymous().call(Method::OPTIONS, "/api/v1/tenants");
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "GET");
        let answer = api.anonymous().send(request).await;
        answer.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(ask(&api, "https://app.example.com").await, "");
    api.server.stop_well();
    api.server.house.set("ALLOWED_ORIGINS", "https://app.example.com");
    api.server.house.set("SYSTEMPROMPT_BILLING", "off");
    api.server.up();
    assert_eq!(
        ask(&api, "https://app.example.com").await,
        "https://app.example.com"
    );
    assert_eq!(ask(&api, "https://evil.example").await, "");
    let body = json!({"price_id": "pri_basic", "name": "acme", "region": "local"});
    let refused = api.owner.post("/api/v1/checkout", &body).await;
    assert_eq!(problem(&refused), (402, "plan-limit".to_owned()));
    assert_eq!(api.owner.checkout("acme").await.status, 201);
}
