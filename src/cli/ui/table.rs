//! Tables: columns under headings, no borders, the same text in a pipe and (cut to its width) on a terminal.

use std::io::IsTerminal as _;

use comfy_table::{ContentArrangement, presets};

/// Rows under headings.
#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
        if std::io::stdout().is_terminal() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(console::Term::stdout().size().1);
        }
        Self(table)
    }

    /// Adds a row.
    pub fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// The table as text, without spaces at the ends of lines.
    #[must_use]
    pub fn render(&self) -> String {
        let lines: Vec<String> = self
            .0
            .lines()
            .map(|line| {
                let line = line.strip_prefix(' ').unwrap_or(&line);
                line.trim_end().to_owned()
            })
            .collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::new(&["name", "status"]);
        table.row(["a-long-name".to_owned(), "running".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.render(), "NAME         STATUS\na-long-name  running\nb");
    }
}
