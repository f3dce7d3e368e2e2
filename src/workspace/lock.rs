//! A lock between processes: an advisory lock on a file, let go when it is dropped or its process dies.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::workspace::error::WorkspaceError;
use crate::workspace::file;

const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock 10 seconds at most. Blocks; the writes that it guards take milliseconds.
    pub fn take(path: &Path) -> Result<Self, WorkspaceError> {
        let file = file::open_for_lock(path)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if began.elapsed() < LONGEST_WAIT => {
                    std::thread::sleep(Duration::from_millis(25));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(WorkspaceError::Locked {
                        path: path.to_owned(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(WorkspaceError::write(path, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;

    #[test]
    fn the_second_waits_for_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("workspace.lock");
        let first = Lock::take(&path).expect("the lock");
        let other = path.clone();
        let second = std::thread::spawn(move || {
            let began = std::time::Instant::now();
            Lock::take(&other).map(|_| began.elapsed())
        });
        std::thread::sleep(std::time::Duration::from_millis(120));
        drop(first);
        let waited = second.join().expect("the thread").expect("the lock");
        assert!(waited >= std::time::Duration::from_millis(80), "{waited:?}");
    }
}
