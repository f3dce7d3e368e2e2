//! The owner of a fresh volume.
//!
//! Docker fills an empty volume with what the image has at `/app/data`, owner included, so an image that has this
//! directory decides for itself. For one that has not, Docker would make a directory that only root may write, and
//! no tenant keeps root's powers: we give it to the user that the image names.

use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures::TryStreamExt as _;
use std::io::Read as _;
use std::time::Duration;

use crate::server::containers::{ContainerFile, Engine, EngineError, EngineFault};
use crate::server::providers::MachineSpec;
use crate::server::providers::docker::render::{self, DATA_DIRECTORY, Names};

/// The user of images that name none that we can find.
const USUAL: (u64, u64) = (1000, 1000);

/// The tenant's volume may be written by the image's user afterwards.
pub(super) async fn volume(
    engine: &Engine,
    spec: &MachineSpec,
    names: &Names,
    user: &str,
) -> Result<(), EngineError> {
    let helper = render::preparation(spec, names);
    // One that is there was left by a process that died here.
    engine.remove_container(&helper.name, Duration::ZERO).await?;
    engine.create_container(&helper).await?;
    let prepared = give(engine, &helper.name, user).await;
    engine.remove_container(&helper.name, Duration::ZERO).await?;
    prepared
}

async fn give(engine: &Engine, helper: &str, user: &str) -> Result<(), EngineError> {
    if has_data_directory(engine, helper).await? {
        return Ok(());
    }
    let users = if user.chars().all(|c| c.is_ascii_digit() || c == ':') {
        String::new()
    } else {
        read_users(engine, helper).await?
    };
    let directory = ContainerFile {
        directory: "/volume".to_owned(),
        path: "data/".to_owned(),
        mode: 0o755,
        owner: owner(user, &users),
        contents: Vec::new(),
    };
    engine.upload(helper, &[directory]).await
}

async fn has_data_directory(engine: &Engine, helper: &str) -> Result<bool, EngineError> {
    let options = ContainerArchiveInfoOptionsBuilder::new()
        .path(DATA_DIRECTORY)
        .build();
    let found = engine
        .docker()
        .await?
        .get_container_archive_info(helper, Some(options))
        .await;
    match found.map_err(|source| EngineError::engine("look into the image", source)) {
        Ok(_) => Ok(true),
        Err(error) if error.fault == EngineFault::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `/etc/passwd` of the image; empty where it has none.
async fn read_users(engine: &Engine, helper: &str) -> Result<String, EngineError> {
    let options = DownloadFromContainerOptionsBuilder::new()
        .path("/etc/passwd")
        .build();
    let chunks = engine
        .docker()
        .await?
        .download_from_container(helper, Some(options));
    let bytes: Result<Vec<bytes::Bytes>, _> = chunks.try_collect().await;
    let bytes = match bytes.map_err(|source| EngineError::engine("read the users of the image", source)) {
        Ok(chunks) => chunks.concat(),
        Err(error) if error.fault == EngineFault::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut text = String::new();
    // An image may hold anything under this name: what cannot be read as users names none.
    if let Ok(Some(Ok(entry))) = archive.entries().map(|mut entries| entries.next()) {
        let _ = entry.take(1024 * 1024).read_to_string(&mut text);
    }
    Ok(text)
}

/// User and group of an image's `USER`, which may be a name or a number, with a group or without.
fn owner(user: &str, passwd: &str) -> (u64, u64) {
    let (name, group) = user
        .split_once(':')
        .map_or((user, None), |(name, group)| (name, Some(group)));
    if name.is_empty() {
        return (0, 0);
    }
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name));
    let field = |index: usize| {
        entry
            .as_ref()
            .and_then(|fields| fields.get(index)?.parse::<u64>().ok())
    };
    let uid = name.parse().ok().or_else(|| field(2)).unwrap_or(USUAL.0);
    let gid = group
        .and_then(|group| group.parse().ok())
        .or_else(|| field(3))
        .unwrap_or(uid);
    (uid, gid)
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn owners_follow_the_image() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:999:998::/app:/bin/false\n";
        assert_eq!(owner("", passwd), (0, 0));
        assert_eq!(owner("root", passwd), (0, 0));
        assert_eq!(owner("1000", ""), (1000, 1000));
        assert_eq!(owner("1000:50", ""), (1000, 50));
        assert_eq!(owner("app", passwd), (999, 998));
        assert_eq!(owner("app:app", passwd), (999, 998));
        assert_eq!(owner("somebody", passwd), (1000, 1000));
    }
}
