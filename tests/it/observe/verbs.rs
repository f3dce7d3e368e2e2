//! Scale, environment, resources, events: whole answers, and what is refused.

use crate::cli::answers::snapshot;
use crate::observe::rig::Place;

#[tokio::test(flavor = "multi_thread")]
async fn scaling() {
    let place = Place::empty().await;
    let server = &place.api.server;
    let scale = |memory| server.run(&["tenant", "scale", "acme", "--memory", memory]);
    snapshot("scale-nothing-runs", &scale("512"));
    place.release("first").await;
    snapshot("scale-nonsense", &scale("300"));
    snapshot("scale-too-large", &scale("2048"));
    snapshot("scale-unasked", &server.run(&["tenant", "scale", "acme"]));
    snapshot("scale", &scale("256"));
    snapshot("scale-same", &scale("256"));
    scale("512").ok();
    // What is used does not fit: nothing is started, the size stays.
    let grown = server.world().change(|state| {
        let machine = state.machines.get_mut("sp-fake-acme-v3")?;
        machine.memory_bytes = 300_000_000;
        Some(())
    });
    grown.expect("a world").expect("a machine");
    snapshot("scale-in-use", &scale("256"));
    let tenant = server.run(&["tenant", "show", "acme", "--json"]).ok().json();
    assert_eq!(tenant["tenant"]["memory_mb"], 512, "{tenant:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_runbook() {
    let place = Place::running().await;
    let server = &place.api.server;
    snapshot("environment", &server.run(&["tenant", "environment", "acme"]));
    snapshot("resources", &server.run(&["tenant", "resources", "acme"]));
    snapshot("restart", &server.run(&["tenant", "restart", "acme"]));
    snapshot(
        "resources-all",
        &server.run(&["tenant", "resources", "acme", "--all"]),
    );
    let json = server.run(&["tenant", "resources", "acme", "--json"]).ok().json();
    assert!(
        json["resources"].as_array().is_some_and(|all| all.len() > 4),
        "{json:#}"
    );
    snapshot(
        "events-since",
        &server.run(&["tenant", "events", "acme", "--since", "20", "--json"]),
    );
    snapshot(
        "events-future",
        &server.run(&["tenant", "events", "acme", "--since", "900"]),
    );
    snapshot(
        "events-future-follow",
        &server.run(&["tenant", "events", "acme", "--since", "900", "--follow"]),
    );
    snapshot(
        "events-nonsense",
        &server.run(&["tenant", "events", "acme", "--since", "-1"]),
    );
}
