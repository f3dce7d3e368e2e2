//! The reconciler on the real engine: what is taken away by hand comes back, what is not ours stays as it is.

use std::time::{Duration, Instant};

use crate::installation::docker;
use crate::journey::place::{Place, available};
use crate::need;

/// By then a server has compared by itself for the first time; the second time is minutes away.
const OWN_LOOK: Duration = Duration::from_secs(35);

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What `server reconcile` finds, a line each.
fn reconciled(place: &Place, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["server", "reconcile", "--json"];
    arguments.extend_from_slice(more);
    let said = place.project.run(&arguments).ok().json();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let drift = said["drift"].as_array().expect("a list").iter();
    drift
        .map(|one| format!("{} {}", text(&one["kind"]), text(&one["found"])))
        .collect()
}

/// A container without labels, which nobody else removes when the test fails.
struct Stranger(String);

impl Drop for Stranger {
    fn drop(&mut self) {
        docker(&["rm", "--force", &self.0]);
    }
}

#[test]
fn what_is_taken_away_by_hand_comes_back_and_strangers_stay() {
    need!(available());
    let place = Place::start();
    let began = Instant::now();
    let id = place.tenant("shop");
    place.deploy("shop").ok();
    // The server itself compares half a minute after its start: what is seen from here on is not of its doing.
    std::thread::sleep(OWN_LOOK.saturating_sub(began.elapsed()));
    let door = place.door("shop");
    let machine = place.machines(&id).remove(0);
    assert_eq!(door.site()["release"], "1");
    assert_eq!(reconciled(&place, &[]), [] as [&str; 0]);

    // The name is one that the tenant's next release may have, the labels are nobody's.
    let stranger = Stranger(machine.replace("-v1", "-v77"));
    let image = docker(&["inspect", "--format", "{{.Image}}", &machine]);
    docker(&["create", "--name", &stranger.0, image.trim()]);

    docker(&["kill", &machine]);
    assert_eq!(reconciled(&place, &["--dry-run"]), ["machine ended"]);
    assert_ne!(door.get("/").0, 200, "nothing is mended by looking");
    assert_eq!(reconciled(&place, &[]), ["machine ended"]);
    assert_eq!(door.site()["release"], "1");

    docker(&["rm", "--force", &machine]);
    assert_eq!(reconciled(&place, &[]), ["machine missing"]);
    assert_eq!(door.site()["release"], "1");

    let ours = format!("label=io.systemprompt.tenant={id}");
    let networks = docker(&["network", "ls", "--quiet", "--filter", &ours]);
    for network in words(&networks) {
        let names = "{{range .Containers}}{{.Name}} {{end}}";
        for container in words(&docker(&["network", "inspect", "--format", names, &network])) {
            docker(&["network", "disconnect", "--force", &network, &container]);
        }
        docker(&["network", "rm", &network]);
    }
    let mut missing = reconciled(&place, &[]);
    missing.sort();
    assert_eq!(missing, ["network missing", "network missing", "route missing"]);
    assert_eq!(door.site()["release"], "1");
    assert_eq!(reconciled(&place, &[]), [] as [&str; 0]);

    let there = docker(&[
        "ps",
        "--all",
        "--quiet",
        "--filter",
        &format!("name=^{}$", stranger.0),
    ]);
    assert!(!there.trim().is_empty(), "what is not ours is not touched");
}
