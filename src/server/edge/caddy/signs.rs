//! Where the files are put that say who is there: into a folder of this machine that the edge is shown, at once; where it
//! cannot be shown one, as when the server itself runs in a container, into the edge's volume, through the engine, which
//! takes a process of its own for every write.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::server::edge::EdgeSettings;
use crate::server::edge::caddy::render::DATA;
use crate::server::edge::caddy::sessions::DOOR_AT;

/// The tenants' directories in the folder.
const TENANTS: &str = "tenants";
/// The same in the volume.
pub(super) const IN_VOLUME: &str = "systemprompt/tenants";
/// Its name in the folder says that the edge was not shown the folder; whoever has mended that removes it.
pub(super) const NOT_SHOWN: &str = "not-shown-to-the-edge";

/// Where they are put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Into this folder.
    Folder(PathBuf),
    /// Into the volume.
    Volume,
}

impl Place {
    /// The folder, unless there is none or it was seen that the edge does not see it.
    pub(super) fn wanted(settings: &EdgeSettings) -> Self {
        match &settings.door {
            Some(folder) if !folder.join(NOT_SHOWN).exists() => Self::Folder(folder.clone()),
            _ => Self::Volume,
        }
    }

    /// Where the edge finds the tenants' directories.
    pub(super) fn inside(&self) -> String {
        match self {
            Self::Folder(_) => format!("{DOOR_AT}/{TENANTS}"),
            Self::Volume => format!("{DATA}/{IN_VOLUME}"),
        }
    }
}

/// Remembers that the edge does not see the folder. What is in it is out of date from now on: whoever has it shown later
/// begins with what the volume says then.
pub(super) fn not_shown(folder: &Path) -> io::Result<()> {
    remove(&folder.join(TENANTS))?;
    File::create(folder.join(NOT_SHOWN)).map(drop)
}

/// Whether the folder holds signs, be they few.
pub(super) fn is_begun(folder: &Path) -> bool {
    folder.join(TENANTS).is_dir()
}

/// Whether an archive of the volume's path is one of directories; it is one of a file once that was forgotten.
pub(super) fn is_directory(archive: &[u8]) -> bool {
    let mut archive = tar::Archive::new(archive);
    let first = archive.entries().ok().and_then(|mut entries| entries.next());
    matches!(first, Some(Ok(entry)) if entry.header().entry_type().is_dir())
}

/// Whether a tenant is known.
pub(super) fn is_known(folder: &Path, label: &str) -> bool {
    folder.join(TENANTS).join(label).is_dir()
}

/// Begins with what an engine has taken out of the volume, or with nobody.
pub(super) fn begin(folder: &Path, archive: Option<&[u8]>) -> io::Result<()> {
    // In the archive and here the directory has one name; it is complete when it gets it.
    let unpacked = folder.join(".begun");
    remove(&unpacked)?;
    make(&unpacked)?;
    match archive {
        Some(archive) => tar::Archive::new(archive).unpack(&unpacked)?,
        None => make(&unpacked.join(TENANTS))?,
    }
    fs::rename(unpacked.join(TENANTS), folder.join(TENANTS))?;
    remove(&unpacked)
}

/// Whether there is a file of this path.
pub(super) fn is_up(folder: &Path, path: &str) -> bool {
    fs::symlink_metadata(folder.join(TENANTS).join(path)).is_ok_and(|found| found.is_file())
}

/// Puts up files, and directories where a path ends with `/`, in this order. What is there stays untouched; what is there
/// and is of the other kind is removed first.
pub(super) fn put_up(folder: &Path, paths: &[String]) -> io::Result<()> {
    let tenants = folder.join(TENANTS);
    let mut touched = Vec::new();
    for path in paths {
        let (place, is_directory) = (tenants.join(path.trim_end_matches('/')), path.ends_with('/'));
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() == is_directory => continue,
            Ok(_) => remove(&place)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if is_directory {
            make(&place)?;
        } else {
            File::create(&place)?;
        }
        touched.extend(place.parent().map(Path::to_path_buf));
    }
    touched.sort_unstable();
    touched.dedup();
    // A directory that was removed since is not there to be flushed.
    for directory in touched.iter().filter(|directory| directory.is_dir()) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// Takes it away, whatever it is.
pub(super) fn take_down(folder: &Path, path: &str) -> io::Result<()> {
    remove(&folder.join(TENANTS).join(path.trim_end_matches('/')))
}

/// The edge, which reads it, has no power over files of others.
fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(directory)?;
    // Whatever is masked out of new folders here.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::{begin, is_begun, is_directory, is_known, is_up, not_shown, put_up, take_down};
    use crate::server::edge::caddy::render::{
        also_serving, held, known, nobody, others_ended, serving, unknown,
    };

    const EIGHTH: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 19);
    const NINTH: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 20);

    fn files(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![folder.join("tenants")];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).expect("read") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    left.push(path);
                } else {
                    let name = path.strip_prefix(folder.join("tenants")).expect("below");
                    found.push(name.display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn what_is_said_last_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        assert!(!is_begun(folder));
        begin(folder, None).expect("begun");
        assert!(is_begun(folder));
        let say = |paths: Vec<String>| put_up(folder, &paths).expect("put up");
        say(known("acme"));
        assert_eq!(files(folder), [""; 0]);
        say(also_serving("acme", EIGHTH));
        say(also_serving("acme", NINTH));
        say(held("acme"));
        assert_eq!(
            files(folder),
            ["acme/held", "acme/to/10.213.0.19", "acme/to/10.213.0.20"]
        );
        say(others_ended("acme", NINTH));
        assert_eq!(files(folder), ["acme/to/10.213.0.20"]);
        assert!(is_up(folder, &serving("acme", NINTH)) && !is_up(folder, &serving("acme", EIGHTH)));
        say(nobody("acme", true));
        assert_eq!(files(folder), ["acme/suspended"]);
        say(also_serving("acme", EIGHTH));
        say(unknown("acme"));
        assert_eq!(files(folder), ["acme"]);
        say(known("acme"));
        take_down(folder, "acme/").expect("taken down");
        assert!(!folder.join("tenants/acme").exists());
    }

    #[test]
    fn what_the_volume_said_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut archive = tar::Builder::new(Vec::new());
        for path in [
            "tenants/",
            "tenants/acme/",
            "tenants/acme/to/",
            "tenants/acme/to/10.213.0.19",
        ] {
            let mut header = tar::Header::new_gnu();
            let is_directory = path.ends_with('/');
            header.set_entry_type(if is_directory {
                tar::EntryType::Directory
            } else {
                tar::EntryType::Regular
            });
            header.set_mode(if is_directory { 0o755 } else { 0o644 });
            header.set_size(0);
            archive.append_data(&mut header, path, &[][..]).expect("appended");
        }
        let archive = archive.into_inner().expect("ended");
        assert!(is_directory(&archive));
        begin(folder.path(), Some(&archive)).expect("begun");
        assert_eq!(files(folder.path()), ["acme/to/10.213.0.19"]);
        assert!(is_known(folder.path(), "acme") && !is_known(folder.path(), "bolt"));
        not_shown(folder.path()).expect("remembered");
        assert!(!is_begun(folder.path()), "the volume speaks from now on");
        let other = tempfile::tempdir().expect("a folder");
        assert!(begin(other.path(), Some(&archive[..700])).is_err());
        assert!(
            !is_begun(other.path()),
            "what was cut off is not taken for all of it"
        );
    }
}
