//! Files inside containers.

use std::collections::BTreeMap;

use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, UploadToContainerOptionsBuilder};

use crate::server::containers::{Engine, EngineError, EngineFault};

/// The bits of a mode, as the engine says it (`os.FileMode` of Go), that no regular file has.
const NOT_REGULAR: u32 = 0x8f28_0000;

/// A file or directory inside a container.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ContainerFile {
    /// The directory that is there already.
    pub directory: String,
    /// Its path from there; a directory when it ends with `/`.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (u64, u64),
    /// What is in it.
    pub contents: Vec<u8>,
}

impl Engine {
    /// Writes files into the container, running or not. What is there and is no directory on both sides is removed
    /// first: for a moment there is nothing under that name.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn upload(&self, container: &str, files: &[ContainerFile]) -> Result<(), EngineError> {
        let action = || format!("write files into the container `{container}`");
        let mut directories: BTreeMap<&str, Vec<&ContainerFile>> = BTreeMap::new();
        for file in files {
            directories.entry(&file.directory).or_default().push(file);
        }
        for (directory, files) in directories {
            let bytes = archive(&files).map_err(|source| EngineError {
                fault: EngineFault::Refused,
                action: action(),
                source: Some(Box::new(source)),
            })?;
            let options = UploadToContainerOptionsBuilder::new().path(directory).build();
            self.docker()
                .await?
                .upload_to_container(container, Some(options), bollard::body_full(bytes.into()))
                .await
                .map_err(|source| EngineError::engine(action(), source))?;
        }
        Ok(())
    }

    /// Whether there is a regular file under a path of the container, running or not.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn holds_file(&self, container: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(path).build();
        let found = self
            .docker()
            .await?
            .get_container_archive_info(container, Some(options))
            .await;
        let action = || format!("look at `{path}` in the container `{container}`");
        match found.map_err(|source| EngineError::engine(action(), source)) {
            Ok(found) => Ok(found.file_mode & NOT_REGULAR == 0),
            Err(error) if error.fault == EngineFault::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The archive that brings these files into one directory.
fn archive(files: &[&ContainerFile]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if file.path.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(file.mode);
        header.set_uid(file.owner.0);
        header.set_gid(file.owner.1);
        header.set_size(file.contents.len() as u64);
        builder.append_data(&mut header, &file.path, file.contents.as_slice())?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::{ContainerFile, archive};

    #[test]
    fn archives_keep_owner_and_mode() {
        let file = ContainerFile {
            directory: "/srv".to_owned(),
            path: "data/".to_owned(),
            mode: 0o750,
            owner: (1000, 1001),
            contents: Vec::new(),
        };
        let bytes = archive(&[&file]).expect("archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive
            .entries()
            .expect("entries")
            .next()
            .expect("one")
            .expect("readable");
        let header = entry.header();
        assert!(header.entry_type().is_dir());
        assert_eq!(header.mode().expect("mode"), 0o750);
        assert_eq!(
            (header.uid().expect("uid"), header.gid().expect("gid")),
            (1000, 1001)
        );
    }
}
