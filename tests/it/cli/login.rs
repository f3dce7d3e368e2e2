//! Signing in by the device flow, silent refreshes, signing out, and paying: with somebody at a browser.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use crate::cli::rig::{Server, finish};

const CREDENTIALS: &str = ".systemprompt/credentials.json";

/// Reads stderr up to a line that begins so; answers the rest of that line.
fn wait_for(child: &mut Child, begin: &str) -> String {
    let stderr = child.stderr.take().expect("a pipe");
    let mut reader = BufReader::new(stderr);
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert!(
            reader.read_line(&mut line).expect("reads") > 0,
            "no `{begin}` in: {seen}"
        );
        if let Some(rest) = line.strip_prefix(begin) {
            child.stderr = Some(reader.into_inner());
            return rest.trim().to_owned();
        }
        seen.push_str(&line);
    }
}

/// Signs in as a person does.
fn sign_in(server: &Server) {
    let mut child = server
        .house
        .start(&["login", "--no-browser", "--store", "file", "--json"]);
    let link = wait_for(&mut child, "Confirm it: ");
    let page = server.browser().decide(&link, "approve");
    assert!(page.contains("signed in"), "{page}");
    let said = finish(child).ok();
    assert_eq!(said.json()["email"], Server::EMAIL);
    assert_eq!(said.json()["stored_in"], "file");
}

/// Makes the kept access token look as if it had ended long ago.
fn age(server: &Server) {
    let text = server.house.read(CREDENTIALS);
    let mut kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sessions = kept["servers"].as_object_mut().expect("sessions");
    for session in sessions.values_mut() {
        session["expires_at"] = "2020-01-01T00:00:00.000Z".into();
    }
    server.house.put(CREDENTIALS, &kept.to_string());
}

fn refreshes(server: &Server) -> usize {
    let log = server.log();
    let is_token =
        |line: &&str| line.contains("\"route\":\"/api/v1/oauth/token\"") && line.contains("\"status\":200");
    log.lines().filter(is_token).count()
}

#[test]
fn a_session_is_refreshed_silently_and_by_one_process_only() {
    let server = Server::start_unsigned();
    sign_in(&server);
    let before = refreshes(&server);
    age(&server);
    let children: Vec<Child> = (0..4).map(|_| server.house.start(&["whoami"])).collect();
    for child in children {
        let said = finish(child).ok();
        assert!(said.stdout.contains("with:    session"), "{}", said.whole());
        assert!(said.stderr.is_empty(), "{}", said.whole());
    }
    assert_eq!(refreshes(&server) - before, 1, "four commands, one refresh");
    server.run(&["whoami"]).ok();
}

#[test]
fn a_session_that_was_ended_elsewhere_says_so() {
    let server = Server::start_unsigned();
    sign_in(&server);
    let kept = server.house.read(CREDENTIALS);
    let out = server.run(&["logout", "--json"]).ok();
    assert_eq!(out.json()["revoked"], true);
    server.house.put(CREDENTIALS, &kept);
    let said = server.run(&["whoami"]);
    assert_eq!(said.code, Some(3), "{}", said.whole());
    assert!(said.stderr.contains("has ended"), "{}", said.whole());
    assert!(said.stderr.contains("systemprompt login"), "{}", said.whole());
}

#[test]
fn a_login_that_is_denied_ends_with_3() {
    let server = Server::start_unsigned();
    let mut child = server.house.start(&["login", "--no-browser", "--store", "file"]);
    let link = wait_for(&mut child, "Confirm it: ");
    server.browser().decide(&link, "deny");
    let said = finish(child);
    assert_eq!(said.code, Some(3), "{}", said.whole());
    assert!(!server.house.path(CREDENTIALS).exists());
}

#[test]
fn the_device_flow_on_a_terminal_shows_code_and_link() {
    let server = Server::start_unsigned();
    let mut terminal = server.house.on_terminal(&["login", "--no-browser"]);
    terminal.exp_string("There is no keyring").expect("asks");
    terminal.send("y").expect("yes");
    terminal.flush().expect("sends");
    terminal.exp_string("Your code:  ").expect("shows the code");
    let (_, code) = terminal.exp_regex("[A-Z]{4}-[A-Z]{4}").expect("a code");
    terminal.exp_string("Confirm it: ").expect("shows the link");
    let (_, link) = terminal.exp_regex("http://[^ \r\n]+").expect("a link");
    assert!(link.contains(&code), "{link} {code}");
    server.browser().decide(&link, "approve");
    let rest = terminal.exp_eof().expect("ends");
    assert!(rest.contains("signed in to"), "{rest}");
    server.run(&["whoami"]).ok();
}

#[test]
fn ctrl_c_while_a_login_waits_ends_with_130() {
    let server = Server::start_unsigned();
    let mut terminal = server
        .house
        .on_terminal(&["login", "--no-browser", "--store", "file"]);
    terminal.exp_string("waiting until").expect("waits");
    terminal.send_control('c').expect("sends");
    let rest = terminal.exp_eof().expect("ends");
    assert!(rest.contains("error: interrupted"), "{rest}");
}

#[test]
fn a_plan_that_costs_is_paid_in_the_browser() {
    let server = Server::start();
    let arguments = [
        "tenant",
        "create",
        "acme",
        "--plan",
        "pro",
        "--yes",
        "--no-browser",
        "--json",
    ];
    let mut child = server.house.start(&arguments);
    let link = wait_for(&mut child, "Pay here: ");
    let page = server.browser().press(&link);
    assert!(
        page.starts_with("HTTP/1.1 200") || page.starts_with("HTTP/1.1 303"),
        "{page}"
    );
    let said = finish(child).ok();
    assert_eq!(said.json()["tenant"]["plan"], "pro");
}
