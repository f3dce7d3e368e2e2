//! Which files of a build context are left out: ignore files with Docker's exact rules.

use std::path::{Path, PathBuf};

use crate::image::context::read_small;
use crate::image::error::ImageError;
use crate::image::pattern::{BadPattern, Pattern};

/// The patterns of one ignore file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// What the patterns say of a folder; its children need it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FolderMatch {
    matched: Vec<bool>,
}

impl Ignore {
    /// Reads the ignore file that belongs to `dockerfile`: `<Dockerfile>.dockerignore`, else `.dockerignore` in `root`.
    ///
    /// The second value is the name of the file that was read, where it is a file of the context; the engine gets it.
    pub fn read(root: &Path, dockerfile: &Path) -> Result<(Self, Option<String>), ImageError> {
        let mut beside = dockerfile.as_os_str().to_owned();
        beside.push(".dockerignore");
        for path in [PathBuf::from(beside), root.join(".dockerignore")] {
            let name = path
                .strip_prefix(root)
                .ok()
                .and_then(Path::to_str)
                .map(str::to_owned);
            let shown = name.clone().unwrap_or_else(|| path.display().to_string());
            match read_small(&path) {
                Ok(bytes) => return Ok((Self::parse(&shown, &bytes)?, name)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(ImageError::file("read", path)(error)),
            }
        }
        Ok((Self::default(), None))
    }

    /// Parses the text of the ignore file `name`.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let mut patterns = Vec::new();
        for (line, text) in lines(bytes) {
            let pattern = Pattern::parse(&text).map_err(|error| ImageError::Mistake {
                path: name.to_owned(),
                line,
                what: format!("{error} `{text}`"),
                hint: match error {
                    BadPattern::LoneExclamation => "write the path after the `!`, or remove the line",
                    BadPattern::Syntax => "close the `[`, or write `\\[` for the character itself",
                }
                .to_owned(),
            })?;
            patterns.push(pattern);
        }
        Ok(Self { patterns })
    }

    /// Whether `path` (relative, with `/`) is left out.
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        let parents: Vec<&str> = parents(path).collect();
        let mut excluded = false;
        for pattern in &self.patterns {
            if pattern.brings_back == excluded
                && (pattern.matches(path) || parents.iter().any(|parent| pattern.matches(parent)))
            {
                excluded = !pattern.brings_back;
            }
        }
        excluded
    }

    /// The same, for a walk: takes what is known of the folder above and gives what its children need.
    pub(crate) fn excludes_below(&self, path: &str, parent: &FolderMatch) -> (bool, FolderMatch) {
        let mut excluded = false;
        let mut matched = Vec::with_capacity(self.patterns.len());
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.matched.get(index).copied().unwrap_or(false);
            // A pattern that cannot change the answer is not tried, and then counts as not matched below either.
            let is_match = inherited || (pattern.brings_back == excluded && pattern.matches(path));
            matched.push(is_match);
            if is_match {
                excluded = !pattern.brings_back;
            }
        }
        (excluded, FolderMatch { matched })
    }

    /// The same for a file, which has nothing below it.
    pub(crate) fn excludes_file(&self, path: &str, parent: &FolderMatch) -> bool {
        let mut excluded = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.matched.get(index).copied().unwrap_or(false);
            if pattern.brings_back == excluded && (inherited || pattern.matches(path)) {
                excluded = !pattern.brings_back;
            }
        }
        excluded
    }

    /// Whether anything below the excluded folder `directory` could be brought back by a `!` pattern.
    pub(crate) fn may_bring_back_below(&self, directory: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| pattern.brings_back && pattern.may_match_below(directory))
    }
}

/// Every folder above `path`, the topmost first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .map(|(end, _)| path.get(..end).unwrap_or_default())
}

/// The patterns of an ignore file, cleaned, each with its line.
fn lines(bytes: &[u8]) -> Vec<(usize, String)> {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).into_owned();
    let mut patterns = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim();
        let (mark, path) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if line.is_empty() {
            continue;
        }
        let cleaned = if path.is_empty() {
            String::new()
        } else {
            clean(path)
        };
        let relative = if cleaned.len() > 1 {
            cleaned.strip_prefix('/').unwrap_or(&cleaned)
        } else {
            &cleaned
        };
        patterns.push((index + 1, format!("{mark}{relative}")));
    }
    patterns
}

/// Go's `filepath.Clean`.
pub(crate) fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            _ => parts.push(part),
        }
    }
    match (is_rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{FolderMatch, Ignore, clean, lines, parents};

    const VECTORS: &str = include_str!("../../tests/data/docker/dockerignore-upstream-vectors.json");

    fn vectors() -> Value {
        serde_json::from_str(VECTORS).expect("the vectors are JSON")
    }

    /// Upstream's matcher takes patterns that the reader has cleaned already.
    fn ignore(patterns: &Value) -> Result<Ignore, String> {
        let patterns = patterns
            .as_array()
            .expect("patterns")
            .iter()
            .map(|pattern| pattern.as_str().expect("a text").trim())
            .filter(|pattern| !pattern.is_empty())
            .map(|pattern| crate::image::pattern::Pattern::parse(&clean(pattern)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())?;
        Ok(Ignore { patterns })
    }

    #[test]
    fn agrees_with_every_upstream_vector() {
        let vectors = vectors();
        let vectors = vectors["vectors"].as_array().expect("vectors");
        assert_eq!(vectors.len(), 137);
        for vector in vectors {
            let wanted = &vector["via_MatchesOrParentMatches"];
            match ignore(&vector["patterns"]) {
                Err(error) => assert_eq!(wanted["error"], Value::from(error), "{vector}"),
                Ok(ignore) => {
                    assert!(wanted["error"].is_null(), "{vector}");
                    let path = vector["path"].as_str().expect("a path");
                    assert_eq!(Value::from(ignore.excludes(path)), wanted["matches"], "{vector}");
                }
            }
        }
    }

    #[test]
    fn reads_the_file_as_upstream_does() {
        for case in vectors()["ignorefile"].as_array().expect("cases") {
            let content = case["content"].as_str().expect("a text");
            let read: Vec<String> = lines(content.as_bytes())
                .into_iter()
                .map(|(_, pattern)| pattern)
                .collect();
            assert_eq!(serde_json::to_value(read).expect("texts"), case["patterns"]);
        }
    }

    #[test]
    fn the_walk_gives_the_same_answers() {
        let vectors = vectors();
        for vector in vectors["vectors"].as_array().expect("vectors") {
            let Ok(ignore) = ignore(&vector["patterns"]) else {
                continue;
            };
            let path = vector["path"].as_str().expect("a path").trim_end_matches('/');
            if path.is_empty() || path.starts_with('/') || path == "." {
                continue;
            }
            let mut folder = FolderMatch::default();
            for parent in parents(path) {
                folder = ignore.excludes_below(parent, &folder).1;
            }
            assert_eq!(
                ignore.excludes_below(path, &folder).0,
                ignore.excludes(path),
                "{vector}"
            );
            assert_eq!(
                ignore.excludes_file(path, &folder),
                ignore.excludes(path),
                "{vector}"
            );
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let error = Ignore::parse(".dockerignore", b"# fine\ntarget\n!\n").expect_err("a lone exclamation");
        assert_eq!(
            error.to_string(),
            ".dockerignore:3: illegal exclusion pattern: \"!\" `!`"
        );
        let error = Ignore::parse("x", b"a[\n").expect_err("an open class");
        assert!(error.hint().expect("a hint").contains("close"));
    }

    #[test]
    fn prefers_the_file_beside_the_dockerfile() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::io::Write::write_all(&mut std::fs::File::create(path).expect("made"), text.as_bytes())
                .expect("written");
        };
        let read = || Ignore::read(root.path(), &root.path().join("sub/Dockerfile")).expect("readable");
        assert_eq!(read().1, None);
        write(".dockerignore", "a");
        assert_eq!(read().1.as_deref(), Some(".dockerignore"));
        write("sub/Dockerfile.dockerignore", "b");
        let (ignore, name) = read();
        assert_eq!(name.as_deref(), Some("sub/Dockerfile.dockerignore"));
        assert!(ignore.excludes("b/c") && !ignore.excludes("a"));
    }

    #[test]
    fn outside_bytes_as_ignore_file() {
        let seeds: [&[u8]; 5] = [
            b"target\n**/*.rs\n!src/main.rs\n# why\n",
            b"*/temp*\n*/*/temp*\ntemp?\n",
            b"[a-c]x\n[^a]\n\\[x]\n",
            b"!**/keep/**\n/a/./b/../c/\n",
            b"\xef\xbb\xbf**\n!.systemprompt/**\n",
        ];
        crate::mutation::torment(&seeds, |bytes| {
            let ignore = Ignore::parse("x", bytes).ok()?;
            let paths = [
                "a",
                "src/main.rs",
                "a/b/c/d/e/f/g/h",
                "temp/temp/temp/temp",
                "aaaaaaaaaaaaaaaaaaaaaaaa",
            ];
            Some(paths.map(|path| ignore.excludes(path)))
        });
    }
}
