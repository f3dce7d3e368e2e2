//! The edge's door: a socket in a folder of the data directory, which only the edge's container is shown. One server of the
//! folder listens there; when it ends, another takes its place.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

const FOLDER: &str = "edge";
const LOCK: &str = "authorize.lock";
/// How often a server looks whether it is its turn.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The door's folder, made where there is none. The edge has no power over files in its container, so that everybody may
/// pass who sees it; on this machine that is nobody, since the data directory around it lets nobody in.
///
/// # Errors
/// It cannot be made.
pub fn folder(data: &Path) -> io::Result<PathBuf> {
    let folder = std::path::absolute(data)?.join(FOLDER);
    DirBuilder::new().recursive(true).mode(0o755).create(&folder)?;
    // Whatever is masked out of new folders here.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Listens at the socket of that name until `stopping`.
pub async fn keep_open(folder: PathBuf, socket: &str, router: Router, stopping: CancellationToken) {
    let path = folder.join(socket);
    let _turn = loop {
        match turn(&folder) {
            Ok(Some(turn)) => break turn,
            Ok(None) => {}
            Err(error) => return failed(&path, &error),
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    };
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => return failed(&path, &error),
    };
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { stopping.cancelled().await })
        .await;
    if let Err(error) = served {
        failed(&path, &error);
    }
}

/// Whether it is this server's turn; it is as long as the file is open.
fn turn(folder: &Path) -> io::Result<Option<File>> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn failed(path: &Path, error: &io::Error) {
    let error: &dyn std::error::Error = error;
    tracing::error!(
        path = %path.display(), error,
        "the edge cannot ask who visits: tenants with edge sessions let nobody in"
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::{folder, keep_open};

    async fn asked(path: &Path) -> Option<String> {
        let mut stream = tokio::net::UnixStream::connect(path).await.ok()?;
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.chars().last().map(String::from)
    }

    async fn until(path: &Path, who: &str) {
        for _ in 0..200 {
            if asked(path).await.as_deref() == Some(who) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{who} does not answer");
    }

    #[tokio::test]
    async fn another_server_takes_the_place_of_one_that_ends() {
        let data = tempfile::tempdir().expect("a folder");
        let door = folder(data.path()).expect("made");
        let path = door.join("s.sock");
        let tasks = TaskTracker::new();
        let serve = |who: &'static str| {
            let stopping = CancellationToken::new();
            let router = Router::new().route("/", get(move || async move { who }));
            let (door, until) = (door.clone(), stopping.clone());
            tasks.spawn(async move { keep_open(door, "s.sock", router, until).await });
            stopping
        };
        let first = serve("1");
        until(&path, "1").await;
        let second = serve("2");
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(asked(&path).await.as_deref(), Some("1"), "it is not its turn");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        first.cancel();
        until(&path, "2").await;
        second.cancel();
        tasks.close();
        tasks.wait().await;
        assert_eq!(asked(&path).await, None);
    }
}
