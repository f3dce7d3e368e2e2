//! Logs, metrics and sizes of a tenant that counts aloud: what is printed is kept once, whoever dies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::installation::docker;
use crate::journey::load::Load;
use crate::journey::place::{Place, available};
use crate::need;

const SERVE: &str = r#"CMD ["systemprompt", "services", "serve", "--foreground"]"#;
/// Counts on both streams, holds memory when told to, and serves.
const COUNT: &str = r#"CMD ["sh", "-c", "(i=0; while true; do i=$((i+1)); echo count $i; [ $((i%7)) = 0 ] && echo seventh $i >&2; sleep 0.01; done) & [ -n \"$HOLD\" ] && { (head -c 300m /dev/zero; sleep 9999) | tail >/dev/null & }; exec systemprompt services serve --foreground"]"#;

#[test]
fn a_tenant_that_counts_aloud() {
    need!(available());
    let mut place = Place::start();
    let id = place.tenant("shop");
    let dockerfile = place.project.read(".systemprompt/Dockerfile");
    place
        .project
        .put(".systemprompt/Dockerfile", &dockerfile.replace(SERVE, COUNT));
    place.deploy("shop").ok();

    let machine = place.machines(&id).remove(0);
    std::thread::sleep(Duration::from_secs(2));
    docker(&["restart", "--time", "1", &machine]);
    std::thread::sleep(Duration::from_secs(2));
    place.kill();
    std::thread::sleep(Duration::from_secs(1));
    docker(&["restart", "--time", "1", &machine]);
    std::thread::sleep(Duration::from_secs(1));
    place.up();
    let runs = counted(&place, 3);
    println!("runs of v1, and how far each counted: {runs:?}");

    under_load(&place, &id);
    let last = counted(&place, 5);
    println!("runs of all releases: {last:?}");
    assert_eq!(place.machines(&id).len(), 1, "{:?}", place.machines(&id));
    release_command(&place);
    too_small(&place);
}

/// How far each run counted. Panics when a line is missing or there twice, on either stream.
fn counted(place: &Place, runs: usize) -> Vec<(u64, u64)> {
    let began = Instant::now();
    loop {
        let said = place
            .project
            .run(&["tenant", "logs", "shop", "--since", "1h", "--json"])
            .ok();
        let lines: Vec<Value> = said
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let seqs: Vec<u64> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
        assert_eq!(
            seqs,
            (1..=seqs.len() as u64).collect::<Vec<_>>(),
            "numbers have no gap"
        );
        let found = runs_of(&lines, "count ", 1);
        runs_of(&lines, "seventh ", 7);
        if found.len() >= runs {
            assert_eq!(found.len(), runs, "{found:?}");
            return found;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{runs} runs were not seen: {found:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn runs_of(lines: &[Value], word: &str, step: u64) -> Vec<(u64, u64)> {
    // Two releases count side by side for a while.
    let mut by_release: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let text = line["line"].as_str().expect("a line");
        if let Some(number) = text.strip_prefix(word).and_then(|number| number.parse().ok()) {
            by_release
                .entry(line["release"].as_u64().expect("a release"))
                .or_default()
                .push(number);
        }
    }
    let mut runs = Vec::new();
    for (release, numbers) in by_release {
        let mut last = 0;
        for number in numbers {
            if number == step && last > 0 {
                runs.push((release, last));
                last = 0;
            }
            assert_eq!(number, last + step, "v{release}: `{word}{number}` after {last}");
            last = number;
        }
        runs.push((release, last));
    }
    runs
}

/// Another size and a restart while people ask: nobody notices, and everybody is counted.
fn under_load(place: &Place, id: &str) {
    let load = Load::start(&place.door("shop"));
    load.wait_for(100);
    let scaled = place
        .project
        .run(&["tenant", "scale", "shop", "--memory", "512"])
        .ok();
    load.wait_for(100);
    let restarted = place.project.run(&["tenant", "restart", "shop"]).ok();
    load.wait_for(100);
    let tally = load.finish();
    println!(
        "scaled in {:?} and restarted in {:?} under {} requests, {} failed, the longest took {:?}",
        scaled.took,
        restarted.took,
        tally.count,
        tally.failures.len(),
        tally.longest
    );
    assert_eq!(tally.failures, Vec::<String>::new());
    let machine = docker(&[
        "inspect",
        "--format",
        "{{.HostConfig.Memory}}",
        &place.machines(id)[0],
    ]);
    assert_eq!(machine.trim(), (512 * 1024 * 1024).to_string());
    // What the edge has answered is counted exactly, once its last lines are read.
    let began = Instant::now();
    let wanted = tally.count as u64;
    loop {
        let said = place
            .project
            .run(&["tenant", "metrics", "shop", "--json"])
            .ok()
            .json();
        let requests = &said["now"]["requests"];
        let answered = |class: &str| requests["status"][class].as_u64().expect("a number");
        if requests["count"] == wanted && said["now"]["cpu_percent"].is_number() {
            // A third of the load is a POST, which the sample refuses.
            assert_eq!(answered("2xx") + answered("4xx"), wanted, "{said:#}");
            println!("metrics: {}", said["now"]);
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{wanted} requests: {:#}",
            said["now"]
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let said = place
        .project
        .run(&["tenant", "logs", "shop", "--source", "edge", "--tail", "1000"])
        .ok();
    assert!(said.stdout.contains("POST / 405 "), "{}", said.whole());
    println!(
        "{}",
        place.project.run(&["tenant", "metrics", "shop"]).ok().stdout
    );
}

fn release_command(place: &Place) {
    let said = place
        .project
        .run(&["tenant", "logs", "shop", "--source", "release"])
        .ok();
    assert!(said.stdout.contains("database is up to date"), "{}", said.whole());
}

/// A size that does not hold what is used is refused; the old one serves on.
fn too_small(place: &Place) {
    let arguments = ["secrets", "set", "HOLD", "--tenant", "shop"];
    place.project.feed(&arguments, "yes").ok();
    let began = Instant::now();
    loop {
        let said = place
            .project
            .run(&["tenant", "metrics", "shop", "--json"])
            .ok()
            .json();
        if said["now"]["memory_bytes"]
            .as_u64()
            .is_some_and(|used| used > 290 * 1024 * 1024)
        {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{:#}", said["now"]);
        std::thread::sleep(Duration::from_millis(500));
    }
    let said = place
        .project
        .run(&["tenant", "scale", "shop", "--memory", "256"])
        .exits(1);
    for wanted in ["which does not fit into 256 MB", "`shop` has 512 MB as before"] {
        assert!(said.stderr.contains(wanted), "{wanted}: {}", said.whole());
    }
    let status = place
        .project
        .run(&["tenant", "status", "shop", "--json"])
        .ok()
        .json();
    assert_eq!(status["tenant"]["status"], "running", "{status:#}");
    assert_eq!(place.door("shop").get("/readyz").0, 200);
}
