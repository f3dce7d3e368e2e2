//! The main job from end to end: the real program, the real server, the real engine, database and edge.

mod house;
mod load;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::journey::house::House;
use crate::journey::load::Load;
use crate::need;

#[test]
fn a_project_is_created_deployed_changed_broken_and_deleted() {
    need!(House::available());
    let house = House::start();

    house
        .run(&["tenant", "create", "acme", "--plan", "free", "--yes"])
        .ok();
    assert!(!house.run(&["tenant", "list"]).ok().stdout.is_empty());
    let first = house.deploy(&[]).ok();
    assert_eq!(
        first.stdout.trim(),
        house.url("acme"),
        "the last line is the address: {}",
        first.whole()
    );

    let page = house.get("acme", "/");
    assert!(page.contains("<dd id=\"release\">v1</dd>"), "{page}");
    assert!(
        page.contains("<dd id=\"visits-total\">1</dd>"),
        "counted in the tenant's own database: {page}"
    );
    assert!(page.contains(&house.tenant_id("acme")), "{page}");

    unchanged_files_are_not_sent_again(&house);
    a_second_release_loses_no_request(&house);
    a_broken_release_loses_no_request_and_leaves_the_old_one(&house);
    a_secret_reaches_the_next_release_and_nothing_else(&house);

    let visits = house.get("acme", "/api/v1/site");
    assert!(!visits.contains("\"visits\":null"), "{visits}");
    house.run(&["tenant", "delete", "acme", "--yes"]).ok();
    assert_eq!(
        house.leftovers("acme"),
        [""; 0],
        "everything of the tenant is gone"
    );
}

fn unchanged_files_are_not_sent_again(house: &House) {
    let begin = Instant::now();
    let again = house.deploy(&[]).ok();
    assert!(again.stderr.contains("nothing has changed"), "{}", again.whole());
    assert!(!again.stderr.contains("Pushing"), "{}", again.whole());
    // Under a second on an idle machine; the bound is for a busy one.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(house.get("acme", "/").contains("<dd id=\"release\">v1</dd>"));
}

fn a_second_release_loses_no_request(house: &House) {
    house.append("web/dist/site.css", "/* changed */\n");
    let load = Load::start(house.edge_port(), "acme");
    let second = house.deploy(&["--message", "a new style"]).ok();
    let lost = load.stop();
    assert!(
        second.stderr.contains("v2 started beside v1"),
        "{}",
        second.whole()
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(house.get("acme", "/").contains("<dd id=\"release\">v2</dd>"));
    assert!(house.get("acme", "/site.css").contains("/* changed */"));
}

fn a_broken_release_loses_no_request_and_leaves_the_old_one(house: &House) {
    let entrypoint = house.read(".systemprompt/entrypoint.sh");
    // It migrates, as the release command asks it to, and then cannot serve.
    let broken = entrypoint.replace(
        "exec \"$@\"",
        "case \"$*\" in *serve*) echo 'the cable is not plugged in'; exit 3 ;; esac\nexec \"$@\"",
    );
    assert_ne!(broken, entrypoint);
    house.put(".systemprompt/entrypoint.sh", &broken);
    let load = Load::start(house.edge_port(), "acme");
    let third = house.deploy(&[]);
    let lost = load.stop();
    assert_eq!(third.code, Some(9), "{}", third.whole());
    assert!(
        third.stderr.contains("the cable is not plugged in"),
        "the release's last lines: {}",
        third.whole()
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(
        house.get("acme", "/").contains("<dd id=\"release\">v2</dd>"),
        "the old release serves on"
    );
    house.put(".systemprompt/entrypoint.sh", &entrypoint);
}

fn a_secret_reaches_the_next_release_and_nothing_else(house: &House) {
    const VALUE: &str = "sk-journey-0123456789";
    let set = house
        .feed(&["secrets", "set", "OPENAI_API_KEY", "--tenant", "acme"], VALUE)
        .ok();
    assert!(!set.whole().contains(VALUE), "{}", set.whole());
    let machine = house.machine("acme");
    let environment = house.docker(&["exec", &machine, "printenv", "OPENAI_API_KEY"]);
    assert_eq!(environment.trim(), VALUE);
    let listed = house.run(&["secrets", "list", "--tenant", "acme"]).ok();
    assert!(listed.stdout.contains("OPENAI_API_KEY"), "{}", listed.whole());
    assert!(!listed.stdout.contains(VALUE), "{}", listed.whole());
    assert!(!house.log().contains(VALUE), "the server's log holds no secret");
}

#[test]
fn a_tenant_is_created_by_answering_questions() {
    need!(House::available());
    let house = House::start();
    let mut terminal = house.on_terminal(&["tenant", "create"]);
    for (question, answer) in [
        // The first of each list.
        ("Which kind of tenant?", "\r"),
        ("Name of the tenant", "by-hand\r"),
        ("Which plan?", "\r"),
    ] {
        terminal
            .exp_string(question)
            .unwrap_or_else(|error| panic!("{question}: {error}"));
        std::thread::sleep(Duration::from_millis(300));
        terminal.send(answer).expect("sends");
        terminal.flush().expect("sends");
    }
    terminal.exp_string("is ready").expect("the tenant is made");
    let made = house.run(&["tenant", "show", "by-hand", "--json"]).ok();
    assert!(made.stdout.contains("\"awaiting_deploy\""), "{}", made.whole());
    let secrets = house.project().join(".systemprompt/profiles");
    assert!(
        secrets_are_private(&secrets),
        "its credentials are on the disk, for nobody else"
    );
}

fn secrets_are_private(profiles: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = false;
    for profile in std::fs::read_dir(profiles).expect("profiles") {
        let secrets = profile.expect("an entry").path().join("secrets.json");
        let metadata = std::fs::metadata(&secrets).expect("secrets.json");
        assert_eq!(
            metadata.permissions().mode() & 0o777,
            0o600,
            "{}",
            secrets.display()
        );
        found = true;
    }
    found
}
