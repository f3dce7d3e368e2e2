//! What a release command says that it did to the database: a JSON object with `applied` at the end of its output.

use serde::Deserialize;

use crate::api::release::MigrationMark;

/// What `systemprompt services db migrate` writes, and what every release command may.
#[derive(Deserialize)]
struct Said {
    applied: Vec<String>,
    #[serde(default)]
    irreversible: Vec<String>,
    #[serde(default)]
    total: Option<u32>,
}

/// The mark of a command that ended well, from its last lines.
pub(super) fn mark_of(lines: &[String]) -> MigrationMark {
    let finished = MigrationMark {
        finished: true,
        ..MigrationMark::default()
    };
    match said(lines) {
        Some(said) => MigrationMark {
            reported: true,
            applied: said.applied,
            irreversible: said.irreversible,
            total: said.total,
            ..finished
        },
        None => finished,
    }
}

/// The object may stand in one line or in several; the last one counts.
fn said(lines: &[String]) -> Option<Said> {
    let starts = lines.iter().enumerate().rev();
    starts
        .filter(|(_, line)| line.trim_start().starts_with('{'))
        .find_map(|(at, _)| {
            let text = lines.get(at..)?.join("\n");
            serde_json::Deserializer::from_str(&text)
                .into_iter::<Said>()
                .next()?
                .ok()
        })
}

#[cfg(test)]
mod tests {
    use super::mark_of;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_command_says_what_it_did_in_one_line_or_in_several() {
        for text in [
            "applied 0002_a.sql\n{\"applied\":[\"0002_a.sql\"],\"total\":2}",
            "{\n  \"applied\": [\n    \"0002_a.sql\"\n  ],\n  \"total\": 2\n}\nbye",
        ] {
            let mark = mark_of(&lines(text));
            assert!(mark.finished && mark.reported, "{text}");
            assert_eq!(
                (mark.applied, mark.total),
                (vec!["0002_a.sql".to_owned()], Some(2))
            );
        }
    }

    #[test]
    fn a_command_that_says_nothing_has_finished_all_the_same() {
        for text in [
            "",
            "done",
            "{\"level\":\"info\"}",
            "{ not JSON",
            "{\"applied\": 3}",
        ] {
            let mark = mark_of(&lines(text));
            assert!(mark.finished && !mark.reported, "{text}");
        }
    }
}
