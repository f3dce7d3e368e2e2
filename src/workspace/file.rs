//! One file at a time: read it, or replace it whole.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::workspace::error::WorkspaceError;

/// Who may read a file that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only its owner.
    Private,
    /// Everybody, as the folder allows; a file that is there keeps its mode.
    Open,
}

/// The text of a file; `None` when it is not there.
pub fn read(path: &Path) -> Result<Option<String>, WorkspaceError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WorkspaceError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces a file whole: a reader, a crash or a full disk sees the old one or the new one, never a part.
pub fn write(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), WorkspaceError> {
    replace(path, bytes, mode).map_err(|error| WorkspaceError::write(path, error))
}

fn replace(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    // A bare name has an empty parent: the folder in which we are.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    if mode == Mode::Private {
        builder.mode(0o700);
    }
    builder.create(folder)?;
    let mut temporary = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    let wanted = match mode {
        Mode::Private => 0o600,
        Mode::Open => std::fs::metadata(path).map_or(0o644, |there| there.permissions().mode() & 0o777),
    };
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(wanted))?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    // The rename itself is only safe once the folder is on the disk.
    File::open(folder)?.sync_all()
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), WorkspaceError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WorkspaceError::write(path, error)),
        _ => Ok(()),
    }
}

/// A JSON file as a value; the default when it is not there.
pub fn read_json<T: DeserializeOwned + Default>(path: &Path, mode: Mode) -> Result<T, WorkspaceError> {
    let Some(text) = read(path)? else {
        return Ok(T::default());
    };
    serde_json::from_str(&text).map_err(|error| WorkspaceError::Syntax {
        path: path.to_owned(),
        line: error.line() as u64,
        column: error.column().max(1) as u64,
        what: match mode {
            // The parser quotes what it stumbles over, and that may be the secret.
            Mode::Private => "this is not the JSON that belongs here".to_owned(),
            Mode::Open => without_position(&error.to_string()),
        },
    })
}

/// A value as a JSON file.
pub fn write_json<T: Serialize>(path: &Path, value: &T, mode: Mode) -> Result<(), WorkspaceError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| WorkspaceError::Encode {
        path: path.to_owned(),
        what: error.to_string(),
    })?;
    bytes.push(b'\n');
    write(path, &bytes, mode)
}

/// A YAML file as a value; `None` when it is not there.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, WorkspaceError> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    match serde_saphyr::from_str(&text) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let error = error.without_snippet();
            let (line, column) = error
                .location()
                .map_or((1, 1), |location| (location.line(), location.column()));
            let what = error.to_string();
            Err(WorkspaceError::Syntax {
                path: path.to_owned(),
                line,
                column,
                what: without_position(what.lines().next().unwrap_or_default()),
            })
        }
    }
}

/// A value as a YAML file.
pub fn write_yaml<T: Serialize>(path: &Path, value: &T) -> Result<(), WorkspaceError> {
    let text = serde_saphyr::to_string(value).map_err(|error| WorkspaceError::Encode {
        path: path.to_owned(),
        what: error.to_string(),
    })?;
    write(path, text.as_bytes(), Mode::Open)
}

/// The position stands in front of the message already.
fn without_position(text: &str) -> String {
    let end = text
        .find(" at line ")
        .or_else(|| text.find(" at column "))
        .unwrap_or(text.len());
    text.get(..end).unwrap_or(text).to_owned()
}

/// Opens a file for locking, making it when it is not there.
pub(super) fn open_for_lock(path: &Path) -> Result<File, WorkspaceError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| WorkspaceError::write(path, error))?;
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| WorkspaceError::write(path, error))
}

#[cfg(test)]
mod tests {
    use super::{Mode, read, read_json, write};
    use std::collections::BTreeMap;

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tenants.json");
        write(&path, b"old", Mode::Open).expect("writes");
        // A folder in the way makes the last step fail, the rename.
        let blocked = folder.path().join("blocked");
        std::fs::create_dir_all(blocked.join("x")).expect("folders");
        assert!(write(&blocked, b"new", Mode::Open).is_err());
        std::fs::remove_dir_all(&blocked).expect("removes");
        assert_eq!(read(&path).expect("reads").as_deref(), Some("old"));
        let left = std::fs::read_dir(folder.path()).expect("lists").count();
        assert_eq!(left, 1, "no temporary file is left behind");
    }

    #[test]
    fn a_secret_is_not_quoted_in_the_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets.json");
        write(
            &path,
            b"{\n \"a\": \"hunter2\",\n \"b\": \"hunter3\"x}",
            Mode::Private,
        )
        .expect("writes");
        let error = read_json::<BTreeMap<String, u32>>(&path, Mode::Private).expect_err("refuses");
        let text = error.to_string();
        assert!(
            text.contains("line 2, column") && !text.contains("hunter"),
            "{text}"
        );
    }
}
