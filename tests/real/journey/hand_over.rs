//! Deploys one after the other under a steady load, and what visitors notice: nothing with `rolling`; with `recreate`, a
//! wait that is little longer than what the engine itself needs.
//!
//! `SYSTEMPROMPT_TEST_DEPLOYS=100` makes it a measurement, which needs the machine for itself. Without it a few deploys
//! and a load that leaves room for the tests beside it are enough: what cannot answer so many is no deploy's fault.

use crate::journey::load::{Load, Tally};
use crate::journey::place::{Place, available};
use crate::need;

/// How many deploys, and how many requests a second meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a measurement lasts is said from outside"
)]
fn size() -> (usize, u32) {
    let wanted = std::env::var("SYSTEMPROMPT_TEST_DEPLOYS");
    let wanted = wanted.ok().and_then(|text| text.parse().ok());
    wanted.map_or((3, 60), |deploys| (deploys, 200))
}

fn deploys() -> usize {
    size().0
}

#[test]
fn rolling_releases_keep_nobody_waiting() {
    need!(available());
    let place = Place::start();
    place.tenant("shop");
    place.deploy("shop").ok();
    let (tally, held) = deploy_under_load(&place);
    println!("{} rolling deploys: {}", deploys(), told(&tally));
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(held, []);
}

#[test]
fn releases_that_run_alone_lose_no_request() {
    need!(available());
    let place = Place::start();
    place.tenant("shop");
    place.deploy("shop").ok();
    // Its time is not the engine's.
    let config = place.project.read(".systemprompt/config.yaml");
    let command = "release_command: [systemprompt, services, db, migrate]";
    let alone = config.replace(command, "release_command: []\nstrategy: recreate");
    assert_ne!(alone, config);
    place.project.put(".systemprompt/config.yaml", &alone);

    let (tally, mut held) = deploy_under_load(&place);
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(held.len(), deploys());
    assert!(held.iter().all(|held| held.requests > 0), "{held:?}");
    held.sort_by_key(|held| held.longest_ms);
    let engine = |held: &Held| held.stop_ms + held.start_ms;
    println!("{} deploys alone: {}", deploys(), told(&tally));
    for (which, held) in [
        ("median", held[held.len() / 2]),
        ("longest", held[held.len() - 1]),
    ] {
        println!(
            "{which} wait: {} ms of {} ms; the engine stopped the old and started the new one in {} ms, which answered after {} ms; {} waited",
            held.longest_ms,
            held.held_ms,
            engine(&held),
            held.ready_ms,
            held.requests
        );
    }
}

/// What the operation says of the time in which requests were held.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
struct Held {
    held_ms: u64,
    stop_ms: u64,
    start_ms: u64,
    ready_ms: u64,
    requests: u64,
    longest_ms: u64,
}

fn deploy_under_load(place: &Place) -> (Tally, Vec<Held>) {
    let (times, per_second) = size();
    let load = Load::steady(&place.door("shop"), per_second);
    load.wait_for(100);
    let mut held = Vec::new();
    for _ in 0..times {
        let said = place
            .project
            .run(&[
                "deploy", "--image", "current", "--tenant", "shop", "--yes", "--json",
            ])
            .ok();
        let document = said.json();
        held.extend(serde_json::from_value::<Option<Held>>(document["held"].clone()).expect("what was held"));
    }
    load.wait_for(100);
    (load.finish(), held)
}

fn told(tally: &Tally) -> String {
    format!(
        "{} requests, {} failed, the longest took {:?}",
        tally.count,
        tally.failures.len(),
        tally.longest
    )
}
