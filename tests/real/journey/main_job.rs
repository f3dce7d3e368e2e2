//! Signing in, a tenant, releases, secrets, and the end of it all: what one person does, on the real thing.

use std::time::Duration;

use serde_json::Value;

use crate::installation::docker;
use crate::journey::place::{Place, available};
use crate::need;

#[test]
fn a_tenant_from_its_creation_to_its_receipt() {
    need!(available());
    let place = Place::start();
    let id = place.tenant("shop");
    first_release(&place, &id);
    nothing_new(&place);
    second_release(&place);
    seen_from_outside(&place, &id);
    a_secret(&place, &id);
    let said = place.project.run(&["tenant", "restart", "shop"]).ok();
    assert!(said.stderr.contains("restarted"), "{}", said.whole());
    assert_eq!(place.machines(&id).len(), 1, "{:?}", place.machines(&id));
    assert_eq!(place.door("shop").get("/readyz").0, 200);
    the_end(&place, &id);
}

fn visits(place: &Place) -> i64 {
    place.door("shop").site()["visits"]["total"]
        .as_i64()
        .expect("a number")
}

fn first_release(place: &Place, id: &str) {
    let said = place.deploy("shop").ok();
    println!("first deploy: {:?}", said.took);
    let document = said.json();
    assert_eq!(document["release"], 1, "{document}");
    assert_eq!(document["unchanged"], false, "{document}");
    let door = place.door("shop");
    assert_eq!(document["url"], door.url(""), "{document}");

    let before = visits(place);
    let (status, page) = door.get("/");
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("<dd id=\"release\">v1</dd>"), "{page}");
    assert!(page.contains(id), "{page}");
    door.get("/");
    assert_eq!(visits(place), before + 2, "every page is counted");
    let site = door.site();
    assert_eq!(site["release"], "1", "{site}");
    assert_eq!(site["tenant"]["name"], "shop", "{site}");
    assert!(
        site["agents"].as_array().is_some_and(|agents| agents.len() == 3),
        "{site}"
    );

    // The count is where it should be: in the tenant's own database, and nowhere else.
    let database = place.sql(
        "postgres",
        "SELECT datname FROM pg_database WHERE datname LIKE 't\\_%'",
    );
    assert!(
        database.starts_with("t_") && !database.contains('\n'),
        "{database}"
    );
    let counted = place.sql(&database, "SELECT sum(count) FROM visits");
    assert_eq!(counted, (before + 2).to_string());
}

fn nothing_new(place: &Place) {
    let said = place.deploy("shop").ok();
    println!("deploy without a change: {:?}", said.took);
    let document = said.json();
    assert_eq!(document["unchanged"], true, "{document}");
    assert_eq!(document["release"], 1, "{document}");
    assert!(said.stderr.contains("nothing has changed"), "{}", said.whole());
    for word in ["uild", "ush"] {
        let told = said.stderr.lines().filter(|line| !line.starts_with("hint"));
        assert!(
            !told.into_iter().any(|line| line.contains(word)),
            "nothing is built or pushed: {}",
            said.whole()
        );
    }
    assert!(said.took < Duration::from_secs(5), "{:?}", said.took);
}

fn second_release(place: &Place) {
    let before = visits(place);
    place.project.change("second");
    let arguments = ["deploy", "--tenant", "shop", "--yes", "--message", "a mark"];
    let said = place.project.run(&arguments).ok();
    println!("deploy of a change: {:?}", said.took);
    assert_eq!(
        said.stdout.trim(),
        place.door("shop").url(""),
        "the address and nothing else: {}",
        said.whole()
    );
    assert!(said.stderr.contains("v2 started beside v1"), "{}", said.whole());
    let door = place.door("shop");
    assert_eq!(door.get("/mark.txt"), (200, "second".to_owned()));
    let site = door.site();
    assert_eq!(site["release"], "2", "{site}");
    assert_eq!(visits(place), before, "the data stayed");
}

fn seen_from_outside(place: &Place, id: &str) {
    let said = place.project.run(&["tenant", "status", "shop", "--json"]).ok();
    let report = said.json();
    for part in ["machine", "database", "edge", "certificate"] {
        assert_eq!(report[part]["state"], "ok", "{part}: {report:#}");
    }
    assert_eq!(report["tenant"]["status"], "running", "{report:#}");
    assert_eq!(report["release"]["number"], 2, "{report:#}");
    assert!(report["current_operation"].is_null(), "{report:#}");

    let said = place
        .project
        .run(&["tenant", "logs", "shop", "--tail", "50"])
        .ok();
    assert!(said.stdout.contains("listening on"), "{}", said.whole());

    let machines = place.machines(id);
    assert_eq!(machines.len(), 1, "the old release is gone: {machines:?}");
    let ports = docker(&["port", &machines[0]]);
    assert_eq!(ports.trim(), "", "a tenant publishes no port");
}

fn a_secret(place: &Place, id: &str) {
    let value = "the cake is a lie";
    let arguments = ["secrets", "set", "GREETING", "--tenant", "shop"];
    let said = place.project.feed(&arguments, value).ok();
    assert!(!said.whole().contains(value), "{}", said.whole());
    let machines = place.machines(id);
    assert_eq!(machines.len(), 1, "{machines:?}");
    let seen = docker(&["exec", &machines[0], "printenv", "GREETING"]);
    assert_eq!(seen.trim(), value);
    let listed = place.project.run(&["secrets", "list", "--tenant", "shop"]).ok();
    assert!(listed.stdout.contains("GREETING"), "{}", listed.whole());
    assert!(!listed.whole().contains(value), "{}", listed.whole());
    assert!(!place.log().contains(value), "the server's log holds no secret");
    assert_eq!(place.door("shop").site()["release"], "3");
}

fn the_end(place: &Place, id: &str) {
    assert!(place.on_engine(id).len() >= 4, "{:?}", place.on_engine(id));
    let said = place
        .project
        .run(&["tenant", "delete", "shop", "--yes", "--json"])
        .ok();
    let document = said.json();
    assert_eq!(place.on_engine(id), Vec::<String>::new());
    let like = "LIKE 't\\_%'";
    let left = place.sql(
        "postgres",
        &format!("SELECT datname FROM pg_database WHERE datname {like} UNION SELECT rolname FROM pg_roles WHERE rolname {like}"),
    );
    assert_eq!(left, "", "no database and no role");

    let receipt = &document["receipt"];
    let resources = receipt["resources"].as_array().expect("a receipt");
    for kind in [
        "network",
        "volume",
        "database",
        "database-role",
        "machine",
        "image",
        "secret",
        "data-key",
    ] {
        let of_kind = |line: &&Value| line["kind"] == kind;
        assert!(resources.iter().any(|line| of_kind(&line)), "{kind}: {receipt:#}");
    }
    for line in resources {
        let found = line["found"].as_str();
        assert!(matches!(found, Some("absent" | "expires")), "{line}");
    }
    assert_eq!(place.door("shop").get("/").0, 404);
    let tenants = place.project.read(".systemprompt/tenants.json");
    assert!(!tenants.contains(id), "{tenants}");
    assert!(
        !place
            .project
            .path(&format!(".systemprompt/profiles/{id}"))
            .exists()
    );
}
