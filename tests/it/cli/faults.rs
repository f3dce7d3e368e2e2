//! Bad input and bad surroundings: every failure says what, why and the next command, and damages nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use crate::cli::answers::snapshot;
use crate::cli::rig::{House, Server, said};
use crate::ports::free_port;

#[test]
fn a_half_written_file_is_named_with_its_place_and_stays() {
    let server = Server::start();
    let broken = "{\n  \"tenants\": [\n    {\"id\": \"ten_0000";
    server.house.put(".systemprompt/tenants.json", broken);
    snapshot("half-written-tenants", &server.run(&["tenant", "list"]));
    // Nothing is bought that could not be written down.
    let said = server.run(&["tenant", "create", "acme", "--plan", "free", "--yes"]);
    snapshot("half-written-tenants-create", &said);
    assert_eq!(server.house.read(".systemprompt/tenants.json"), broken);
    server.house.put(".systemprompt/tenants.json", "{}");
    snapshot("nothing-was-bought", &server.run(&["tenant", "list"]));
}

#[test]
fn an_answer_that_is_missing_names_its_flag() {
    let server = Server::start();
    for arguments in [
        &["tenant"][..],
        &["tenant", "create"],
        &["tenant", "create", "--name", "acme"],
        &["tenant", "delete", "acme"],
        &["tenant", "edit"],
        &["tenant", "show"],
        &["secrets", "list"],
        &["operation", "abandon", "op_00000000000000000000000001"],
    ] {
        if arguments == ["tenant", "delete", "acme"] {
            server.tenant("acme");
        }
        if arguments == ["tenant", "show"] {
            server.house.put(".systemprompt/tenants.json", "{}");
        }
        let said = server.run(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.whole());
        assert!(said.stdout.is_empty(), "{arguments:?}: {}", said.whole());
        assert!(said.stderr.contains("hint: "), "{arguments:?}: {}", said.whole());
        let json = server.run(&[arguments, &["--json"]].concat());
        let document: serde_json::Value =
            serde_json::from_str(json.stderr.lines().last().expect("a line")).expect("JSON");
        assert_eq!(
            document["error"]["exit_code"],
            2,
            "{arguments:?}: {}",
            json.whole()
        );
        assert!(json.stdout.is_empty(), "{arguments:?}: {}", json.whole());
    }
}

#[test]
fn a_disk_that_is_full_leaves_the_old_file() {
    let server = Server::start();
    server.tenant("acme");
    let before = server.house.read(".systemprompt/tenants.json");
    // No file of this process may grow at all: a full disk, as far as a program can see.
    let script = "trap '' XFSZ; ulimit -f 0; exec $PROGRAM tenant edit acme --name apex";
    let said = said(server.house.script(script).output().expect("bash runs"));
    assert_eq!(said.code, Some(1), "{}", said.whole());
    assert!(said.stderr.contains("tenants.json`"), "{}", said.whole());
    assert!(
        said.stderr.contains("what was there before is untouched"),
        "{}",
        said.whole()
    );
    assert_eq!(server.house.read(".systemprompt/tenants.json"), before);
    let left = std::fs::read_dir(server.house.path(".systemprompt")).expect("lists");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with(".tmp-")),
        "{left:?}"
    );
}

#[test]
fn whoever_stops_reading_is_not_told_off() {
    let server = Server::start();
    server.tenant("acme");
    let script = "$PROGRAM tenant events acme | { exec 0<&-; sleep 1; }; echo ${PIPESTATUS[0]}";
    let said = said(server.house.script(script).output().expect("bash runs"));
    assert_eq!(
        (said.stdout.trim(), said.stderr.as_str()),
        ("1", ""),
        "{}",
        said.whole()
    );
}

#[test]
fn a_certificate_that_is_not_trusted_is_said_plainly() {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let port = serve_tls(&authority);
    let house = House::new()
        .with("SYSTEMPROMPT_TOKEN", "spt_x")
        .with("SYSTEMPROMPT_API_URL", &format!("https://localhost:{port}"));
    snapshot("certificate-untrusted", &house.run(&["whoami"]));
    house.put("ca.pem", &authority.cert.pem());
    let said = house.run(&["whoami", "--ca-file", "ca.pem"]).ok();
    assert!(said.stdout.contains("somebody@example.com"), "{}", said.whole());
    house.put("empty.pem", "nothing");
    snapshot("ca-file-empty", &house.run(&["whoami", "--ca-file", "empty.pem"]));
}

/// A server that says who is signed in, whoever asks, with this certificate.
fn serve_tls(authority: &rcgen::CertifiedKey<rcgen::KeyPair>) -> u16 {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(authority.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![authority.cert.der().clone()], key)
        .expect("a configuration");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = rustls::Stream::new(&mut session, &mut socket);
            let mut request = [0_u8; 4096];
            if stream.read(&mut request).is_err() {
                continue;
            }
            let body = r#"{"account_id":"acc_00000000000000000000000001","email":"somebody@example.com","operator":false,
                "scopes":["read"],"tenant_id":null,"credential":"api_token","expires_at":"2030-01-01T00:00:00.000Z"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.flush();
        }
    });
    port
}

#[test]
fn something_else_that_listens_there_is_recognized() {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut request = [0_u8; 4096];
            let _ = socket.read(&mut request);
            let _ =
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
        }
    });
    let house = House::new()
        .with("SYSTEMPROMPT_TOKEN", "spt_x")
        .with("SYSTEMPROMPT_API_URL", &format!("http://127.0.0.1:{port}"));
    snapshot("not-our-server", &house.run(&["whoami"]));
}
