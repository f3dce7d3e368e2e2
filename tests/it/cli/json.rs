//! Every command with `--json`: exactly one document on stdout (streams: one object a line), or nothing and one
//! error document as the last line of stderr.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use systemprompt::cli::Cli;

use crate::cli::rig::{Said, Server};

/// What stdout holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    One,
    Lines,
    /// Nothing, and an error document on stderr.
    Error,
}

/// Every command, in an order in which each finds what it needs; `TENANT` and `OPERATION` are filled in.
const CASES: &[(&str, &str, Holds)] = &[
    ("whoami", "", Holds::One),
    ("sessions list", "", Holds::One),
    ("sessions end", "brw_nobody", Holds::Error),
    ("identities list", "", Holds::One),
    ("identities unlink", "idn_nobody", Holds::Error),
    ("tenant create", "acme --plan free --yes", Holds::One),
    ("tenant list", "", Holds::One),
    ("tenant show", "--secrets", Holds::One),
    ("tenant edit", "--memory 512", Holds::One),
    ("tenant select", "TENANT", Holds::One),
    ("tenant status", "", Holds::One),
    ("tenant events", "", Holds::Lines),
    // Nothing runs yet, so these two are refused; that is a document too.
    ("tenant logs", "nobody", Holds::Error),
    ("tenant restart", "", Holds::Error),
    ("tenant metrics", "", Holds::One),
    ("tenant scale", "--memory 256", Holds::One),
    ("tenant environment", "", Holds::One),
    ("tenant resources", "", Holds::One),
    ("tenant retry", "", Holds::Error),
    ("tenant sessions on", "--who accounts", Holds::One),
    ("tenant sessions show", "", Holds::One),
    ("tenant sessions off", "", Holds::One),
    ("tenant trust list", "", Holds::One),
    ("tenant trust add", "--repository acme/shop", Holds::One),
    (
        "tenant trust remove",
        "tru_01m7z1kw9cewxvaysq4q66d7ra",
        Holds::Error,
    ),
    ("tenant members list", "", Holds::One),
    // Nobody has an account of this address, and who is alone cannot go.
    (
        "tenant members add",
        "bob@example.com --role viewer",
        Holds::Error,
    ),
    (
        "tenant members set-role",
        "operator@example.com owner",
        Holds::One,
    ),
    ("tenant members remove", "operator@example.com", Holds::Error),
    ("tenant support open", "--access read --for 1h", Holds::One),
    ("tenant support list", "", Holds::One),
    ("tenant support close", "", Holds::One),
    ("tenant suspend", "", Holds::One),
    ("tenant activate", "", Holds::One),
    // Nothing was deployed yet.
    ("releases list", "", Holds::One),
    ("releases show", "v1", Holds::Error),
    ("releases pin", "v1", Holds::Error),
    ("releases unpin", "v1", Holds::Error),
    ("rollback", "--yes", Holds::Error),
    ("secrets set", "A_KEY --from-file value", Holds::One),
    ("secrets import", "some.env", Holds::One),
    ("secrets export", "", Holds::One),
    ("secrets list", "", Holds::One),
    ("secrets history", "A_KEY", Holds::One),
    // Neither another value nor a release to compare with.
    ("secrets rollback", "A_KEY", Holds::Error),
    ("secrets diff", "", Holds::Error),
    ("secrets unset", "A_KEY", Holds::One),
    ("audit", "--tenant TENANT", Holds::Lines),
    ("operation show", "OPERATION", Holds::One),
    ("operation retry", "OPERATION", Holds::Error),
    ("operation cancel", "OPERATION", Holds::Error),
    ("operation abandon", "OPERATION --yes", Holds::Error),
    ("audit", "", Holds::Lines),
    ("tenant delete", "--yes", Holds::One),
    ("login", "--with-token --store file", Holds::Error),
    ("logout", "", Holds::One),
    ("init", "", Holds::One),
];

/// Commands that other tests look at, and where.
const ELSEWHERE: &[(&str, &str)] = &[
    ("completions", "prints a script for a shell, whatever is asked"),
    ("deploy", "tests/real: needs a Docker Engine"),
    ("doctor", "looks at this machine: its engine, its git"),
    (
        "serve",
        "the rig of these tests reads its document at every start",
    ),
    ("server", "works on the server's own data: tests of the server"),
    ("services", "runs inside a tenant: tests of the runtime"),
];

fn leaves(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
    let children: Vec<_> = command
        .get_subcommands()
        .filter(|child| child.get_name() != "help")
        .collect();
    if children.is_empty() {
        found.insert(path.trim().to_owned());
    }
    for child in children {
        leaves(child, &format!("{path} {}", child.get_name()), found);
    }
}

#[test]
fn every_command_is_known_here() {
    // Two flags of one name are found when the command is run, not when it is built.
    Cli::command().debug_assert();
    let mut all = BTreeSet::new();
    leaves(&Cli::command(), "", &mut all);
    let is_known = |leaf: &str| {
        CASES.iter().any(|(name, _, _)| *name == leaf)
            || ELSEWHERE
                .iter()
                .any(|(name, _)| leaf == *name || leaf.starts_with(&format!("{name} ")))
    };
    let unknown: Vec<&String> = all.iter().filter(|leaf| !is_known(leaf)).collect();
    assert!(unknown.is_empty(), "commands without a case: {unknown:?}");
    let stale: Vec<_> = CASES.iter().filter(|(name, _, _)| !all.contains(*name)).collect();
    assert!(stale.is_empty(), "cases without a command: {stale:?}");
}

#[test]
fn every_command_prints_exactly_one_document() {
    let server = Server::start();
    server.house.put("value", "x");
    server.house.put("some.env", "B_KEY=1\n");
    let (mut tenant, mut operation) = (String::new(), String::new());
    for (name, rest, holds) in CASES {
        let rest = rest.replace("TENANT", &tenant).replace("OPERATION", &operation);
        let arguments: Vec<&str> = name
            .split(' ')
            .chain(rest.split_whitespace())
            .chain(["--json"])
            .collect();
        let said = server.run(&arguments);
        check(name, &said, *holds);
        if *name == "tenant create" {
            let document = said.json();
            tenant = document["tenant"]["id"].as_str().expect("an id").to_owned();
            operation = document["operation"]["id"].as_str().expect("an id").to_owned();
        }
    }
}

#[track_caller]
fn check(name: &str, said: &Said, holds: Holds) {
    let whole = || format!("`{name}`: {}", said.whole());
    match holds {
        Holds::One => {
            assert_eq!(said.code, Some(0), "{}", whole());
            let mut documents =
                serde_json::Deserializer::from_str(&said.stdout).into_iter::<serde_json::Value>();
            let first = documents.next().unwrap_or_else(|| panic!("{}", whole()));
            assert!(first.expect("JSON").is_object(), "{}", whole());
            assert!(documents.next().is_none(), "{}", whole());
        }
        Holds::Lines => {
            assert_eq!(said.code, Some(0), "{}", whole());
            for line in said.stdout.lines() {
                let value: serde_json::Value =
                    serde_json::from_str(line).unwrap_or_else(|_| panic!("{}", whole()));
                assert!(value.is_object(), "{}", whole());
            }
            assert!(said.stdout.lines().count() > 1, "{}", whole());
        }
        Holds::Error => {
            assert_ne!(said.code, Some(0), "{}", whole());
            assert!(said.stdout.is_empty(), "{}", whole());
            let last = said.stderr.lines().last().unwrap_or_default();
            let document: serde_json::Value =
                serde_json::from_str(last).unwrap_or_else(|_| panic!("{}", whole()));
            assert_eq!(
                document["error"]["exit_code"].as_i64(),
                said.code.map(i64::from),
                "{}",
                whole()
            );
        }
    }
}
