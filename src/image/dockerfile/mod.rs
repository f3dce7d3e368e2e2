//! As much of a Dockerfile as must be known before the engine sees it: stages, what is copied, what it names.

mod words;

use std::collections::BTreeMap;
use std::path::Path;

use crate::image::context::read_small;
use crate::image::dockerfile::words::{expand, heredocs, mounts, sources, words};
use crate::image::error::ImageError;

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    name: String,
    instructions: Vec<Instruction>,
}

#[derive(Clone, Debug)]
struct Instruction {
    line: usize,
    keyword: String,
    text: String,
}

/// One source of a `COPY` or `ADD` that comes out of the build context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedPath {
    /// The line of the instruction, from 1.
    pub line: usize,
    /// The path or pattern, relative to the context, with variables put in.
    pub source: String,
}

/// Values given with `--build-arg`.
pub type BuildArgs = BTreeMap<String, String>;

impl Dockerfile {
    /// Reads the file `path`, which people know as `name`.
    pub fn read(path: &Path, name: &str) -> Result<Self, ImageError> {
        match read_small(path) {
            Ok(bytes) => Ok(Self::parse(name, &String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ImageError::Mistake {
                path: name.to_owned(),
                line: 1,
                what: "there is no such Dockerfile".to_owned(),
                hint:
                    "`systemprompt init` writes one, and `dockerfile` in .systemprompt/config.yaml names it"
                        .to_owned(),
            }),
            Err(error) => Err(ImageError::file("read", path)(error)),
        }
    }

    /// Parses a text. What is wrong in it the engine says better, so nothing is refused here.
    #[must_use]
    pub fn parse(name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let escape = escape_character(text);
        let mut instructions = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((index, first)) = lines.next() {
            if is_blank_or_comment(first) {
                continue;
            }
            let mut joined = String::new();
            let mut next = Some(first);
            while let Some(line) = next.take() {
                match line.trim_end().strip_suffix(escape) {
                    Some(part) => {
                        joined.push_str(part);
                        next = lines
                            .by_ref()
                            .map(|(_, line)| line)
                            .find(|line| !is_blank_or_comment(line));
                    }
                    None => joined.push_str(line),
                }
            }
            let joined = joined.trim();
            let (keyword, rest) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
            let keyword = keyword.to_ascii_uppercase();
            if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
                for (end, strips_tabs) in heredocs(rest) {
                    let _ = lines.by_ref().find(|(_, line)| {
                        let line = if strips_tabs {
                            line.trim_start_matches('\t')
                        } else {
                            line
                        };
                        line == end
                    });
                }
            }
            instructions.push(Instruction {
                line: index + 1,
                keyword,
                text: rest.trim().to_owned(),
            });
        }
        Self {
            name: name.to_owned(),
            instructions,
        }
    }

    /// The images that must come from a registry or be on the engine.
    #[must_use]
    pub fn base_images(&self, args: &BuildArgs) -> Vec<String> {
        let stages = self.stages(args);
        let is_stage = |image: &str, before: usize| {
            stages
                .iter()
                .take(before)
                .any(|stage| stage.name.as_deref() == Some(&image.to_ascii_lowercase()))
        };
        let mut images = Vec::new();
        for (index, stage) in stages.iter().enumerate() {
            if stage.image != "scratch" && !is_stage(&stage.image, index) && !images.contains(&stage.image) {
                images.push(stage.image.clone());
            }
        }
        images
    }

    /// What comes out of the context into the image itself: the stage `target` (else the last) and those it stands on.
    #[must_use]
    pub fn copied(&self, args: &BuildArgs, target: Option<&str>) -> Vec<CopiedPath> {
        let stages = self.stages(args);
        let find = |name: &str, before: usize| {
            let name = name.to_ascii_lowercase();
            stages
                .iter()
                .take(before)
                .rposition(|stage| stage.name.as_deref() == Some(&name))
        };
        let mut at = match target {
            Some(target) => find(target, stages.len()),
            None => stages.len().checked_sub(1),
        };
        let mut copied = Vec::new();
        while let Some(index) = at {
            let Some(stage) = stages.get(index) else { break };
            copied.extend(stage.copied.iter().cloned());
            at = find(&stage.image, index);
        }
        copied
    }

    /// Whether a step keeps files between builds (`--mount=type=cache`): compilers then compare the times of files.
    #[must_use]
    pub fn has_cache_mounts(&self) -> bool {
        self.instructions.iter().any(|instruction| {
            instruction.keyword == "RUN"
                && instruction.text.split_whitespace().any(|word| {
                    word.strip_prefix("--mount=")
                        .is_some_and(|mount| mount.split(',').any(|part| part == "type=cache"))
                })
        })
    }

    /// Refuses a Dockerfile that names a file of secrets: it would end up in a layer that everybody can read who can
    /// pull the image.
    ///
    /// The answer is what people should know of the folders it copies.
    pub fn check_secrets(&self) -> Result<Vec<String>, ImageError> {
        let mut notes = Vec::new();
        for instruction in &self.instructions {
            let sources: Vec<String> = match instruction.keyword.as_str() {
                "COPY" | "ADD" => sources(&instruction.text),
                "RUN" => mounts(&instruction.text),
                _ => continue,
            };
            for source in sources {
                let file = source
                    .trim_end_matches('/')
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                if matches!(file.as_str(), "secrets.json" | "credentials.json") {
                    return Err(ImageError::Mistake {
                        path: self.name.clone(),
                        line: instruction.line,
                        what: format!(
                            "`{} {source}` would put secrets into the image",
                            instruction.keyword
                        ),
                        hint:
                            "remove the line: the tenant gets its secrets as environment, and `systemprompt \
                               secrets set` adds more"
                                .to_owned(),
                    });
                }
                if source.trim_end_matches('/').ends_with(".systemprompt/profiles") {
                    notes.push(format!(
                        "{}:{}: profiles are copied without their secrets.json, which never leaves this machine",
                        self.name, instruction.line
                    ));
                }
            }
        }
        Ok(notes)
    }

    fn stages(&self, args: &BuildArgs) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        let mut global = BTreeMap::new();
        let mut variables = BTreeMap::new();
        for Instruction { line, keyword, text } in &self.instructions {
            match (keyword.as_str(), stages.last_mut()) {
                ("FROM", _) => {
                    variables.clear();
                    stages.push(stage(&expand(text, &global)));
                }
                ("ARG", None) => declare(text, args, &BTreeMap::new(), &mut global),
                ("ARG", Some(_)) => declare(text, args, &global, &mut variables),
                ("ENV", Some(_)) => set(text, &mut variables),
                ("COPY" | "ADD", Some(stage)) => stage.copied.extend(
                    sources(&expand(text, &variables))
                        .into_iter()
                        .map(|source| CopiedPath { line: *line, source }),
                ),
                _ => {}
            }
        }
        stages
    }
}

struct Stage {
    image: String,
    name: Option<String>,
    copied: Vec<CopiedPath>,
}

fn stage(text: &str) -> Stage {
    let mut words = text.split_whitespace().filter(|word| !word.starts_with("--"));
    let image = words.next().unwrap_or_default().to_owned();
    let name = words
        .next()
        .filter(|word| word.eq_ignore_ascii_case("as"))
        .and_then(|_| words.next())
        .map(str::to_ascii_lowercase);
    Stage {
        image,
        name,
        copied: Vec::new(),
    }
}

/// `ARG a b=1`: what was given wins over the global value, that over the default.
fn declare(
    text: &str,
    args: &BuildArgs,
    global: &BTreeMap<String, String>,
    variables: &mut BTreeMap<String, String>,
) {
    for word in words(text) {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(expand(default, variables))),
            None => (word.as_str(), None),
        };
        let inherited = if default.is_none() {
            global.get(name).cloned()
        } else {
            None
        };
        if let Some(value) = args.get(name).cloned().or(inherited).or(default) {
            variables.insert(name.to_owned(), value);
        }
    }
}

/// `ENV a=1 b=2`, and the old `ENV a 1 2`.
fn set(text: &str, variables: &mut BTreeMap<String, String>) {
    let parts = words(text);
    if parts.first().is_some_and(|first| first.contains('=')) {
        for (name, value) in parts.iter().filter_map(|word| word.split_once('=')) {
            let value = expand(value, variables);
            variables.insert(name.to_owned(), value);
        }
    } else if let Some((name, value)) = text.split_once(char::is_whitespace) {
        let value = expand(value.trim(), variables);
        variables.insert(name.to_owned(), value);
    }
}

fn is_blank_or_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// `# escape=` among the directives at the very top.
fn escape_character(text: &str) -> char {
    let directives = text.lines().map_while(|line| line.trim().strip_prefix('#'));
    for (name, value) in directives.map_while(|directive| directive.split_once('=')) {
        if name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`" {
            return '`';
        }
    }
    '\\'
}

#[cfg(test)]
mod tests;
