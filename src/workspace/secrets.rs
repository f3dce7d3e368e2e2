//! `profiles/<name>/secrets.json`: what a program of this project needs to be the tenant. 0600, git-ignored.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::api::secret::SecretText;
use crate::workspace::Workspace;
use crate::workspace::error::WorkspaceError;
use crate::workspace::file::{self, Mode};

/// What a tenant is given.
const GIVEN: [&str; 2] = ["jwt_secret", "database_url"];
/// Keys that the file always has, so that a person sees where to put them.
const PLACES: [&str; 4] = ["anthropic", "openai", "gemini", "github"];

impl Workspace {
    /// Where the secrets of a profile are.
    #[must_use]
    pub fn secrets_path(&self, profile: &str) -> PathBuf {
        self.profile_folder(profile).join("secrets.json")
    }

    /// Whether the profile has the two secrets that a tenant is given.
    pub fn has_secrets(&self, profile: &str) -> Result<bool, WorkspaceError> {
        let values: Map<String, Value> = file::read_json(&self.secrets_path(profile), Mode::Private)?;
        Ok(GIVEN
            .iter()
            .all(|key| values.get(*key).is_some_and(Value::is_string)))
    }

    /// The secrets of a profile, by key.
    pub fn read_secrets(&self, profile: &str) -> Result<Vec<(String, SecretText)>, WorkspaceError> {
        let values: Map<String, Value> = file::read_json(&self.secrets_path(profile), Mode::Private)?;
        Ok(values
            .into_iter()
            .filter_map(|(key, value)| match value {
                Value::String(value) => Some((key, SecretText::new(value))),
                _ => None,
            })
            .collect())
    }

    /// Takes out what the tenant was given; answers whether anything else is left.
    pub(super) fn drop_given_secrets(&self, profile: &str) -> Result<bool, WorkspaceError> {
        let _lock = self.lock()?;
        let path = self.secrets_path(profile);
        let mut values: Map<String, Value> = file::read_json(&path, Mode::Private)?;
        let before = values.len();
        for given in GIVEN {
            values.shift_remove(given);
        }
        let is_left = values.values().any(|value| !value.is_null());
        if is_left && values.len() != before {
            file::write_json(&path, &values, Mode::Private)?;
        }
        Ok(is_left)
    }

    /// Puts what a tenant was given into its profile; every other key of the file stays.
    pub fn keep_secrets(
        &self,
        profile: &str,
        database_url: &SecretText,
        jwt_secret: &SecretText,
    ) -> Result<(), WorkspaceError> {
        let _lock = self.lock()?;
        let path = self.secrets_path(profile);
        let mut values: Map<String, Value> = file::read_json(&path, Mode::Private)?;
        values.insert("jwt_secret".to_owned(), jwt_secret.expose().into());
        values.insert("database_url".to_owned(), database_url.expose().into());
        for place in PLACES {
            values.entry(place).or_insert(Value::Null);
        }
        self.ensure_ignored()?;
        file::write_json(&path, &values, Mode::Private)
    }
}

#[cfg(test)]
mod tests {
    use crate::api::secret::SecretText;
    use crate::workspace::Workspace;
    use crate::workspace::file::{self, Mode};

    #[test]
    fn what_the_person_filled_in_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        let path = workspace.secrets_path("dev");
        file::write(
            &path,
            br#"{"openai": "sk-1", "jwt_secret": "old"}"#,
            Mode::Private,
        )
        .expect("writes");
        assert!(!workspace.has_secrets("dev").expect("reads"));
        workspace
            .keep_secrets("dev", &SecretText::new("postgresql://x"), &SecretText::new("new"))
            .expect("keeps");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(
            text.contains(r#""openai": "sk-1""#) && text.contains(r#""jwt_secret": "new""#),
            "{text}"
        );
        assert!(text.contains(r#""anthropic": null"#), "{text}");
        assert!(workspace.has_secrets("dev").expect("reads"));
    }
}
