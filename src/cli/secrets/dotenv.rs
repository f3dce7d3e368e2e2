//! Reads and writes `.env` files: `KEY=value`, quotes, escapes, values over several lines, comments, `export`.
//!
//! Where docker compose and dotenv read a text alike, so does this. Where they do not, it reads like one of them, or refuses
//! what one of them cuts short or leaves out without a word. `$` stands for itself: nothing of this machine's
//! environment gets into a value.

use crate::api::secret::SecretText;

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line that it begins on, from 1.
    pub line: usize,
    /// As it is written.
    pub key: String,
    /// Without quotes.
    pub value: SecretText,
}

/// What is wrong, and on which line. Never quotes a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Fault> {
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
    };
    let mut entries = Vec::new();
    while reader.skip_to_entry() {
        entries.push(reader.entry()?);
    }
    Ok(entries)
}

/// One line that reads back as this value, here and, wherever there is a way to write it so, in docker compose and dotenv too.
pub(super) fn entry(key: &str, value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,-?=&~*".contains(c);
    let value = if value.chars().all(plain) {
        value.to_owned()
    } else if !value.contains(['\'', '\r']) && !value.ends_with('\\') {
        // Everything stands for itself, line ends and `$` too, whoever reads it.
        format!("'{value}'")
    } else {
        let mut escaped = String::with_capacity(value.len() + 8);
        for character in value.chars() {
            match character {
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '"' | '\\' | '$' => escaped.extend(['\\', character]),
                other => escaped.push(other),
            }
        }
        format!("\"{escaped}\"")
    };
    format!("{key}={value}\n")
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

impl Reader<'_> {
    /// Leaves out empty lines and comments; `false` at the end.
    fn skip_to_entry(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            match self.rest.chars().next() {
                None => return false,
                Some('\n') => {
                    self.take_char();
                }
                Some('#') => {
                    self.take_line();
                }
                Some(_) => return true,
            }
        }
    }

    fn entry(&mut self) -> Result<Entry, Fault> {
        let line = self.line;
        let fault = |what| Fault { line, what };
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let equals = self.rest.find('=').filter(|at| *at < end);
        let at = equals.ok_or_else(|| fault("this is not `KEY=value`"))?;
        let (key, rest) = self.rest.split_at(at);
        let key = key.trim();
        let key = key
            .strip_prefix("export")
            .filter(|name| name.starts_with([' ', '\t']))
            .map_or(key, str::trim_start)
            .to_owned();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(fault("the name before `=` is empty or has spaces in it"));
        }
        self.rest = rest.get(1..).unwrap_or_default().trim_start_matches([' ', '\t']);
        let value = match self.rest.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => self.quoted(quote)?,
            _ => self.plain(),
        };
        Ok(Entry {
            line,
            key,
            value: SecretText::new(value),
        })
    }

    /// Up to the end of the line, or to a `#` that follows a space.
    fn plain(&mut self) -> String {
        let line = self.take_line();
        let comment = line
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| line[..*at].ends_with([' ', '\t']) || *at == 0);
        line[..comment.unwrap_or(line.len())].trim_end().to_owned()
    }

    /// Up to the same quote, over as many lines as it takes. Only double quotes know escapes; single ones know `\'`.
    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let began = self.line;
        self.take_char();
        let mut value = String::new();
        loop {
            match self.take_char() {
                None => {
                    return Err(Fault {
                        line: began,
                        what: "the quote that begins here has no end",
                    });
                }
                Some(character) if character == quote => break,
                Some('\\') if quote == '"' => match self.take_char() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some(character @ ('"' | '\\' | '$')) => value.push(character),
                    Some(other) => value.extend(['\\', other]),
                    None => {}
                },
                Some('\\') if quote == '\'' && self.rest.starts_with('\'') => {
                    self.take_char();
                    value.push('\'');
                }
                // Files from other systems end their lines otherwise; a value over several lines has only `\n`.
                Some('\r') if self.rest.starts_with('\n') => {}
                Some(character) => value.push(character),
            }
        }
        let line = self.line;
        let after = self.take_line();
        let after = after.trim();
        if after.is_empty() || after.starts_with('#') {
            Ok(value)
        } else {
            Err(Fault {
                line,
                what: "there is text after the closing quote",
            })
        }
    }

    fn take_char(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = self.rest.get(character.len_utf8()..).unwrap_or_default();
        if character == '\n' {
            self.line += 1;
        }
        Some(character)
    }

    /// The rest of this line, without its end.
    fn take_line(&mut self) -> String {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let line = self.rest[..end].trim_end_matches('\r').to_owned();
        self.rest = self.rest.get(end..).unwrap_or_default();
        self.take_char();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, parse};

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let entries = parse(text).expect("parses");
        let entries = entries.into_iter();
        entries
            .map(|entry| (entry.line, entry.key, entry.value.expose().to_owned()))
            .collect()
    }

    #[track_caller]
    fn value(text: &str, wanted: &str) {
        let pairs = pairs(text);
        assert_eq!(pairs.len(), 1, "{pairs:?}");
        assert_eq!(pairs[0].2, wanted);
    }

    #[test]
    fn plain_values_end_at_the_line_or_at_a_comment() {
        value("A=b", "b");
        value("A = b c  ", "b c");
        value("A=b # why", "b");
        value("A=b#c", "b#c");
        value("A=# why", "");
        value("A=", "");
        value("export A=b\r\n", "b");
        value("A=x=y=", "x=y=");
    }

    #[test]
    fn quotes_keep_everything_and_only_double_ones_escape() {
        value("A='b # c'", "b # c");
        value(r"A='b\n'", r"b\n");
        value(r#"A="b\n\"c\" \$d \x" # why"#, "b\n\"c\" $d \\x");
        value("A=`a'b\"c`", "a'b\"c");
        value(
            "A=\"-----BEGIN\r\nabc\r\n-----END\"\r\n",
            "-----BEGIN\nabc\n-----END",
        );
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        text: String,
        /// What dotenv reads; nothing where it leaves the line out.
        dotenv: Option<String>,
        /// What compose says that it reads, where it says so.
        #[serde(default)]
        compose: Option<String>,
        /// Nothing: refused.
        ours: Option<String>,
        /// Why, where it is not what both read.
        #[serde(default)]
        why: Option<String>,
    }

    #[test]
    fn side_by_side_with_compose_and_dotenv() {
        let vectors = include_str!("../../../tests/data/dotenv/vectors.json");
        let vectors: Vec<Vector> = serde_json::from_str(vectors).expect("JSON");
        assert_eq!(vectors.len(), 50);
        for vector in vectors {
            let text = &vector.text;
            let read = parse(text).ok().map(|entries| {
                assert_eq!(entries.len(), 1, "{text:?}");
                entries[0].value.expose().to_owned()
            });
            assert_eq!(read, vector.ours, "{text:?}");
            let alike = vector.compose.is_none() || vector.compose == vector.dotenv;
            if alike && read == vector.dotenv {
                continue;
            }
            assert!(vector.why.is_some(), "{text:?}: nobody says why");
            // Never a reading of its own: like one of the two, or aloud.
            let like_one = read == vector.dotenv || read == vector.compose;
            assert!(read.is_none() || like_one, "{text:?}: {read:?}");
        }
    }

    #[track_caller]
    fn round_trip(values: &[&str]) {
        let text: String = values.iter().map(|value| super::entry("A", value)).collect();
        let read: Vec<String> = pairs(&text).into_iter().map(|(_, _, value)| value).collect();
        assert_eq!(read, values, "{text}");
    }

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let vectors = include_str!("../../../tests/data/dotenv/vectors.json");
        let vectors: Vec<Vector> = serde_json::from_str(vectors).expect("JSON");
        for vector in &vectors {
            // The texts themselves are values too, and the nastiest ones at hand.
            for value in [Some(&vector.text), vector.ours.as_ref(), vector.dotenv.as_ref()]
                .into_iter()
                .flatten()
            {
                round_trip(&[value]);
            }
        }
        let all: Vec<&str> = vectors.iter().map(|vector| vector.text.as_str()).collect();
        round_trip(&all);
    }

    proptest::proptest! {
        #[test]
        fn any_value_reads_back_as_it_was(value in "[ -~\n\r\té\u{feff}\u{2028}]{0,40}", other in "[\"'`\\\\$#\n\r nrt=]{0,12}") {
            round_trip(&[&value, &other]);
        }
    }

    #[test]
    fn the_plainest_writing_is_chosen() {
        let written = |value: &str| super::entry("A", value);
        assert_eq!(
            written("postgresql://u:p@h:5432/d"),
            "A=postgresql://u:p@h:5432/d\n"
        );
        assert_eq!(written("pa$$ #1"), "A='pa$$ #1'\n");
        assert_eq!(written("1\n2"), "A='1\n2'\n");
        assert_eq!(written("it's"), "A=\"it's\"\n");
        assert_eq!(written("a\r\nb$\\"), "A=\"a\\r\\nb\\$\\\\\"\n");
    }

    #[test]
    fn entries_know_their_lines() {
        let found = pairs("\u{feff}# first\n\nA='1\n2'\n  B=3\n#x\nC=\"4\"");
        let lines: Vec<(usize, &str)> = found.iter().map(|(line, key, _)| (*line, key.as_str())).collect();
        assert_eq!(lines, [(3, "A"), (5, "B"), (7, "C")]);
    }

    #[test]
    fn faults_name_the_line_and_never_the_value() {
        let fault = |text: &str| parse(text).expect_err("refuses");
        assert_eq!(fault("A=1\nhello\n").line, 2);
        assert_eq!(fault("A=1\nB='x\ny").line, 2);
        assert_eq!(fault("A='x\ny' z").line, 2);
        assert_eq!(fault("A B=1").line, 1);
        assert_eq!(
            fault("=1"),
            Fault {
                line: 1,
                what: "the name before `=` is empty or has spaces in it"
            }
        );
    }

    #[test]
    fn outside_bytes_as_env_file() {
        let vectors = include_str!("../../../tests/data/dotenv/vectors.json");
        let vectors: Vec<Vector> = serde_json::from_str(vectors).expect("JSON");
        let seeds: Vec<&[u8]> = vectors.iter().map(|vector| vector.text.as_bytes()).collect();
        crate::mutation::torment(&seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let read = parse(&text);
            if let Ok(entries) = &read {
                let written: String = entries
                    .iter()
                    .map(|entry| super::entry("A", entry.value.expose()))
                    .collect();
                let again = parse(&written).expect("what is written can be read");
                let values = |entries: &[super::Entry]| {
                    let values = entries.iter().map(|entry| entry.value.expose().to_owned());
                    values.collect::<Vec<_>>()
                };
                assert_eq!(values(&again), values(entries));
            }
            read.map(|entries| entries.len())
        });
    }
}
