//! What was measured, for the terminal and for `docs/performance.md`.

use std::fmt::Write as _;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::harness::contest::{Measured, Outcome, Row, Unit};

const DOCUMENT: &str = "docs/performance.md";

/// The table that is printed.
pub(crate) fn table(measured: &Measured) -> String {
    let mut text = format!("\n{} ({})\n", measured.title, circumstances(measured));
    let width = measured
        .rows
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    for row in &measured.rows {
        let [median, spread, ratio, goal] = cells(measured, row);
        let _ = writeln!(
            text,
            "  {:8}  {:width$}  {median:>10}  {spread:>21}  {ratio:>22}  {goal}",
            row.role, row.name
        );
    }
    for note in &measured.notes {
        let _ = writeln!(text, "  {note}");
    }
    text
}

fn circumstances(measured: &Measured) -> String {
    let (before, after) = measured.load;
    format!(
        "{} rounds in turn, load {before:.1} to {after:.1}",
        measured.rounds
    )
}

fn cells(measured: &Measured, row: &Row) -> [String; 4] {
    let unit = measured.unit;
    let ratio = row
        .ratio
        .map(|(ratio, low, high)| format!("{ratio:.2} ({low:.2} to {high:.2})"));
    let word = match unit {
        Unit::Seconds | Unit::Megabytes => "at most",
        Unit::MegabytesPerSecond | Unit::PerSecond => "at least",
    };
    let reached = measured.goals().find(|(one, _)| one.name == row.name);
    let goal = reached.map(|(row, reached)| {
        let goal = (row.goal.unwrap_or_default() * 100.0).round() / 100.0;
        format!(
            "{word} {goal}: {}",
            if reached { "reached" } else { "**not reached**" }
        )
    });
    [
        unit.show(row.median),
        format!("{} to {}", unit.show(row.quartiles.0), unit.show(row.quartiles.1)),
        ratio.unwrap_or_default(),
        goal.unwrap_or_default(),
    ]
}

/// Writes the figures of one bench over those that the document has of it.
pub(crate) fn document(root: &Path, bench: &str, all: &[Measured]) -> Outcome<()> {
    let path = root.join(DOCUMENT);
    let text = std::fs::read_to_string(&path)?;
    let (begin, end) = (
        format!("<!-- bench {bench} -->\n"),
        format!("<!-- end {bench} -->\n"),
    );
    let (head, rest) = text
        .split_once(&begin)
        .ok_or_else(|| format!("{DOCUMENT} has no line `{}`", begin.trim()))?;
    let (_, tail) = rest
        .split_once(&end)
        .ok_or_else(|| format!("{DOCUMENT} has no line `{}`", end.trim()))?;
    let blocks: Vec<String> = all.iter().map(markdown).collect();
    let file = NamedTempFile::new_in(root.join("docs"))?;
    std::fs::write(
        file.path(),
        format!("{head}{begin}{}{end}{tail}", blocks.join("\n")),
    )?;
    std::fs::set_permissions(file.path(), std::fs::metadata(&path)?.permissions())?;
    file.persist(&path)?;
    Ok(())
}

fn markdown(measured: &Measured) -> String {
    let mut text = format!("\n**{}** ({})\n\n", measured.title, circumstances(measured));
    text.push_str("| | Who | Median | Half of the samples | Ours / this (half of the rounds) | Goal |\n|---|---|---|---|---|---|\n");
    for row in &measured.rows {
        let [median, spread, ratio, goal] = cells(measured, row);
        let _ = writeln!(
            text,
            "| {} | {} | {median} | {spread} | {ratio} | {goal} |",
            row.role, row.name
        );
    }
    for note in &measured.notes {
        let _ = writeln!(text, "\n{note}");
    }
    text
}
