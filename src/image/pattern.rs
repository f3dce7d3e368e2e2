//! One pattern of an ignore file, with the exact meaning that `moby/patternmatcher` gives it.

use regex::Regex;

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPattern {
    /// A lone `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamation,
    /// A bracket or a backslash without its end.
    #[error("syntax error in pattern")]
    Syntax,
}

/// One pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    /// Begins with `!`: brings back what an earlier pattern took away.
    pub(crate) brings_back: bool,
    text: String,
    matcher: Matcher,
    /// Only of a pattern that brings back: for others nobody asks what they may match.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact,
    Prefix(String),
    Suffix(String),
    Expression(Regex),
}

impl Pattern {
    /// Parses a cleaned pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let (brings_back, text) = match text.strip_prefix('!') {
            Some("") => return Err(BadPattern::LoneExclamation),
            Some(rest) => (true, rest),
            None => (false, text),
        };
        check_syntax(text)?;
        Ok(Self {
            brings_back,
            text: text.to_owned(),
            matcher: compile(text)?,
            parts: if brings_back {
                text.split('/').map(Part::of).collect()
            } else {
                Vec::new()
            },
        })
    }

    /// Whether the pattern matches `path` itself; the folders above it are the caller's matter.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text,
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/').is_some_and(|rest| rest == path)
            }
            Matcher::Expression(expression) => expression.is_match(path),
        }
    }

    /// Whether something below the folder `directory` could match while the folder itself does not.
    pub(crate) fn may_match_below(&self, directory: &str) -> bool {
        let mut parts = self.parts.iter();
        for name in directory.split('/') {
            match parts.next() {
                // Matches the folder or one above it at best: that was weighed already.
                None => return false,
                Some(Part::Anything) => return true,
                Some(Part::Name(part)) if part != name => return false,
                Some(Part::Wild(part)) if !part.matches(name) => return false,
                Some(_) => {}
            }
        }
        parts.next().is_some()
    }
}

/// One part of a pattern between its slashes.
#[derive(Clone, Debug)]
enum Part {
    Name(String),
    Wild(Pattern),
    /// A class may match `/` too, and `**` any depth: from here on nothing is certain.
    Anything,
}

impl Part {
    fn of(text: &str) -> Self {
        if text.contains("**") || text.contains(['[', '\\']) {
            return Self::Anything;
        }
        if !text.contains(['*', '?']) {
            return Self::Name(text.to_owned());
        }
        compile(text).map_or(Self::Anything, |matcher| {
            Self::Wild(Pattern {
                brings_back: true,
                text: text.to_owned(),
                matcher,
                parts: Vec::new(),
            })
        })
    }
}

/// The syntax check of Go's `filepath.Match`, which upstream runs before anything else.
fn check_syntax(text: &str) -> Result<(), BadPattern> {
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                rest.next().ok_or(BadPattern::Syntax)?;
            }
            '[' => {
                rest.next_if_eq(&'^');
                let mut ranges = 0;
                while ranges == 0 || rest.next_if_eq(&']').is_none() {
                    class_character(&mut rest)?;
                    if rest.next_if_eq(&'-').is_some() {
                        class_character(&mut rest)?;
                    }
                    ranges += 1;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn class_character(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), BadPattern> {
    match rest.next() {
        None | Some('-' | ']') => return Err(BadPattern::Syntax),
        Some('\\') => {
            rest.next().ok_or(BadPattern::Syntax)?;
        }
        Some(_) => {}
    }
    // A class is never the end of a pattern before its bracket.
    rest.peek().map(|_| ()).ok_or(BadPattern::Syntax)
}

/// Upstream's translation, its special cases included: they are what people's ignore files rely on.
fn compile(text: &str) -> Result<Matcher, BadPattern> {
    #[derive(PartialEq)]
    enum Kind {
        Exact,
        Prefix,
        Suffix,
        Expression,
    }
    let mut kind = Kind::Exact;
    let mut expression = String::from("^");
    let mut rest = text.chars().peekable();
    let mut is_first = true;
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // `**/` is taken as `**`.
                rest.next_if_eq(&'/');
                if rest.peek().is_some() {
                    expression.push_str("(.*/)?");
                    kind = Kind::Expression;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    expression.push_str(".*");
                    kind = Kind::Expression;
                }
                if is_first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                kind = Kind::Expression;
            }
            '?' => {
                expression.push_str("[^/]");
                kind = Kind::Expression;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
                expression.push('\\');
                expression.push(character);
            }
            '\\' => {
                expression.push('\\');
                match rest.next() {
                    Some(escaped) => {
                        expression.push(escaped);
                        kind = Kind::Expression;
                    }
                    None => expression.push('\\'),
                }
            }
            '[' | ']' => {
                expression.push(character);
                kind = Kind::Expression;
            }
            _ => expression.push(character),
        }
        is_first = false;
    }
    Ok(match kind {
        Kind::Exact => Matcher::Exact,
        // The `**` at the end, after which a `/` may have been eaten, is cut off.
        Kind::Prefix => Matcher::Prefix(text.get(..text.len() - 2).unwrap_or_default().to_owned()),
        Kind::Suffix => Matcher::Suffix(text.get(2..).unwrap_or_default().to_owned()),
        Kind::Expression => {
            expression.push('$');
            let translated = escape_classes(&expression);
            Matcher::Expression(Regex::new(&translated).map_err(|_| BadPattern::Syntax)?)
        }
    })
}

/// Inside a class Go knows only ranges, where this crate knows nested classes and set operations: escapes those.
fn escape_classes(expression: &str) -> String {
    let mut translated = String::with_capacity(expression.len());
    let mut rest = expression.chars();
    // How many characters of the class have been seen, while in one.
    let mut class: Option<usize> = None;
    while let Some(character) = rest.next() {
        match (character, class) {
            ('\\', _) => {
                translated.push('\\');
                translated.extend(rest.next());
                class = class.map(|seen| seen + 1);
            }
            ('[', None) => {
                translated.push('[');
                class = Some(0);
            }
            ('^', Some(0)) => translated.push('^'),
            (']', Some(seen)) if seen > 0 => {
                translated.push(']');
                class = None;
            }
            ('[' | '&' | '~', Some(seen)) => {
                translated.push('\\');
                translated.push(character);
                class = Some(seen + 1);
            }
            (_, _) => {
                translated.push(character);
                class = class.map(|seen| seen + 1);
            }
        }
    }
    translated
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn may_match_below(pattern: &str, directory: &str) -> bool {
        Pattern::parse(pattern)
            .expect("a pattern")
            .may_match_below(directory)
    }

    #[test]
    fn knows_which_folders_can_hold_a_match() {
        assert!(may_match_below("!a/b/c", "a"));
        assert!(may_match_below("!a/b/c", "a/b"));
        assert!(!may_match_below("!a/b/c", "a/b/c"));
        assert!(!may_match_below("!a/b/c", "a/x"));
        assert!(!may_match_below("!README.md", "node_modules"));
        assert!(may_match_below("!**/keep", "any/where"));
        assert!(may_match_below("!a/**/keep", "a/x/y"));
        assert!(!may_match_below("!a/**/keep", "b"));
        assert!(may_match_below("!v*/keep", "vendor"));
        assert!(!may_match_below("!v*/keep", "node_modules"));
        assert!(!may_match_below("!v*", "vendor/deep"));
    }

    #[test]
    fn characters_of_other_regex_dialects_are_plain_inside_a_class() {
        let class = Pattern::parse("x[a&&b~[]").expect("a pattern");
        assert!(
            ["xa", "xb", "x&", "x~", "x["]
                .iter()
                .all(|path| class.matches(path))
        );
        assert!(!class.matches("xc"));
    }
}
