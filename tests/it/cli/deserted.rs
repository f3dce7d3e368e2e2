//! The server goes away in the middle of a deploy and does not come back: the command ends, and says what to do.

use std::process::Command;
use std::time::{Duration, Instant};

use systemprompt::server::world::Fault;

use crate::cli::rig::{Said, finish_within};
use crate::observe::rig::Place;

const DEPLOY: [&str; 6] = ["deploy", "--image", "current", "--tenant", "acme", "--yes"];
/// For so long it hopes that the server comes back; a question without an answer may take half a minute more.
const HOPE: Duration = Duration::from_secs(120);
const AT_MOST: Duration = Duration::from_secs(190);

/// Deploys, and lets `away` happen to the server while the new release gets ready.
async fn deserted(away: impl FnOnce(&mut Place)) -> (Place, Said, Duration) {
    let mut place = Place::running().await;
    let world = place.api.server.world();
    let slow = Fault::Delay { millis: 3000 };
    world.plan("provider.probe", 1, slow).expect("planned");
    let before = world.calls("provider.probe").expect("the world");
    let child = place.api.server.house.start(&DEPLOY);
    while world.calls("provider.probe").expect("the world") == before {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It has begun to follow.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    away(&mut place);
    let said = tokio::task::spawn_blocking(move || finish_within(child, AT_MOST))
        .await
        .expect("it ends");
    (place, said, began.elapsed())
}

fn is_told(said: &Said, took: Duration) -> String {
    assert_eq!(said.code, Some(11), "{}", said.whole());
    assert!(
        (HOPE..AT_MOST).contains(&took),
        "after {took:?}: {}",
        said.whole()
    );
    assert!(said.stderr.contains("still trying"), "{}", said.whole());
    assert!(said.stderr.contains("when it is back"), "{}", said.whole());
    let id = said
        .stderr
        .split("systemprompt operation show ")
        .nth(1)
        .expect("a command");
    id.split_whitespace().next().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_whose_server_is_gone_for_good_ends_and_says_what_to_do() {
    let (mut place, said, took) = deserted(|place| place.api.server.kill()).await;
    let id = is_told(&said, took);
    place.api.server.up();
    let shown = place.api.server.run(&["operation", "show", &id, "--follow"]).ok();
    assert!(shown.whole().contains("succeeded"), "{}", shown.whole());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_whose_server_says_nothing_any_more_ends_and_says_what_to_do() {
    let signal = |name: &str, place: &Place| {
        let process = place.api.server.process(0).to_string();
        let told = Command::new("kill").args([name, &process]).status();
        assert!(told.expect("`kill` runs").success());
    };
    let (place, said, took) = deserted(|place| signal("-STOP", place)).await;
    let id = is_told(&said, took);
    signal("-CONT", &place);
    let shown = place.api.server.run(&["operation", "show", &id, "--follow"]).ok();
    assert!(shown.whole().contains("succeeded"), "{}", shown.whole());
}
