//! The words of a Dockerfile's lines: quotes, variables, flags, texts that follow.

use std::collections::BTreeMap;

/// What a `COPY` or `ADD` takes out of the context: not other stages, not URLs, not texts that stand in the file.
pub(super) fn sources(text: &str) -> Vec<String> {
    let mut rest = text.trim();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        if flag.starts_with("from=") {
            return Vec::new();
        }
        rest = after.trim_start();
    }
    let mut paths = serde_json::from_str::<Vec<String>>(rest).unwrap_or_else(|_| words(rest));
    paths.pop();
    paths.retain(|path| !path.starts_with("<<") && !path.contains("://"));
    paths
}

/// What a `RUN --mount=type=bind,source=…` takes out of the context.
pub(super) fn mounts(text: &str) -> Vec<String> {
    let mounts = text.split_whitespace().map_while(|word| word.strip_prefix("--"));
    mounts
        .filter_map(|flag| flag.strip_prefix("mount="))
        .filter(|mount| !mount.split(',').any(|part| part.starts_with("from=")))
        .flat_map(|mount| mount.split(','))
        .filter_map(|part| part.strip_prefix("source=").or_else(|| part.strip_prefix("src=")))
        .map(str::to_owned)
        .collect()
}

/// The words of a line, with quotes taken off.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut is_open = false;
    let mut quote: Option<char> = None;
    for character in text.chars() {
        match (character, quote) {
            ('"' | '\'', None) => {
                quote = Some(character);
                is_open = true;
            }
            (_, Some(open)) if open == character => quote = None,
            (_, None) if character.is_whitespace() => {
                if is_open {
                    words.push(std::mem::take(&mut word));
                }
                is_open = false;
            }
            _ => {
                word.push(character);
                is_open = true;
            }
        }
    }
    if is_open {
        words.push(word);
    }
    words
}

/// Puts `$name`, `${name}`, `${name:-default}` and `${name:+other}` in.
pub(super) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        expanded.push_str(before);
        let after = after.get(1..).unwrap_or_default();
        if let Some((inside, behind)) = after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            let value = |name: &str| variables.get(name).filter(|value| !value.is_empty());
            if let Some((name, default)) = inside.split_once(":-") {
                expanded.push_str(value(name).map_or(default, String::as_str));
            } else if let Some((name, other)) = inside.split_once(":+") {
                expanded.push_str(if value(name).is_some() { other } else { "" });
            } else {
                expanded.push_str(value(inside).map_or("", String::as_str));
            }
            rest = behind;
        } else {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            let (name, behind) = after.split_at(end);
            expanded.push_str(variables.get(name).map_or("", String::as_str));
            rest = behind;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The ends of the texts that follow an instruction: `<<EOF`, `<<-EOF`, `<<"EOF"`.
pub(super) fn heredocs(text: &str) -> Vec<(String, bool)> {
    words(text)
        .iter()
        .filter_map(|word| {
            let start = word.find("<<")?;
            let end = word.get(start + 2..)?;
            let (end, strips_tabs) = end.strip_prefix('-').map_or((end, false), |end| (end, true));
            let is_name = !end.is_empty() && end.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_name.then(|| (end.to_owned(), strips_tabs))
        })
        .collect()
}
