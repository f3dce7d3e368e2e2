//! What may enter the dependency tree: the lists of `deny.toml`, checked from `cargo metadata` without network.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it must be"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// One crate of the build.
struct Package {
    name: String,
    version: String,
    licence: String,
    /// What cargo writes behind the version of a crate that is not from the registry.
    elsewhere: Option<String>,
}

/// What a build for this platform compiles. `cargo tree` and not `cargo metadata`, which also lists optional crates
/// that no feature turns on.
fn shipped_packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,build",
            "--all-features",
        ])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let packages: Vec<Package> = lines.iter().map(|line| package(line)).collect();
    assert!(
        packages.len() > 100,
        "`cargo tree` printed only {} crates",
        packages.len()
    );
    packages
}

fn package(line: &str) -> Package {
    let (package, licence) = line.split_once('|').expect("the format asked for");
    let mut words = package.splitn(3, ' ');
    let name = words.next().expect("a name").to_owned();
    let version = words
        .next()
        .expect("a version")
        .trim_start_matches('v')
        .to_owned();
    let elsewhere = words
        .next()
        .filter(|rest| *rest != "(proc-macro)")
        .map(str::to_owned);
    Package {
        name,
        version,
        licence: licence.to_owned(),
        elsewhere,
    }
}

/// The strings of one array of `deny.toml`: for tables, what stands behind `crate =`.
fn deny_list(section: &str, key: &str) -> BTreeSet<String> {
    let text = include_str!("../deny.toml");
    let section = text
        .split(&format!("\n[{section}]\n"))
        .nth(1)
        .expect("the section");
    let section = section.split("\n[").next().expect("its body");
    let array = section.split(&format!("\n{key} = [\n")).nth(1).or_else(|| {
        // The first key of a section has no line break before it.
        section.strip_prefix(&format!("{key} = [\n"))
    });
    let array = array.expect("the key").split("\n]").next().expect("its end");
    array
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect()
}

/// Whether a licence expression can be met from `allowed`: `OR` needs one side, `AND` both (SPDX annex D; old crates write `/`).
fn licence_is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    let tokens: Vec<String> = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let mut position = 0;
    let met = any_of(&tokens, &mut position, allowed);
    assert_eq!(
        position,
        tokens.len(),
        "`{expression}` is not a licence expression that this test reads"
    );
    met
}

fn any_of(tokens: &[String], position: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = all_of(tokens, position, allowed);
    while tokens.get(*position).is_some_and(|token| token == "OR") {
        *position += 1;
        met |= all_of(tokens, position, allowed);
    }
    met
}

fn all_of(tokens: &[String], position: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(tokens, position, allowed);
    while tokens.get(*position).is_some_and(|token| token == "AND") {
        *position += 1;
        met &= one(tokens, position, allowed);
    }
    met
}

fn one(tokens: &[String], position: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let token = &tokens[*position];
    *position += 1;
    if token == "(" {
        let met = any_of(tokens, position, allowed);
        *position += 1;
        return met;
    }
    let mut met = allowed.contains(token);
    if tokens.get(*position).is_some_and(|token| token == "WITH") {
        // An exception only widens what a licence permits, but it is another licence: it must be listed whole.
        met = allowed.contains(&format!("{token} WITH {}", tokens[*position + 1]));
        *position += 2;
    }
    met
}

#[test]
fn licence_expressions_are_read_as_written() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("MIT WITH Some-exception", false),
    ] {
        assert_eq!(licence_is_met(expression, &allowed), met, "{expression}");
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed = deny_list("licenses", "allow");
    for Package {
        name,
        version,
        licence,
        ..
    } in shipped_packages()
    {
        assert!(
            licence_is_met(&licence, &allowed),
            "{name} {version} is under `{licence}`; deny.toml allows {allowed:?}"
        );
    }
}

#[test]
fn no_crate_is_banned_or_from_elsewhere() {
    let banned = deny_list("bans", "deny");
    for Package { name, elsewhere, .. } in shipped_packages() {
        assert!(
            !banned.contains(&name),
            "deny.toml bans `{name}`; `cargo tree -i {name}` shows who brings it"
        );
        assert!(
            name == env!("CARGO_PKG_NAME") || elsewhere.is_none(),
            "`{name}` comes from {elsewhere:?}; only the registry is allowed"
        );
    }
}

#[test]
fn every_duplicate_is_listed_and_every_listing_is_a_duplicate() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Package { name, version, .. } in shipped_packages() {
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let skipped = deny_list("bans", "skip");
    for (name, versions) in &versions {
        let listed = versions
            .iter()
            .filter(|version| skipped.iter().any(|skip| covers(skip, name, version)))
            .count();
        assert_eq!(
            listed + 1,
            versions.len(),
            "`{name}` is compiled as {versions:?}: update one of those who bring it (`cargo tree -d`), or list all but one in deny.toml with the reason"
        );
    }
    for skip in &skipped {
        let used = versions
            .iter()
            .any(|(name, versions)| versions.iter().any(|version| covers(skip, name, version)));
        assert!(
            used,
            "deny.toml skips `{skip}`, which is no duplicate any more: remove it"
        );
    }
}

fn covers(skip: &str, name: &str, version: &str) -> bool {
    skip.split_once('@').is_some_and(|(skip_name, skip_version)| {
        skip_name == name && (version == skip_version || version.starts_with(&format!("{skip_version}.")))
    })
}
