//! A first release that is broken, a person at a terminal, and a server that dies at work.

use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use nix::sys::wait::WaitStatus;
use rexpect::session::PtySession;

use crate::journey::place::{Place, available};
use crate::need;

/// Waits for the end; answers everything that was not read yet and the exit code.
#[track_caller]
fn ended(mut terminal: PtySession) -> (String, i32) {
    let rest = terminal.exp_eof().expect("it ends");
    match terminal.process().wait() {
        Ok(WaitStatus::Exited(_, code)) => (rest, code),
        other => panic!("{other:?}: {rest}"),
    }
}

#[test]
fn a_person_whose_first_release_is_broken_and_whose_server_dies() {
    need!(available());
    let mut place = Place::start();
    let id = at_a_terminal(&place);
    place.project.mend_it();
    let said = place.deploy("shop").ok();
    assert_eq!(said.json()["release"], 2, "{}", said.whole());
    assert_eq!(place.door("shop").site()["release"], "2");
    killed(&mut place, &id);
}

/// Creates the tenant by answering questions, and deploys to it when asked: what is broken is said there.
fn at_a_terminal(place: &Place) -> String {
    place.project.break_it();
    let mut terminal = place.project.on_terminal(&["tenant", "create"]);
    for (question, answer) in [
        ("Which kind of tenant?", ""),
        ("Name of the tenant", ""),
        ("Which plan?", ""),
    ] {
        terminal.exp_string(question).expect("asks");
        // The question is drawn before its keys are read.
        std::thread::sleep(std::time::Duration::from_millis(200));
        terminal.send_line(answer).expect("answers");
    }
    terminal.exp_string("Deploy to it now?").expect("asks");
    let tenants = place.project.read(".systemprompt/tenants.json");
    let tenants: serde_json::Value = serde_json::from_str(&tenants).expect("JSON");
    let id = tenants["tenants"][0]["id"].as_str().expect("an id").to_owned();
    let secrets = format!(".systemprompt/profiles/{id}/secrets.json");
    assert!(
        place.project.read(&secrets).contains("postgresql://"),
        "written before anything else is asked"
    );
    let mode = std::fs::metadata(place.project.path(&secrets))
        .expect("secrets")
        .mode();
    assert_eq!(mode & 0o777, 0o600, "for nobody else");
    terminal.send("y").expect("answers");
    terminal.flush().expect("answers");
    let (rest, code) = ended(terminal);
    assert_eq!(code, 10, "nothing serves: {rest}");
    for wanted in ["the flux capacitor is missing", "no release has served yet"] {
        assert!(rest.contains(wanted), "{wanted}: {rest}");
    }
    assert_eq!(place.machines(&id), Vec::<String>::new());
    id
}

/// Kills the server in the middle of a deploy, twice, at different steps: the command line goes on waiting, and the
/// work is done once.
fn killed(place: &mut Place, id: &str) {
    for (release, at) in [(3, "release v3 is made"), (4, "v4 started beside v3")] {
        place.project.change(&format!("for v{release}"));
        let mut deploy = place
            .project
            .start(&["deploy", "--tenant", "shop", "--yes", "--json"], "");
        deploy.says(at);
        let killed = Instant::now();
        place.kill();
        // Whoever asks while the server is away is served by the release that serves.
        assert_eq!(place.door("shop").site()["release"], (release - 1).to_string());
        deploy.says("still trying");
        let back = Instant::now();
        place.up();
        let up = back.elapsed();
        let said = deploy.finish().ok();
        println!(
            "a deploy of {:?} whose server was away for {:?} of it: {up:?} to start, {:?} from there to the end",
            said.took,
            back.duration_since(killed) + up,
            back.elapsed() - up
        );
        assert_eq!(said.json()["release"], release, "{}", said.whole());
        let machines = place.machines(id);
        assert!(
            machines.len() == 1 && machines[0].ends_with(&format!("-v{release}")),
            "{machines:?}"
        );
        let (status, mark) = place.door("shop").get("/mark.txt");
        assert_eq!((status, mark), (200, format!("for v{release}")));
    }
}
