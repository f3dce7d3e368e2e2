//! How large a context is, and what people should know before it is sent.

use std::collections::BTreeMap;

use crate::image::context::{Entry, EntryKind};
use crate::image::dockerfile::CopiedPath;

/// From here on a context is worth a warning.
pub const LARGE_BYTES: u64 = 100 * 1024 * 1024;
const LARGEST: usize = 10;
/// Smaller parts than this do not make a context large.
const WORTH_NAMING: u64 = 1000;
/// Folders that are made, not written: nobody misses them in a context.
const MADE: &[&str] = &[
    ".git",
    "target",
    "node_modules",
    ".venv",
    "venv",
    "__pycache__",
    ".next",
    ".cache",
    ".idea",
    ".terraform",
    "coverage",
];

/// What there is in a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextReport {
    /// All files together.
    pub total_bytes: u64,
    /// How many files.
    pub file_count: usize,
    /// The largest files, largest first.
    pub largest: Vec<(String, u64)>,
    /// Lines for the ignore file that would make a large context small.
    pub suggested_ignores: Vec<String>,
    /// What people should know, a sentence each.
    pub warnings: Vec<String>,
}

/// How many bytes the files have together, and how many files there are.
pub(super) fn total(entries: &[Entry]) -> (u64, usize) {
    let files = || entries.iter().filter(|entry| entry.kind == EntryKind::File);
    (files().map(|entry| entry.stamp.size_bytes).sum(), files().count())
}

/// `copied` is what the Dockerfile names: it is wanted, however large it is.
pub(super) fn report(entries: &[Entry], copied: &[CopiedPath]) -> ContextReport {
    let files = || entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let (total_bytes, file_count) = total(entries);
    let mut largest: Vec<(String, u64)> = files()
        .map(|entry| (entry.path.to_string_lossy().into_owned(), entry.stamp.size_bytes))
        .collect();
    largest.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    largest.truncate(LARGEST);
    largest.retain(|(_, bytes)| *bytes >= total_bytes / WORTH_NAMING);
    let suggested_ignores = if total_bytes > LARGE_BYTES {
        suggestions(entries, copied)
    } else {
        Vec::new()
    };
    let mut warnings = Vec::new();
    if total_bytes > LARGE_BYTES {
        warnings.push(large(total_bytes, &largest, &suggested_ignores));
    }
    for entry in files() {
        let Some(name) = entry.path.to_str() else { continue };
        if name == ".env"
            || (name.starts_with(".env.") && !name.contains("example") && !name.contains("sample"))
        {
            warnings.push(format!(
                "`{name}` is sent to the engine and may end up in the image; add a line `{name}` to the ignore file \
                 and set its values with `systemprompt secrets import {name}`"
            ));
        }
    }
    ContextReport {
        total_bytes,
        file_count,
        largest,
        suggested_ignores,
        warnings,
    }
}

fn suggestions(entries: &[Entry], copied: &[CopiedPath]) -> Vec<String> {
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    for entry in entries {
        let path = entry.path.to_string_lossy();
        if copied.iter().any(|copied| is_below(&path, &copied.source)) {
            continue;
        }
        let made = path.split('/').enumerate().find(|(_, part)| MADE.contains(part));
        if let Some((depth, part)) = made {
            let line = if depth == 0 {
                part.to_owned()
            } else {
                format!("**/{part}")
            };
            *sizes.entry(line).or_default() += entry.stamp.size_bytes;
        }
    }
    let mut lines: Vec<(String, u64)> = sizes
        .into_iter()
        .filter(|(_, size)| *size > LARGE_BYTES / 100)
        .collect();
    lines.sort_unstable_by_key(|line| std::cmp::Reverse(line.1));
    lines.into_iter().map(|(line, _)| line).collect()
}

/// Whether `COPY source` names this file or a folder that it is in. The whole context is no name.
fn is_below(path: &str, source: &str) -> bool {
    let source = source.trim_start_matches("./").trim_matches('/');
    let rest = path.strip_prefix(source);
    !source.is_empty() && source != "." && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn large(total: u64, largest: &[(String, u64)], ignores: &[String]) -> String {
    let mut text = format!("the build context is large: {}; its largest files:", size(total));
    for (path, bytes) in largest {
        text.push_str(&format!("\n  {:>9}  {path}", size(*bytes)));
    }
    if !ignores.is_empty() {
        text.push_str(&format!(
            "\n  what the Dockerfile does not copy can be left out; lines for the ignore file: {}",
            ignores.join(", ")
        ));
    }
    text
}

/// A size as people read it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).copied().unwrap_or("TB"))
}

#[cfg(test)]
mod tests {
    use super::{LARGE_BYTES, report, size};
    use crate::image::context::Entry;
    use crate::image::dockerfile::CopiedPath;

    fn copied(source: &str) -> CopiedPath {
        CopiedPath {
            line: 1,
            source: source.to_owned(),
        }
    }

    #[test]
    fn a_large_context_names_what_makes_it_large() {
        let entries = [
            Entry::of_size("a/node_modules/x.js", LARGE_BYTES),
            Entry::of_size(".git/pack", LARGE_BYTES / 2),
            Entry::of_size("src/a", 5),
        ];
        let report = report(&entries, &[copied(".")]);
        assert_eq!(
            report.largest.first(),
            Some(&("a/node_modules/x.js".to_owned(), LARGE_BYTES))
        );
        assert_eq!(report.suggested_ignores, ["**/node_modules", ".git"]);
        let warning = report.warnings.first().expect("it is large");
        assert!(
            warning.contains("157.3 MB") && warning.contains("104.9 MB  a/node_modules/x.js"),
            "{warning}"
        );
    }

    #[test]
    fn what_the_dockerfile_names_is_not_suggested() {
        let entries = [
            Entry::of_size("target/release/app", LARGE_BYTES * 2),
            Entry::of_size("target/release/other", LARGE_BYTES),
            Entry::of_size("README.md", 5),
        ];
        let one = report(&entries, &[copied("./target/release/app")]);
        assert_eq!(one.suggested_ignores, ["target"]);
        let both = report(&entries, &[copied("target/release/")]);
        assert_eq!(both.suggested_ignores, [""; 0]);
        let names: Vec<&str> = both.largest.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["target/release/app", "target/release/other"]);
    }

    #[test]
    fn a_small_context_is_not_worth_a_word() {
        let report = report(
            &[Entry::of_size("src/a", 5), Entry::of_size(".env.example", 1)],
            &[],
        );
        assert_eq!(
            (report.total_bytes, report.file_count, report.warnings.len()),
            (6, 2, 0)
        );
    }

    #[test]
    fn an_environment_file_is() {
        assert!(
            report(&[Entry::of_size(".env", 5)], &[])
                .warnings
                .concat()
                .contains("`systemprompt secrets import .env`")
        );
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [size(0), size(999), size(1000), size(82_149_000), size(999_990)],
            ["0 B", "999 B", "1.0 kB", "82.1 MB", "1.0 MB"]
        );
    }
}
