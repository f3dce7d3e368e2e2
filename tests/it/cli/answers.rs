//! What commands say, whole: stdout, stderr and exit code.

use crate::cli::rig::{House, Said, Server};

/// Compares with the snapshot of this name; what differs from run to run is named instead.
#[track_caller]
pub(crate) fn snapshot(name: &str, said: &Said) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, name) in [
        (
            r"\b(ten|op|acc|chk|req|res|tok|sup)_[0-9a-hjkmnp-tv-z]{26}\b",
            "${1}_ID",
        ),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"localhost:\d+", "localhost:PORT"),
        (r"/\S*/my-project", "PROJECT"),
        (r#"postgresql://[^"\s]+"#, "postgresql://URL"),
        (r"\b[0-9A-Za-z_-]{64}\b", "SECRET"),
        (r"(failed to use the keyring): .*", "${1}: WHY"),
        (r#"("digest": ")[0-9a-f]{12}"#, "${1}DIGEST"),
        (r"(?m)  [0-9a-f]{12}  ", "  DIGEST        "),
        (r"\bt_[0-9a-hjkmnp-tv-z]{26}", "t_ID"),
        (r#""took_ms":\d+"#, "\"took_ms\":MS"),
        (r"[▁▂▃▄▅▆▇█·]{60}", "BARS"),
    ] {
        settings.add_filter(pattern, name);
    }
    settings.bind(|| insta::assert_snapshot!(name, said.whole()));
}

#[test]
fn without_a_server_and_without_a_login() {
    let house = House::new();
    snapshot("whoami-signed-out", &house.run(&["whoami"]));
    snapshot("whoami-signed-out-json", &house.run(&["whoami", "--json"]));
    let house = house
        .with("SYSTEMPROMPT_TOKEN", "spt_x")
        .with("SYSTEMPROMPT_API_URL", "http://127.0.0.1:1");
    snapshot("whoami-unreachable", &house.run(&["whoami"]));
    snapshot("not-a-command", &house.run(&["tenants"]));
    snapshot("not-a-command-json", &house.run(&["tenants", "--json"]));
    snapshot("not-a-url", &house.run(&["whoami", "--server", "example.com"]));
}

#[test]
fn the_version_touches_nothing_and_needs_no_home() {
    let house = House::new();
    let output = house.command(&["--version"]).env_clear().output().expect("runs");
    assert_eq!(output.stdout, b"systemprompt 0.1.0\n");
    let help = house.run(&["cloud", "tenant", "--help"]).ok();
    assert!(
        help.stdout.contains("Usage: systemprompt tenant"),
        "{}",
        help.whole()
    );
}

#[test]
fn who_is_signed_in() {
    let server = Server::start();
    snapshot("whoami", &server.run(&["whoami"]));
    snapshot("whoami-json", &server.run(&["whoami", "--json"]));
}

#[test]
fn a_token_from_standard_input_is_kept_and_ended() {
    let server = Server::start_unsigned();
    let token = server.token();
    let said = server.house.feed(
        &["login", "--with-token", "--store", "file"],
        &format!("{token}\n"),
    );
    snapshot("login-with-token", &said);
    let kept = server.house.path(".systemprompt/credentials.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).expect("kept").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        server
            .house
            .read(".systemprompt/.gitignore")
            .contains("credentials.json")
    );
    server.run(&["whoami"]).ok();
    snapshot("logout", &server.run(&["logout"]));
    assert!(!kept.exists());
    snapshot("logout-again", &server.run(&["logout"]));
    let url = format!("http://127.0.0.1:{}", server.port);
    let house = House::new()
        .with("SYSTEMPROMPT_API_URL", &url)
        .with("SYSTEMPROMPT_TOKEN", "spt_wrong");
    snapshot("whoami-refused", &house.run(&["whoami"]));
    snapshot(
        "login-without-keyring",
        &server.house.feed(&["login", "--with-token"], "x"),
    );
    snapshot(
        "login-with-nothing",
        &server
            .house
            .feed(&["login", "--with-token", "--store", "file"], ""),
    );
}

#[test]
fn a_tenant_from_beginning_to_end() {
    let server = Server::start();
    snapshot("tenant-list-none", &server.run(&["tenant", "list"]));
    let said = server.run(&["tenant", "create", "acme", "--plan", "free", "--yes"]);
    snapshot("tenant-create", &said);
    let tenants: serde_json::Value =
        serde_json::from_str(&server.house.read(".systemprompt/tenants.json")).expect("JSON");
    let id = tenants["tenants"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(tenants["selected"], id.as_str());
    let profile = server
        .house
        .read(&format!(".systemprompt/profiles/{id}/profile.yaml"));
    assert!(
        profile.contains("api_server_url: http://acme.localhost"),
        "{profile}"
    );
    let secrets = server
        .house
        .path(&format!(".systemprompt/profiles/{id}/secrets.json"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&secrets).expect("kept").permissions());
    assert_eq!(mode & 0o777, 0o600);
    snapshot("tenant-list", &server.run(&["tenant", "list"]));
    snapshot("tenant-list-json", &server.run(&["tenant", "list", "--json"]));
    snapshot("tenant-show", &server.run(&["tenant", "show"]));
    snapshot(
        "tenant-show-secrets",
        &server.run(&["tenant", "show", "acme", "--secrets"]),
    );
    snapshot(
        "tenant-show-secrets-json",
        &server.run(&["tenant", "show", "--secrets", "--json"]),
    );
    snapshot("tenant-status", &server.run(&["tenant", "status"]));
    snapshot("tenant-events", &server.run(&["tenant", "events"]));
    snapshot(
        "tenant-create-again",
        &server.run(&["tenant", "create", "acme", "--plan", "free", "--yes"]),
    );
    snapshot(
        "tenant-rename",
        &server.run(&["tenant", "edit", "--name", "apex"]),
    );
    snapshot("tenant-show-unknown", &server.run(&["tenant", "show", "nobody"]));
    snapshot("tenant-delete-unasked", &server.run(&["tenant", "delete"]));
    snapshot("tenant-delete", &server.run(&["tenant", "delete", "--yes"]));
    assert!(!secrets.exists());
    snapshot("tenant-show-after", &server.run(&["tenant", "show", &id]));
}

#[test]
fn credentials_are_rotated_into_the_project() {
    let server = Server::start();
    let said = server
        .run(&["tenant", "create", "acme", "--plan", "free", "--yes", "--json"])
        .ok();
    let id = said.json()["tenant"]["id"].as_str().expect("an id").to_owned();
    assert!(!said.stdout.contains("credentials_token"), "{}", said.whole());
    let path = format!(".systemprompt/profiles/{id}/secrets.json");
    let before = server.house.read(&path);
    snapshot(
        "tenant-rotate",
        &server.run(&["tenant", "edit", "--rotate-credentials"]),
    );
    let after = server.house.read(&path);
    assert_ne!(before, after);
}

#[test]
fn secrets_go_in_and_never_come_out() {
    let server = Server::start();
    server.tenant("acme");
    let set = server
        .house
        .feed(&["secrets", "set", "OPENAI_API_KEY"], "sk-hush\n");
    snapshot("secrets-set", &set);
    server.house.put(
        ".env",
        "# ours\nexport A_KEY='one # two'\nB_KEY=\"x\\ny\"\nPORT=1\n",
    );
    snapshot("secrets-import", &server.run(&["secrets", "import", "--stage"]));
    server.house.put("bad.env", "A=1\nB='open\n");
    snapshot(
        "secrets-import-bad",
        &server.run(&["secrets", "import", "bad.env"]),
    );
    let listed = server.run(&["secrets", "list", "--json"]).ok();
    let keys: Vec<String> = listed.json()["secrets"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|secret| secret["key"].as_str().expect("a key").to_owned())
        .collect();
    assert_eq!(keys, ["A_KEY", "B_KEY", "OPENAI_API_KEY"]);
    assert!(!listed.stdout.contains("sk-hush") && !listed.stdout.contains("one # two"));
    snapshot("secrets-list", &server.run(&["secrets", "list"]));
    snapshot("secrets-unset", &server.run(&["secrets", "unset", "A_KEY"]));
    snapshot(
        "secrets-set-reserved",
        &server.house.feed(&["secrets", "set", "DATABASE_URL"], "x"),
    );
}

#[test]
fn what_is_exported_can_be_imported() {
    let server = Server::start();
    server.tenant("acme");
    server
        .house
        .feed(&["secrets", "set", "STRIPE_KEY"], "sk-there")
        .ok();
    let id = server.run(&["tenant", "show", "--json"]).ok().json()["tenant"]["id"].clone();
    let path = format!(
        ".systemprompt/profiles/{}/secrets.json",
        id.as_str().expect("an id")
    );
    let mut kept: serde_json::Value = serde_json::from_str(&server.house.read(&path)).expect("JSON");
    let pem = "-----BEGIN KEY-----\nMII\\E=='\"$x\r\n-----END KEY-----\n";
    kept["openai"] = "sk-here # 1".into();
    kept["signing_key"] = pem.into();
    kept["not a name"] = "x".into();
    server.house.put(&path, &kept.to_string());
    let shown = server.run(&["secrets", "export", "--json"]).ok().json();
    assert_eq!(shown["values"]["OPENAI_API_KEY"], "sk-here # 1");
    assert_eq!(shown["values"]["SIGNING_KEY"], pem);
    assert_eq!(shown["values"]["DATABASE_URL"], kept["database_url"]);
    assert_eq!(shown["missing"], serde_json::json!(["STRIPE_KEY"]));
    snapshot(
        "secrets-export-file",
        &server.run(&["secrets", "export", "--output", "out.env"]),
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(server.house.path("out.env"))
            .expect("written")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let file = server.house.read("out.env");
    assert_eq!(file, server.run(&["secrets", "export"]).ok().stdout);
    assert!(
        file.contains("# STRIPE_KEY= (version 1)\n") && !file.contains("sk-there"),
        "{file}"
    );
    snapshot(
        "secrets-export-there",
        &server.run(&["secrets", "export", "--output", "out.env"]),
    );
    server
        .run(&["secrets", "export", "--output", "out.env", "--yes"])
        .ok();
    // What the platform sets is left out aloud, everything else is set.
    snapshot(
        "secrets-import-exported",
        &server.run(&["secrets", "import", "out.env"]),
    );
    assert!(!server.log().contains("sk-here"));
}

#[test]
fn an_operation_is_shown_and_followed() {
    let server = Server::start();
    let created = server
        .run(&["tenant", "create", "acme", "--plan", "free", "--yes", "--json"])
        .ok();
    let id = created.json()["operation"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    snapshot("operation-show", &server.run(&["operation", "show", &id]));
    snapshot(
        "operation-follow",
        &server.run(&["operation", "show", &id, "--follow"]),
    );
    snapshot("operation-retry-done", &server.run(&["operation", "retry", &id]));
}

#[test]
fn a_tenant_is_only_bought_for_what_is_built() {
    let server = Server::start();
    server.house.put(
        ".systemprompt/config.yaml",
        "artifacts:\n  - path: target/release/app\n    build: cargo build --release\n",
    );
    snapshot(
        "tenant-create-not-built",
        &server.run(&["tenant", "create", "acme", "--plan", "free", "--yes"]),
    );
    server
        .run(&[
            "tenant",
            "create",
            "acme",
            "--plan",
            "free",
            "--yes",
            "--skip-build-check",
        ])
        .ok();
}
