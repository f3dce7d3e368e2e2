//! A release and the way back to it on the real engine: its page, its secrets, its variables, its memory.

use serde_json::Value;

use crate::installation::docker;
use crate::journey::place::{Place, available};
use crate::need;

#[test]
fn a_rollback_restores_the_whole_release() {
    need!(available());
    let place = Place::start();
    let id = place.tenant("shop");
    first(&place);
    second(&place);
    assert_eq!(seen(&place, &id), ["second", "two", "blue", "3", "536870912"]);
    assert_eq!(inside(&place, &id, "NEW_KEY").as_deref(), Some("y"));
    the_plan(&place);
    let said = place
        .project
        .run(&["rollback", "v1", "--tenant", "shop", "--yes"])
        .ok();
    println!("rollback: {:?}", said.took);
    assert!(said.stderr.contains("v1 restored"), "{}", said.whole());
    let number = place.door("shop").site()["release"]
        .as_str()
        .expect("a number")
        .to_owned();
    assert_eq!(seen(&place, &id), ["first", "one", "red", &number, "268435456"]);
    assert_eq!(inside(&place, &id, "NEW_KEY"), None, "v1 had no such secret");
    let (status, body) = place.door("shop").get("/readyz");
    assert_eq!(
        status, 200,
        "the older program works with the newer database: {body}"
    );
    images(&place);
}

/// The page, a secret, a variable of the image, the release and the memory, as the tenant has them.
fn seen(place: &Place, id: &str) -> [String; 5] {
    let (status, page) = place.door("shop").get("/mark.txt");
    assert_eq!(status, 200, "{page}");
    let machines = place.machines(id);
    assert_eq!(machines.len(), 1, "{machines:?}");
    let read = |name: &str| inside(place, id, name).unwrap_or_default();
    let memory = docker(&["inspect", "--format", "{{.HostConfig.Memory}}", &machines[0]]);
    [
        page,
        read("A_KEY"),
        read("COLOUR"),
        read("SYSTEMPROMPT_RELEASE"),
        memory.trim().to_owned(),
    ]
}

/// A variable as the tenant's process has it.
fn inside(place: &Place, id: &str, name: &str) -> Option<String> {
    let machine = place.machines(id).pop().expect("a machine");
    let all = docker(&["exec", &machine, "env"]);
    let own = format!("{name}=");
    all.lines()
        .find_map(|line| line.strip_prefix(&own).map(str::to_owned))
}

fn colour(place: &Place, colour: &str) {
    let dockerfile = place.project.read(".systemprompt/Dockerfile");
    let kept: Vec<&str> = dockerfile
        .lines()
        .filter(|line| !line.starts_with("ENV COLOUR="))
        .collect();
    let text = format!("{}\nENV COLOUR={colour}\n", kept.join("\n"));
    place.project.put(".systemprompt/Dockerfile", &text);
}

fn stage(place: &Place, key: &str, value: &str) {
    place
        .project
        .feed(&["secrets", "set", key, "--tenant", "shop", "--stage"], value)
        .ok();
}

fn release(place: &Place, number: &str) -> Value {
    let said = place
        .project
        .run(&["releases", "show", number, "--tenant", "shop", "--json"]);
    said.ok().json()
}

fn first(place: &Place) {
    place.project.change("first");
    colour(place, "red");
    stage(place, "A_KEY", "one");
    assert_eq!(place.deploy("shop").ok().json()["release"], 1);
    let shown = release(place, "v1");
    let image = &shown["image_config"];
    assert_eq!(image["environment"]["COLOUR"], "red", "{shown:#}");
    assert!(
        image["size_bytes"].as_u64().is_some_and(|size| size > 1_000_000),
        "{shown:#}"
    );
    let applied = shown["migrations"]["applied"].as_array().expect("a mark").len();
    assert!(applied > 0, "{shown:#}");
    assert_eq!(shown["migrations"]["total"], applied, "{shown:#}");
}

fn second(place: &Place) {
    place.project.change("second");
    colour(place, "blue");
    stage(place, "A_KEY", "two");
    stage(place, "NEW_KEY", "y");
    place.project.put(
        "services/migrations/0900_colours.sql",
        "CREATE TABLE colours (name text);\n",
    );
    let edited = ["tenant", "edit", "shop", "--memory", "512"];
    place.project.run(&edited).ok();
    let deployed = place.deploy("shop").ok().json();
    assert_eq!(deployed["release"], 3, "v2 is the change of memory: {deployed}");
}

fn the_plan(place: &Place) {
    let said = place
        .project
        .run(&["rollback", "v1", "--tenant", "shop", "--plan"])
        .ok();
    println!("{}", said.stdout);
    for told in [
        "v3 serves; a rollback restores v1",
        "variable of the image COLOUR",
        "blue -> red",
        "512 MB -> 256 MB",
        "version 2 -> version 1",
        "version 1 -> (none)",
        "warning: v3 applied `0900_colours.sql`; the database stays as it is",
    ] {
        assert!(said.stdout.contains(told), "{told}: {}", said.whole());
    }
}

/// Deploys leave no heap of images behind: what runs, and what was built last.
fn images(place: &Place) {
    for mark in ["third", "fourth", "fifth"] {
        place.project.change(mark);
        place.deploy("shop").ok();
    }
    let all = docker(&[
        "image",
        "ls",
        "--quiet",
        "--no-trunc",
        "--filter",
        &format!(
            "label=io.systemprompt.reference={}",
            release(place, "v1")["image"].as_str().expect("an image")
        ),
    ]);
    let mut ids: Vec<&str> = all.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() <= 2, "{} images: {all}", ids.len());
}
