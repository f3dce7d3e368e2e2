//! The context as a tar stream that is the same for the same files, made while the engine reads it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::sync::mpsc;

use crate::image::context::Context;
use crate::image::context::pieces::{Piece, Pool, pieces};
use crate::image::context::report::size;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};

/// How many pieces wait for the engine at most, of each thread that makes them.
const AHEAD: usize = 2;
/// More threads than this do not read faster.
const THREADS: usize = 4;
const PROGRESS_ID: &str = "context";

type Made = Result<Piece, ImageError>;

/// A context on its way to the engine.
pub(crate) struct Upload {
    failure: Arc<Mutex<Option<ImageError>>>,
}

impl Upload {
    /// Starts reading on threads of its own. The stream is for the engine; `self` knows why it broke off.
    pub(crate) fn start(
        context: Context,
        progress: Arc<dyn Progress>,
    ) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let failure = Arc::new(Mutex::new(None));
        let (total_bytes, file_count) = context.total();
        progress.report(ProgressEvent::Started {
            id: PROGRESS_ID.to_owned(),
            label: "Sending the build context".to_owned(),
            total_bytes: Some(total_bytes),
        });
        let sending = Sending {
            made: read(&context),
            turn: 0,
            done_bytes: 0,
            summary: format!("{} in {} files", size(total_bytes), file_count),
            progress,
            failure: Arc::clone(&failure),
        };
        let pieces = stream::unfold(Some(sending), |sending| async move { sending?.next().await });
        (Self { failure }, pieces)
    }

    /// Why the stream broke off on our side, if it did.
    pub(crate) fn take_failure(&self) -> Option<ImageError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Begins to make pieces on every processor: each thread makes every n-th and waits while nobody takes them.
fn read(context: &Context) -> Vec<mpsc::Receiver<Made>> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = processors.min(THREADS);
    let pool = Pool::default();
    let start = |number: usize| {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (context, pool) = (context.clone(), pool.clone());
        tokio::task::spawn_blocking(move || {
            for made in pieces(&context, pool, (number, threads)) {
                let is_over = made.is_err();
                // Nobody takes it when the engine has hung up: it has an answer already, which counts.
                if sender.blocking_send(made).is_err() || is_over {
                    return;
                }
            }
        });
        receiver
    };
    (0..threads).map(start).collect()
}

/// The pieces in their order.
struct Sending {
    made: Vec<mpsc::Receiver<Made>>,
    turn: usize,
    done_bytes: u64,
    summary: String,
    progress: Arc<dyn Progress>,
    failure: Arc<Mutex<Option<ImageError>>>,
}

impl Sending {
    /// The next piece, and what goes on after it.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let turn = self.turn % self.made.len();
        self.turn += 1;
        match self.made.get_mut(turn)?.recv().await {
            Some(Ok(piece)) => {
                self.tell(&piece);
                let rest = (!piece.is_last).then_some(self);
                Some((Ok(piece.into_bytes()), rest))
            }
            Some(Err(error)) => {
                let text = error.to_string();
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Some((Err(io::Error::other(text)), None))
            }
            // A half archive must not look like a whole one.
            None => {
                let error = io::Error::other("the threads that read the build context have ended");
                Some((Err(error), None))
            }
        }
    }

    fn tell(&mut self, piece: &Piece) {
        let id = PROGRESS_ID.to_owned();
        self.done_bytes += piece.content_bytes;
        self.progress.report(if piece.is_last {
            ProgressEvent::Finished {
                id,
                summary: std::mem::take(&mut self.summary),
            }
        } else {
            ProgressEvent::Advanced {
                id,
                done_bytes: self.done_bytes,
                total_bytes: None,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use proptest::prelude::{Strategy, any, prop, proptest};
    use proptest::test_runner::Config;

    use crate::image::context::Context;
    use crate::image::context::pieces::{FIXED_TIME_SECONDS, Pool, pieces};
    use crate::image::error::ImageError;

    type Files = BTreeMap<String, (Vec<u8>, bool)>;

    fn make(root: &Path, files: &Files, backwards: bool) {
        let mut order: Vec<_> = files.iter().collect();
        if backwards {
            order.reverse();
        }
        for (path, (content, executable)) in order {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::File::create(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, content))
                .expect("written");
            let mode = if *executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        }
    }

    fn archive(root: &Path) -> Result<Vec<u8>, ImageError> {
        let context = Context::scan(root, &root.join("Dockerfile"))?;
        let mut bytes = Vec::new();
        for piece in pieces(&context, Pool::default(), (0, 1)) {
            bytes.extend(piece?.into_bytes());
        }
        Ok(bytes)
    }

    fn files() -> impl Strategy<Value = Files> {
        let name = "[a-c.é]{1,3}x";
        let path = prop::collection::vec(name, 1..4).prop_map(|parts| format!("d{}/f", parts.join("/d")));
        prop::collection::btree_map(
            path,
            (prop::collection::vec(any::<u8>(), 0..2000), any::<bool>()),
            0..8,
        )
    }

    proptest! {
        #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]
        #[test]
        fn the_same_files_make_the_same_archive(mut files in files()) {
            files.insert("Dockerfile".to_owned(), (b"FROM scratch\n".to_vec(), false));
            let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
            make(one.path(), &files, false);
            make(other.path(), &files, true);
            let bytes = archive(one.path())?;
            assert_eq!(bytes, archive(other.path())?);

            let mut back = Files::new();
            for entry in tar::Archive::new(bytes.as_slice()).entries()? {
                let mut entry = entry?;
                let (path, mode) = (entry.path()?.display().to_string(), entry.header().mode()?);
                assert_eq!((entry.header().uid()?, entry.header().mtime()?), (0, FIXED_TIME_SECONDS));
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut content)?;
                if entry.header().entry_type().is_file() {
                    back.insert(path, (content, mode & 0o100 != 0));
                }
            }
            assert_eq!(back, files);
        }
    }

    fn names(root: &Path) -> Vec<String> {
        let bytes = archive(root).expect("an archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("entries");
        entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .expect("a path")
                    .display()
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn secrets_stay_here_and_the_dockerfile_goes_whatever_the_ignore_file_says() {
        let root = tempfile::tempdir().expect("a folder");
        let text = |text: &str| (text.as_bytes().to_vec(), false);
        let files = Files::from([
            ("Dockerfile".to_owned(), text("FROM scratch")),
            (
                "Dockerfile.dockerignore".to_owned(),
                text("**\n!.systemprompt\n!keep/this\n!**/secrets.json"),
            ),
            (".systemprompt/profiles/prod/secrets.json".to_owned(), text("{}")),
            (".systemprompt/profiles/prod/profile.yaml".to_owned(), text("a")),
            (".systemprompt/credentials.json".to_owned(), text("{}")),
            (".systemprompt/cache/files".to_owned(), text("{}")),
            ("keep/this".to_owned(), text("a")),
            ("keep/that".to_owned(), text("a")),
            ("other/that".to_owned(), text("a")),
        ]);
        make(root.path(), &files, false);
        assert_eq!(
            names(root.path()),
            [
                ".systemprompt",
                ".systemprompt/profiles",
                ".systemprompt/profiles/prod",
                ".systemprompt/profiles/prod/profile.yaml",
                "Dockerfile",
                "Dockerfile.dockerignore",
                "keep",
                "keep/this",
            ]
        );
    }

    #[test]
    fn links_stay_links_and_sockets_stay_here() {
        let root = tempfile::tempdir().expect("a folder");
        make(
            root.path(),
            &Files::from([("Dockerfile".to_owned(), (b"FROM x".to_vec(), false))]),
            false,
        );
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("link")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).expect("a socket");
        let bytes = archive(root.path()).expect("an archive");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let last = archive
            .entries()
            .expect("entries")
            .last()
            .expect("entries")
            .expect("an entry");
        assert_eq!(
            last.link_name().expect("a link").expect("a target"),
            Path::new("/etc/passwd")
        );
        assert_eq!(names(root.path()), ["Dockerfile", "link"]);
    }
}
