//! The cases of the OCI distribution conformance program, under the names that it gives them.
//!
//! They run with the server's own credential, which may write any tag and remove; what a tenant's credential may
//! not do is tested beside.

use std::collections::BTreeSet;

use reqwest::Method;
use systemprompt::server::registry::GateAccess;

use crate::gate::harness::{Answer, Client, World};
use crate::gate::{blobs, contents};

const NAMES: &str = include_str!("../../data/oci/conformance-1.1.txt");

/// Which cases ran, and which of them failed.
pub(crate) struct Run {
    pub(crate) client: Client,
    ran: BTreeSet<String>,
    failed: Vec<String>,
}

impl Run {
    /// Notes one case: `Err` says what was not as it must be.
    pub(crate) fn note(&mut self, name: &str, result: Result<(), String>) {
        self.ran.insert(name.to_owned());
        if let Err(why) = result {
            self.failed.push(format!("{name}: {why}"));
        }
    }
}

/// `Err` that names what was expected, what came, and the answer.
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
    answer: &Answer,
) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => {
            let text: String = answer.text().chars().take(200).collect();
            Err(format!(
                "{what} is {found:?}, not {expected:?} ({} {text})",
                answer.status
            ))
        }
    }
}

#[tokio::test]
async fn every_case_of_the_conformance_program_passes() {
    let world = World::start().await;
    let client = world.client(&world.tenant(), GateAccess::Manage).await;
    let mut run = Run {
        client,
        ran: BTreeSet::new(),
        failed: Vec::new(),
    };
    let ping = run.client.get("/v2/").await;
    run.note("ping", expect("status", ping.status, 200, &ping));
    empty(&mut run).await;
    for algorithm in blobs::ALGORITHMS {
        blobs::all(&mut run, &algorithm).await;
    }
    contents::all(&mut run).await;
    assert!(
        run.failed.is_empty(),
        "{} cases failed:\n{}",
        run.failed.len(),
        run.failed.join("\n")
    );
    let missing: Vec<&str> = NAMES.lines().filter(|name| !run.ran.contains(*name)).collect();
    assert!(
        missing.is_empty(),
        "{} cases did not run:\n{}",
        missing.len(),
        missing.join("\n")
    );
    assert_eq!(
        world.files(),
        Vec::<String>::new(),
        "the cases remove what they pushed"
    );
}

async fn empty(run: &mut Run) {
    let tags = run.client.get("tags/list").await;
    run.note(
        "empty/tag list",
        expect("tags", &tags.json()["tags"], &serde_json::json!([]), &tags),
    );
    let digest = format!("sha256:{}", "1".repeat(64));
    let referrers = run.client.get(&format!("referrers/{digest}")).await;
    let found = expect(
        "manifests",
        &referrers.json()["manifests"],
        &serde_json::json!([]),
        &referrers,
    );
    run.note(
        "empty/referrers",
        found.and(expect("status", referrers.status, 200, &referrers)),
    );
    for (name, reference) in [("by-digest", digest.as_str()), ("by-tag", "nothing")] {
        let answer = run.client.get(&format!("manifests/{reference}")).await;
        run.note(
            &format!("missing-manifest/{name}"),
            expect("status", answer.status, 404, &answer),
        );
    }
    let malformed = "sha256:0123456789abcdef";
    let answer = run.client.get(&format!("manifests/{malformed}")).await;
    run.note(
        "invalid-digest-format/manifest-get",
        expect("status", answer.status, 400, &answer),
    );
    let answer = run
        .client
        .ask(Method::PUT, &format!("manifests/{malformed}"))
        .await;
    run.note(
        "invalid-digest-format/manifest-put",
        expect("status", answer.status, 400, &answer),
    );
}
