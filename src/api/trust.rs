//! Trust rules: which CI jobs may deploy to a tenant with nothing but the identity that their CI gives them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::id::TrustRuleId;
use crate::api::time::Time;

/// Who signs the identities of GitHub's jobs.
pub const GITHUB: &str = "https://token.actions.githubusercontent.com";
/// Who signs those of gitlab.com's.
pub const GITLAB: &str = "https://gitlab.com";
/// The longest text of a rule, in characters.
const LONGEST: usize = 200;

/// Jobs that may deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrustRule {
    /// Names the rule.
    pub id: TrustRuleId,
    /// Who signs the jobs' identities.
    pub issuer: String,
    /// The repository of the job: `owner/name`, with groups on GitLab.
    pub repository: String,
    /// The branch or tag that it runs for, like `refs/heads/main`; a `*` at the end stands for any rest.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// Whose rights the job has.
    pub created_by: String,
    /// When it was made.
    pub created_at: Time,
}

/// `POST /tenants/{id}/trust-rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTrustRule {
    /// Who signs the jobs' identities: a URL that the server allows.
    pub issuer: String,
    /// The repository of the job: `owner/name`, with groups on GitLab.
    pub repository: String,
    /// The branch or tag that it runs for: `main`, `refs/heads/main`, `refs/tags/v*`.
    #[serde(rename = "ref")]
    pub git_ref: String,
}

impl CreateTrustRule {
    /// The same with the branch or tag in full; both sides call it.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    pub fn checked(mut self) -> Result<Self, (&'static str, String)> {
        let plain = |text: &str| {
            text.chars().count() <= LONGEST && text.chars().all(|it| !it.is_whitespace() && !it.is_control())
        };
        let repository = self.repository.split('/').all(|part| !part.is_empty());
        if !plain(&self.repository)
            || !self.repository.contains('/')
            || !repository
            || self.repository.contains('*')
        {
            return Err(("repository", "must be written like `owner/name`".to_owned()));
        }
        if !self.git_ref.starts_with("refs/") {
            self.git_ref = format!("refs/heads/{}", self.git_ref);
        }
        let named = self
            .git_ref
            .strip_prefix("refs/heads/")
            .or(self.git_ref.strip_prefix("refs/tags/"));
        let star = self
            .git_ref
            .find('*')
            .is_none_or(|at| at + 1 == self.git_ref.len());
        if !plain(&self.git_ref) || named.is_none_or(str::is_empty) || !star {
            let detail = "must be a branch or a tag, like `main` or `refs/tags/v*`; `*` may only be its last character";
            return Err(("ref", detail.to_owned()));
        }
        self.issuer = self.issuer.trim_end_matches('/').to_owned();
        Ok(self)
    }
}

/// Whether a rule's branch or tag means this one.
#[must_use]
pub fn means_ref(rule: &str, git_ref: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(begin) => git_ref.starts_with(begin),
        None => rule == git_ref,
    }
}

#[cfg(test)]
mod tests {
    use super::{CreateTrustRule, GITHUB, means_ref};

    fn checked(repository: &str, git_ref: &str) -> Result<String, &'static str> {
        let rule = CreateTrustRule {
            issuer: GITHUB.to_owned(),
            repository: repository.to_owned(),
            git_ref: git_ref.to_owned(),
        };
        rule.checked()
            .map(|rule| rule.git_ref)
            .map_err(|(field, _)| field)
    }

    #[test]
    fn a_branch_is_written_in_full() {
        assert_eq!(checked("acme/shop", "main").as_deref(), Ok("refs/heads/main"));
        assert_eq!(
            checked("a/b/c", "release/*").as_deref(),
            Ok("refs/heads/release/*")
        );
        assert_eq!(
            checked("acme/shop", "refs/tags/v*").as_deref(),
            Ok("refs/tags/v*")
        );
    }

    #[test]
    fn what_means_too_much_or_nothing_is_refused() {
        for repository in ["shop", "acme/", "/shop", "acme/*", "ac me/shop", ""] {
            assert_eq!(checked(repository, "main"), Err("repository"), "{repository}");
        }
        for git_ref in ["", "refs/pull/1/merge", "refs/heads/", "a*b", "a b"] {
            assert_eq!(checked("acme/shop", git_ref), Err("ref"), "{git_ref}");
        }
    }

    #[test]
    fn a_star_stands_for_the_rest() {
        assert!(means_ref("refs/tags/v*", "refs/tags/v1.2"));
        assert!(!means_ref("refs/tags/v*", "refs/heads/v1.2"));
        assert!(means_ref("refs/heads/main", "refs/heads/main"));
        assert!(!means_ref("refs/heads/main", "refs/heads/main2"));
    }
}
