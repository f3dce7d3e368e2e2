//! The layers of the source, checked: who imports whom, what a file must say, what may not be written where.

#![expect(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it must be"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may import whom. A folder that has no line here fails the test: give it a place before giving it code.
/// `crate::server::x::Y` belongs to `server::x`. Every layer may import itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("api", &[]),
    // In tests only: every layer's parsers may be fed by it.
    ("mutation", &[]),
    // The client has the clock: when a token ends is a question of this machine's time.
    ("client", &["api", "server::clock"]),
    ("workspace", &["api"]),
    ("image", &["api"]),
    ("runtime", &["api"]),
    ("cli", &["api", "client", "workspace", "image", "server::clock"]),
    ("server::clock", &["api"]),
    // The socket, TLS, and whose word about callers counts.
    ("server::front", &["api", "server::listening"]),
    ("server::containers", &["api"]),
    // Places at which a debug build can be told to die: whoever writes or calls passes them.
    ("server::failpoint", &["server::clock"]),
    // The pretended machines of the fakes, one world for all three.
    ("server::world", &["api", "server::failpoint"]),
    ("server::store", &["api", "server::clock"]),
    ("server::vault", &["api", "server::clock"]),
    // A completed purchase makes the tenant's row and queues its operation, in one transaction.
    (
        "server::billing",
        &["api", "server::clock", "server::store", "server::provision"],
    ),
    // How many may be inside at once.
    ("server::seats", &[]),
    ("server::registry", &["api", "server::clock", "server::seats"]),
    (
        "server::databases",
        &["api", "server::clock", "server::containers", "server::world"],
    ),
    (
        "server::edge",
        &["api", "server::clock", "server::containers", "server::world"],
    ),
    (
        "server::providers",
        &["api", "server::clock", "server::containers", "server::world"],
    ),
    ("server::auth", &["api", "server::clock", "server::store"]),
    (
        "server::provision",
        &[
            "api",
            "server::clock",
            "server::store",
            "server::vault",
            "server::registry",
            "server::databases",
            "server::edge",
            "server::failpoint",
            "server::providers",
        ],
    ),
    ("server::http", HANDLERS),
    // The pages answer with the same state, limits and errors as the routes.
    ("server::web", PAGES),
    ("server::installation", &["api", "server::clock", "server::store"]),
    (
        "server::maintenance",
        &[
            "api",
            "server::clock",
            "server::store",
            "server::auth",
            "server::installation",
        ],
    ),
    (
        "server::replica",
        &[
            "api",
            "server::clock",
            "server::store",
            "server::vault",
            "server::auth",
            "server::installation",
        ],
    ),
    (
        "server::rotation",
        &[
            "api",
            "server::clock",
            "server::store",
            "server::vault",
            "server::auth",
            "server::replica",
        ],
    ),
    ("server::listening", &[]),
    // The socket by which the edge asks who visits.
    ("server::edge_door", &[]),
    ("server::config", SETTINGS),
];

const HANDLERS: &[&str] = &[
    "api",
    "server::clock",
    "server::seats",
    "server::failpoint",
    "server::store",
    "server::vault",
    "server::auth",
    "server::billing",
    "server::registry",
    "server::provision",
];

const PAGES: &[&str] = &[
    "api",
    "server::clock",
    "server::store",
    "server::auth",
    "server::billing",
    "server::http",
];

/// The modules that declare settings for `server::config` to fill.
const SETTINGS: &[&str] = &[
    "api",
    "server::failpoint",
    "server::front",
    "server::store",
    "server::vault",
    "server::auth",
    "server::billing",
    "server::registry",
    "server::databases",
    "server::edge",
    "server::providers",
    "server::provision",
    "server::http",
    "server::web",
];

/// Single files that may import more than their layer: the doors between the halves.
const DOORS: &[(&str, &[&str])] = &[
    ("src/main.rs", &["cli"]),
    ("src/cli/serve.rs", &["server"]),
    ("src/cli/server.rs", &["server"]),
    ("src/cli/checklist.rs", &["server"]),
    ("src/cli/keys.rs", &["server"]),
    ("src/cli/server/migrate.rs", &["server"]),
    ("src/cli/services.rs", &["runtime"]),
];

/// The composition root and its errors: they alone see all of the server, and are seen through a door of `cli`.
const ROOTS: [&str; 6] = [
    "src/server/mod.rs",
    "src/server/answering.rs",
    "src/server/checklist.rs",
    "src/server/safety.rs",
    "src/server/error.rs",
    "src/server/opening.rs",
];

/// Where the environment is read. A tenant's runtime gets it from the command line's context; the last is in tests only.
const ENVIRONMENT_READERS: &[&str] = &["src/server/config.rs", "src/cli/context.rs", "src/mutation.rs"];
/// Where the terminal is written: `ui`, and what runs before there is one (usage errors, completion scripts).
const TERMINAL_WRITERS: &[&str] = &["src/cli/ui/", "src/cli/mod.rs", "src/cli/completions.rs"];

const SOURCE_LINES: usize = 400;
const TEST_LINES: usize = 600;

struct SourceFile {
    path: String,
    text: String,
}

impl SourceFile {
    /// Lines with their number, without comments: what the compiler sees, near enough.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter_map(|(index, line)| {
            let code = line.split("//").next().unwrap_or(line);
            (!code.trim().is_empty()).then_some((index + 1, code))
        })
    }

    /// The layer that the file belongs to, by its path.
    fn layer(&self) -> String {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut parts = inside
            .trim_end_matches(".rs")
            .split('/')
            .filter(|part| *part != "mod");
        let first = parts.next().unwrap_or_default();
        match (first, parts.next()) {
            ("server", Some(second)) => format!("server::{second}"),
            (first, _) => first.to_owned(),
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .expect("below the root")
                    .display()
                    .to_string();
                let text = std::fs::read_to_string(&path).expect("a text file");
                files.push(SourceFile { path: name, text });
            }
        }
    }
    assert!(!files.is_empty(), "no source under {folder}");
    files
}

/// Every `crate::…` path of a line, as the layer it leads to.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        if code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let mut names = code[start + "crate::".len()..].split("::").map(|part| {
            let end = part
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(part.len());
            &part[..end]
        });
        let first = names.next().unwrap_or_default();
        let second = names.next().unwrap_or_default();
        let is_module = second.starts_with(|c: char| c.is_lowercase());
        found.push(match (first, is_module) {
            ("server", true) => format!("server::{second}"),
            _ => first.to_owned(),
        });
    }
    found
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn paths_lead_to_their_layers() {
    assert_eq!(imports("use crate::api::id::TenantId;"), ["api"]);
    assert_eq!(imports("use crate::server::store::Tx;"), ["server::store"]);
    assert_eq!(imports("crate::server::Server::start()"), ["server"]);
    assert_eq!(
        imports("f(crate::image::X, crate::client::Y)"),
        ["image", "client"]
    );
    assert_eq!(imports("mycrate::api::X"), [""; 0]);
}

#[test]
fn every_layer_imports_only_what_it_may() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let layer = file.layer();
        if ROOTS.contains(&file.path.as_str()) || file.path == "src/lib.rs" {
            continue;
        }
        let door: Vec<&str> = DOORS
            .iter()
            .filter(|(path, _)| *path == file.path)
            .flat_map(|(_, more)| more.iter().copied())
            .collect();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            if door.is_empty() {
                faults.push(format!(
                    "{}: the layer `{layer}` is not in the table of tests/architecture.rs",
                    file.path
                ));
                continue;
            }
            check_imports(&file, &layer, &door, &mut faults);
            continue;
        };
        let allowed: Vec<&str> = allowed.iter().copied().chain(door).collect();
        check_imports(&file, &layer, &allowed, &mut faults);
    }
    report(&faults);
}

fn check_imports(file: &SourceFile, layer: &str, allowed: &[&str], faults: &mut Vec<String>) {
    for (number, code) in file.code() {
        if code.contains("crate::{") {
            faults.push(format!(
                "{}:{number}: write each import in full (`crate::a::b`)",
                file.path
            ));
        }
        for target in imports(code) {
            let own = target == layer || target == "macros" || target == "mutation";
            let through_door = allowed
                .iter()
                .any(|name| target == *name || (*name == "server" && target.starts_with("server::config")));
            if !own && !through_door && !target.is_empty() {
                faults.push(format!(
                    "{}:{number}: `{layer}` may not import `{target}`",
                    file.path
                ));
            }
        }
        // Indented, or in a file of its own, it is a test module that looks at the code around it.
        if !file.path.ends_with("/tests.rs") && code.starts_with("use super::") {
            faults.push(format!(
                "{}:{number}: write imports in full (`crate::a::b`), not `super`",
                file.path
            ));
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_small() {
    let mut faults = Vec::new();
    let source = rust_files("src").into_iter().map(|file| (file, SOURCE_LINES));
    let tests = rust_files("tests").into_iter().map(|file| (file, TEST_LINES));
    for (file, cap) in source.chain(tests) {
        if !file.text.starts_with("//!") {
            faults.push(format!(
                "{}: begin with one `//!` sentence that says what the file is",
                file.path
            ));
        }
        let lines = file.text.lines().count();
        if lines > cap {
            faults.push(format!(
                "{}: {lines} lines; the cap is {cap}: split it by what it does",
                file.path
            ));
        }
        for part in file.path.trim_end_matches(".rs").split('/') {
            if ["util", "utils", "common", "helper", "helpers", "misc"].contains(&part) {
                faults.push(format!(
                    "{}: `{part}` names no topic: put the code where its topic lives",
                    file.path
                ));
            }
        }
    }
    report(&faults);
}

#[test]
fn only_the_ui_writes_to_the_terminal_and_only_settings_read_the_environment() {
    let mut faults = Vec::new();
    for file in rust_files("src") {
        let writes = TERMINAL_WRITERS.iter().any(|place| file.path.starts_with(place));
        let reads = ENVIRONMENT_READERS.contains(&file.path.as_str());
        for (number, code) in file.code() {
            let prints = ["println!", "print!(", "io::stdout()", "io::stderr()"];
            if !writes && prints.iter().any(|word| code.contains(word)) {
                faults.push(format!(
                    "{}:{number}: only {TERMINAL_WRITERS:?} write to the terminal",
                    file.path
                ));
            }
            let environment = ["env::var", "env::vars", "env::set_var"];
            if !reads && environment.iter().any(|word| code.contains(word)) {
                faults.push(format!(
                    "{}:{number}: only {ENVIRONMENT_READERS:?} read the environment",
                    file.path
                ));
            }
        }
    }
    report(&faults);
}

#[test]
fn every_test_file_has_its_place() {
    // `fuzzing` is a crate, built by `scripts/fuzz-parsers` only.
    let known: BTreeSet<&str> = BTreeSet::from([
        "architecture.rs",
        "supply_chain.rs",
        "it",
        "real",
        "data",
        "fuzzing",
        "ports",
    ]);
    for entry in std::fs::read_dir(root().join("tests")).expect("tests/") {
        let name = entry.expect("a readable entry").file_name();
        let name = name.to_string_lossy();
        assert!(
            known.contains(name.as_ref()),
            "tests/{name} would be a binary of its own, linked at every run: add it to tests/it or tests/real"
        );
    }
}

#[test]
fn no_tracked_file_names_this_machine_or_a_package_registry() {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let words = [
        "/work/",
        "/root/",
        "crates.io",
        "pypi.org",
        "pythonhosted.org",
        "npmjs.org",
        "npmjs.com",
        "debian.org",
    ];
    let mut faults = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|path| !path.is_empty())
    {
        // The lock file names the registry of every package, and this file its words.
        if path == "Cargo.lock" || path == "tests/architecture.rs" {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(root().join(path)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                faults.push(format!(
                    "{path}:{}: `{word}` belongs to one machine: read it from its settings",
                    index + 1
                ));
            }
        }
    }
    report(&faults);
}
