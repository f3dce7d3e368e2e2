//! `tenants.json`: the tenants of this project, and the one that commands mean when nobody says which.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::id::TenantId;
use crate::api::name::TenantName;
use crate::api::time::Time;
use crate::workspace::Workspace;
use crate::workspace::error::WorkspaceError;
use crate::workspace::file::{self, Mode};

/// Where a tenant runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantKind {
    /// On a server.
    Cloud,
    /// On this machine: a database, and nothing else.
    Local,
}

/// A tenant of this project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantEntry {
    /// Names it for ever.
    pub id: TenantId,
    /// Chosen by its owner.
    pub name: TenantName,
    /// Where it runs.
    #[serde(rename = "type")]
    pub kind: TenantKind,
    /// Where in the cloud.
    #[serde(default)]
    pub region: Option<String>,
    /// Its name on the network.
    #[serde(default)]
    pub hostname: Option<String>,
    /// When it was made.
    pub created_at: Time,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tenants {
    /// Every tenant of this project.
    #[serde(default)]
    pub tenants: Vec<TenantEntry>,
    /// The one that is meant when nobody says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<TenantId>,
    /// What others wrote here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Tenants {
    /// By id or name.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&TenantEntry> {
        self.tenants
            .iter()
            .find(|tenant| tenant.id.as_str() == text || tenant.name.as_str() == text)
    }

    /// All of that id or name: a name may be a new tenant's after an old one that was deleted from elsewhere.
    #[must_use]
    pub fn named(&self, text: &str) -> Vec<&TenantEntry> {
        let is_meant = |tenant: &&TenantEntry| tenant.id.as_str() == text || tenant.name.as_str() == text;
        self.tenants.iter().filter(is_meant).collect()
    }

    /// The selected one, or the only one.
    #[must_use]
    pub fn default_tenant(&self) -> Option<&TenantEntry> {
        match (&self.selected, self.tenants.as_slice()) {
            (Some(id), _) => self.find(id.as_str()),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// Adds a tenant, or replaces the one of the same id and keeps what others wrote into it.
    pub fn put(&mut self, mut entry: TenantEntry) {
        match self.tenants.iter_mut().find(|tenant| tenant.id == entry.id) {
            Some(there) => {
                entry.other = std::mem::take(&mut there.other);
                *there = entry;
            }
            None => self.tenants.push(entry),
        }
    }

    /// Takes a tenant out.
    pub fn remove(&mut self, id: &TenantId) {
        self.tenants.retain(|tenant| tenant.id != *id);
        if self.selected.as_ref() == Some(id) {
            self.selected = None;
        }
    }
}

impl Workspace {
    /// Where the file is.
    #[must_use]
    pub fn tenants_path(&self) -> PathBuf {
        self.folder().join("tenants.json")
    }

    /// The file as it is; empty when it is not there.
    pub fn read_tenants(&self) -> Result<Tenants, WorkspaceError> {
        file::read_json(&self.tenants_path(), Mode::Open)
    }

    /// Changes the file under the lock.
    pub fn change_tenants(&self, change: impl FnOnce(&mut Tenants)) -> Result<Tenants, WorkspaceError> {
        let _lock = self.lock()?;
        let mut tenants = self.read_tenants()?;
        let before = tenants.clone();
        change(&mut tenants);
        if tenants != before {
            file::write_json(&self.tenants_path(), &tenants, Mode::Open)?;
        }
        Ok(tenants)
    }
}

#[cfg(test)]
mod tests {
    use crate::workspace::Workspace;
    use crate::workspace::error::WorkspaceError;
    use crate::workspace::file::{self, Mode};

    fn workspace(text: &str) -> (tempfile::TempDir, Workspace) {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path().to_owned());
        file::write(&workspace.tenants_path(), text.as_bytes(), Mode::Open).expect("writes");
        (folder, workspace)
    }

    #[test]
    fn what_others_wrote_is_kept() {
        let text = r#"{"tenants":[{"id":"ten_00000000000000000000000001","name":"acme","type":"cloud",
            "region":"local","hostname":"acme.localhost","created_at":"2026-01-01T00:00:00.000Z","note":"mine"}],"v":7}"#;
        let (_folder, workspace) = workspace(text);
        let id = "ten_00000000000000000000000001".parse().expect("an id");
        workspace
            .change_tenants(|tenants| tenants.selected = Some(id))
            .expect("changes");
        let text = std::fs::read_to_string(workspace.tenants_path()).expect("reads");
        assert!(
            text.contains("\"note\": \"mine\"") && text.contains("\"v\": 7"),
            "{text}"
        );
        assert!(
            text.contains("\"selected\": \"ten_00000000000000000000000001\""),
            "{text}"
        );
    }

    #[test]
    fn a_broken_file_names_line_and_column_and_stays() {
        let text = "{\"tenants\": [\n  {\"id\": \"ten_0000\n";
        let (_folder, workspace) = workspace(text);
        let error = workspace
            .change_tenants(|tenants| tenants.selected = None)
            .expect_err("refuses");
        assert!(matches!(
            error,
            WorkspaceError::Syntax { line: 3, .. } | WorkspaceError::Syntax { line: 2, .. }
        ));
        assert_eq!(
            std::fs::read_to_string(workspace.tenants_path()).expect("reads"),
            text
        );
    }

    #[test]
    fn a_wrong_value_names_its_place() {
        let text = "{\"tenants\": [{\"id\": \"ten_00000000000000000000000001\", \"name\": \"acme\",\n \"type\": \"clod\"}]}";
        let (_folder, workspace) = workspace(text);
        let text = workspace.read_tenants().expect_err("refuses").to_string();
        assert!(
            text.contains("line 2, column") && text.contains("`clod`"),
            "{text}"
        );
    }
}
