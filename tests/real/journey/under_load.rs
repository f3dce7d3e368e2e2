//! What visitors notice of releases, good and broken: nothing.

use crate::journey::load::{Load, Tally};
use crate::journey::place::{Place, available};
use crate::need;

/// Requests before and after the deploy, so that what it leaves is seen too.
const MORE: usize = 200;

#[test]
fn releases_under_load_lose_no_request() {
    need!(available());
    let place = Place::start();
    let id = place.tenant("shop");
    place.deploy("shop").ok();

    let load = Load::start(&place.door("shop"));
    load.wait_for(MORE);
    place.project.change("second");
    let said = place.deploy("shop").ok();
    load.wait_for(MORE);
    let tally = load.finish();
    println!("a deploy of {:?} under load: {}", said.took, told(&tally));
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(Vec::from_iter(&tally.releases), ["1", "2"]);

    let load = Load::start(&place.door("shop"));
    load.wait_for(MORE);
    place.project.break_it();
    let said = place
        .project
        .run(&["deploy", "--tenant", "shop", "--yes"])
        .exits(9);
    load.wait_for(MORE);
    let tally = load.finish();
    println!("a broken deploy of {:?} under load: {}", said.took, told(&tally));
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(Vec::from_iter(&tally.releases), ["2"]);
    for wanted in ["the flux capacitor is missing", "exit code 3", "v2 serves on"] {
        assert!(said.stderr.contains(wanted), "{wanted}: {}", said.whole());
    }
    let machines = place.machines(&id);
    assert!(
        machines.len() == 1 && machines[0].ends_with("-v2"),
        "nothing of v3 is left: {machines:?}"
    );
    let status = place.project.run(&["tenant", "status", "shop", "--json"]).ok();
    assert_eq!(status.json()["tenant"]["status"], "running", "{}", status.whole());
}

fn told(tally: &Tally) -> String {
    format!(
        "{} requests, {} failed, the longest took {:?}",
        tally.count,
        tally.failures.len(),
        tally.longest
    )
}
