//! The project's SQL files: read, in order, and compared with what a database has already.

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::runtime::migrate::MigrateError;

/// One SQL file of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) version: i64,
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) checksum: String,
}

/// Whether a file says that an older release cannot live with what it does: `-- irreversible`, perhaps with a reason.
pub(super) fn is_irreversible(sql: &str) -> bool {
    sql.lines().any(|line| {
        let Some(comment) = line.trim().strip_prefix("--") else {
            return false;
        };
        let comment = comment.trim().to_ascii_lowercase();
        comment == "irreversible" || comment.starts_with("irreversible:")
    })
}

/// The files that are not in `known`; an older file that was added later is applied too, as long as nothing applied changed.
pub(super) fn pending<'a>(
    files: &'a [File],
    known: &BTreeMap<i64, String>,
) -> Result<Vec<&'a File>, MigrateError> {
    let mut pending = Vec::new();
    for file in files {
        match known.get(&file.version) {
            None => pending.push(file),
            Some(checksum) if *checksum == file.checksum => {}
            Some(_) => {
                return Err(MigrateError::Changed {
                    name: file.name.clone(),
                });
            }
        }
    }
    Ok(pending)
}

/// All files of a folder by their numbers; a folder that is not there has none.
pub(super) fn read_files(folder: &Path) -> Result<Vec<File>, MigrateError> {
    let read_error = |path: &Path, source| MigrateError::Read {
        path: path.to_path_buf(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // A project without migrations has nothing to apply.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(folder, error)),
    };
    let mut files: BTreeMap<i64, File> = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| read_error(folder, error))?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let version = name
            .split_once('_')
            .and_then(|(number, _)| number.parse().ok())
            .filter(|version| !files.contains_key(version));
        let Some(version) = version else {
            return Err(MigrateError::Name { name });
        };
        let sql = std::fs::read_to_string(&path).map_err(|error| read_error(&path, error))?;
        let checksum = hex::encode(Sha256::digest(sql.as_bytes()));
        files.insert(
            version,
            File {
                version,
                name,
                sql,
                checksum,
            },
        );
    }
    Ok(files.into_values().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::{is_irreversible, pending, read_files};
    use crate::runtime::migrate::MigrateError;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, sql) in files {
            let mut file = std::fs::File::create(folder.path().join(name)).expect("a file");
            std::io::Write::write_all(&mut file, sql.as_bytes()).expect("its text");
        }
        folder
    }

    #[test]
    fn files_come_in_the_order_of_their_numbers() {
        let folder = folder(&[("0010_b.sql", "b"), ("0002_a.sql", "a"), ("README.md", "not SQL")]);
        let names: Vec<String> = read_files(folder.path())
            .expect("readable")
            .into_iter()
            .map(|file| file.name)
            .collect();
        assert_eq!(names, ["0002_a.sql", "0010_b.sql"]);
    }

    #[test]
    fn a_name_without_a_number_of_its_own_is_refused() {
        for files in [
            vec![("visits.sql", "")],
            vec![("1_a.sql", ""), ("0001_b.sql", "")],
        ] {
            let error = read_files(folder(&files).path()).expect_err("no number of its own");
            assert!(matches!(error, MigrateError::Name { .. }), "{error}");
        }
    }

    #[test]
    fn a_project_without_the_folder_has_nothing_to_apply() {
        assert_eq!(read_files(Path::new("no/such/folder")).expect("nothing"), []);
    }

    #[test]
    fn a_file_says_that_it_cannot_be_taken_back() {
        for sql in [
            "-- irreversible\nDROP TABLE a",
            "SELECT 1;\n  --Irreversible: loses names",
        ] {
            assert!(is_irreversible(sql), "{sql}");
        }
        for sql in ["-- not irreversible", "SELECT 'irreversible'", "-- irreversibly"] {
            assert!(!is_irreversible(sql), "{sql}");
        }
    }

    #[test]
    fn a_file_that_was_applied_may_not_change() {
        let folder = folder(&[("0001_a.sql", "one"), ("0002_b.sql", "two")]);
        let files = read_files(folder.path()).expect("readable");
        let mut known = BTreeMap::from([(1, files[0].checksum.clone())]);
        let names: Vec<&str> = pending(&files, &known)
            .expect("unchanged")
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        assert_eq!(names, ["0002_b.sql"]);
        known.insert(1, "another".to_owned());
        assert!(
            matches!(pending(&files, &known), Err(MigrateError::Changed { name }) if name == "0001_a.sql")
        );
    }
}
