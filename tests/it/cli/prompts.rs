//! Questions on a real terminal, and Ctrl-C in the middle of them.

use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::sys::wait::WaitStatus;
use rexpect::session::PtySession;

use crate::cli::rig::{House, Server};

const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// Waits for the end; answers everything that was not read yet and the exit code.
#[track_caller]
fn ended(mut terminal: PtySession) -> (String, i32) {
    let rest = terminal.exp_eof().expect("it ends");
    match terminal.process().wait() {
        Ok(WaitStatus::Exited(_, code)) => (rest, code),
        other => panic!("{other:?}: {rest}"),
    }
}

#[track_caller]
fn interrupted(mut terminal: PtySession) -> String {
    let device = terminal.process().get_file_handle().expect("the terminal");
    terminal.send_control('c').expect("sends");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 130, "{rest}");
    assert!(rest.contains("error: interrupted"), "{rest}");
    let flags = tcgetattr(&device).expect("a terminal").local_flags;
    assert!(
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON),
        "the terminal is as it was"
    );
    rest
}

#[test]
fn a_token_is_asked_for_without_showing_it() {
    let server = Server::start_unsigned();
    let token = server.token();
    let mut terminal = server
        .house
        .on_terminal(&["login", "--with-token", "--store", "file"]);
    terminal.exp_string("Token").expect("asks");
    std::thread::sleep(std::time::Duration::from_millis(200));
    terminal.send_line(&token).expect("sends");
    terminal.flush().expect("sends");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 0, "{rest}");
    assert!(!rest.contains(&token), "the token is not shown");
    assert!(rest.contains("signed in to"), "{rest}");
}

#[test]
fn ctrl_c_at_a_hidden_prompt_brings_the_echo_back() {
    let house = House::new();
    let mut terminal = house.on_terminal(&["login", "--with-token", "--store", "file"]);
    terminal.exp_string("Token").expect("asks");
    std::thread::sleep(std::time::Duration::from_millis(200));
    interrupted(terminal);
}

#[test]
fn ctrl_c_at_every_kind_of_prompt_shows_the_cursor_and_exits_130() {
    let server = Server::start();
    let ask = |arguments: &[&str], wanted: &str| {
        let mut terminal = server.house.on_terminal(arguments);
        terminal.exp_string(wanted).expect("asks");
        std::thread::sleep(std::time::Duration::from_millis(200));
        terminal
    };
    interrupted(ask(&["tenant"], "What to do?"));
    interrupted(ask(&["tenant", "create"], "Which kind of tenant?"));
    interrupted(ask(
        &["tenant", "create", "--type", "cloud"],
        "Name of the tenant",
    ));
    interrupted(ask(
        &["tenant", "create", "acme", "--type", "cloud"],
        "Which plan?",
    ));
    interrupted(ask(
        &["operation", "abandon", "op_00000000000000000000000001"],
        "Give up",
    ));
    let house = House::new();
    let mut terminal = house.on_terminal(&["login"]);
    terminal.exp_string("There is no keyring").expect("asks");
    interrupted(terminal);
}

#[test]
fn the_cursor_comes_back_after_a_menu() {
    let house = House::new();
    // Escape codes are kept here: the cursor is one.
    let mut terminal = house.on_terminal_with(&["tenant"], false);
    terminal.exp_string("What to do?").expect("asks");
    std::thread::sleep(std::time::Duration::from_millis(200));
    terminal.send_control('c').expect("sends");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 130);
    assert!(rest.contains(SHOW_CURSOR), "{rest:?}");
}

#[test]
fn the_menu_creates_a_tenant_and_writes_it_down_before_it_asks_for_more() {
    let server = Server::start();
    let mut terminal = server.house.on_terminal(&["tenant"]);
    terminal.exp_string("What to do?").expect("asks");
    terminal.send_line("").expect("Create");
    terminal.exp_string("Which kind of tenant?").expect("asks");
    terminal.send_line("").expect("Cloud");
    terminal.exp_string("Name of the tenant").expect("asks");
    terminal.send_line("").expect("the folder's name");
    terminal.exp_string("Which plan?").expect("asks");
    terminal.send_line("").expect("the first plan");
    terminal.exp_string("Deploy to it now?").expect("asks");
    let tenants = server.house.read(".systemprompt/tenants.json");
    assert!(tenants.contains("\"my-project\""), "{tenants}");
    let profiles = std::fs::read_dir(server.house.path(".systemprompt/profiles")).expect("profiles");
    let secrets: Vec<_> = profiles
        .flatten()
        .map(|entry| entry.path().join("secrets.json"))
        .collect();
    assert!(secrets.len() == 1 && secrets[0].exists(), "{secrets:?}");
    terminal.send("n").expect("no");
    terminal.flush().expect("sends");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 0, "{rest}");
}

#[test]
fn a_tenant_is_deleted_only_by_its_name() {
    let server = Server::start();
    server.tenant("acme");
    let mut terminal = server.house.on_terminal(&["tenant", "delete", "acme"]);
    terminal.exp_string("Type its name").expect("asks");
    terminal.send_line("acne").expect("sends");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 1, "{rest}");
    assert!(rest.contains("nothing was removed"), "{rest}");
    let mut terminal = server.house.on_terminal(&["tenant", "delete", "acme"]);
    terminal.exp_string("Type its name").expect("asks");
    terminal.send_line("acme").expect("sends");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 0, "{rest}");
}

#[test]
fn ctrl_c_during_a_wait_prints_the_command_that_takes_it_up() {
    let server = Server::start();
    let delay = systemprompt::server::world::Fault::Delay { millis: 3000 };
    server
        .world()
        .plan("provider.create_volume", 1, delay)
        .expect("plans");
    let arguments = ["tenant", "create", "acme", "--plan", "free", "--yes"];
    let mut terminal = server.house.on_terminal(&arguments);
    terminal.exp_string("Creating").expect("waits");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let rest = interrupted(terminal);
    assert!(rest.contains("systemprompt tenant show ten_"), "{rest}");
    let id = rest.split("systemprompt tenant show ").nth(1).expect("an id");
    let id = id.split_whitespace().next().expect("an id");
    std::thread::sleep(std::time::Duration::from_millis(4500));
    let said = server.run(&["tenant", "show", id, "--secrets"]).ok();
    assert!(said.stdout.contains("postgresql://"), "{}", said.whole());
}

#[test]
fn values_are_not_shown_on_a_terminal_unasked() {
    let server = Server::start();
    server.tenant("acme");
    let mut asked = server.house.on_terminal(&["secrets", "export"]);
    asked.exp_string("Show the values").expect("asks");
    std::thread::sleep(std::time::Duration::from_millis(200));
    asked.send("n").expect("sends");
    asked.flush().expect("sends");
    let unasked = server.house.on_terminal(&["secrets", "export", "--no-input"]);
    for terminal in [asked, unasked] {
        let (rest, code) = ended(terminal);
        assert_eq!(code, 2, "{rest}");
        assert!(
            rest.contains("--output FILE") && !rest.contains("postgresql:"),
            "{rest}"
        );
    }
    let (rest, code) = ended(server.house.on_terminal(&["secrets", "export", "--yes"]));
    assert!(code == 0 && rest.contains("DATABASE_URL=postgresql:"), "{rest}");
}
