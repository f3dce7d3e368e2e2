//! The context as a tar stream that is the same for the same files, made while the engine reads it.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::image::context::report::size;
use crate::image::context::{Context, Entry, EntryKind};
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};

/// What is held in memory at most: this many pieces of this size.
const PIECES: usize = 8;
const PIECE_BYTES: usize = 256 * 1024;
/// 1980-01-01, the first day that every archive format can write.
const FIXED_TIME_SECONDS: u64 = 315_532_800;
const PROGRESS_ID: &str = "context";

/// A context on its way to the engine.
pub(crate) struct Upload {
    failure: Arc<Mutex<Option<ImageError>>>,
}

impl Upload {
    /// Starts reading on a thread of its own. The stream is for the engine; `self` knows why it broke off.
    pub(crate) fn start(
        context: Context,
        progress: Arc<dyn Progress>,
    ) -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let failure = Arc::new(Mutex::new(None));
        let told = Arc::clone(&failure);
        tokio::task::spawn_blocking(move || {
            let writer = ChannelWriter {
                sender: sender.clone(),
                piece: BytesMut::new(),
            };
            if let Err(error) = write(&context, writer, &*progress) {
                // The engine may have hung up because it has an answer already; then its answer counts.
                if !sender.is_closed() {
                    let text = error.to_string();
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    let _ = sender.blocking_send(Err(io::Error::other(text)));
                }
            }
        });
        (Self { failure }, ReceiverStream::new(receiver))
    }

    /// Why the stream broke off on our side, if it did.
    pub(crate) fn take_failure(&self) -> Option<ImageError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes every entry, and the end of the archive.
fn write(context: &Context, writer: impl Write, progress: &dyn Progress) -> Result<(), ImageError> {
    let (total_bytes, file_count) = context.total();
    progress.report(ProgressEvent::Started {
        id: PROGRESS_ID.to_owned(),
        label: "Sending the build context".to_owned(),
        total_bytes: Some(total_bytes),
    });
    // Compilers behind `--mount=type=cache` compare times: a file that is new must look new.
    let keeps_times = context.dockerfile().has_cache_mounts();
    let mut archive = Builder::new(writer);
    let mut done_bytes = 0;
    for entry in context.entries() {
        append(&mut archive, entry, keeps_times)?;
        if entry.kind == EntryKind::File {
            done_bytes += entry.stamp.size_bytes;
            progress.report(ProgressEvent::Advanced {
                id: PROGRESS_ID.to_owned(),
                done_bytes,
                total_bytes: None,
            });
        }
    }
    let closed = archive.into_inner().and_then(|mut writer| writer.flush());
    closed.map_err(ImageError::file("send", "the build context"))?;
    let summary = format!("{} in {} files", size(total_bytes), file_count);
    progress.report(ProgressEvent::Finished {
        id: PROGRESS_ID.to_owned(),
        summary,
    });
    Ok(())
}

fn append<W: Write>(archive: &mut Builder<W>, entry: &Entry, keeps_times: bool) -> Result<(), ImageError> {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(entry.mode);
    let seconds = u64::try_from(entry.stamp.modified_ns / 1_000_000_000).unwrap_or(0);
    header.set_mtime(if keeps_times { seconds } else { FIXED_TIME_SECONDS });
    header.set_size(entry.stamp.size_bytes);
    let failed = ImageError::file("send", &entry.source);
    match &entry.kind {
        EntryKind::Folder => {
            header.set_entry_type(EntryType::Directory);
            archive
                .append_data(&mut header, &entry.path, io::empty())
                .map_err(failed)
        }
        EntryKind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            archive
                .append_link(&mut header, &entry.path, target)
                .map_err(failed)
        }
        EntryKind::File => {
            header.set_entry_type(EntryType::Regular);
            let file = File::open(&entry.source).map_err(ImageError::file("read", &entry.source))?;
            // The header has promised a size: a file that grew is cut there, one that shrank is an error.
            let mut content = Counted {
                inner: file.take(entry.stamp.size_bytes),
                count: 0,
            };
            archive
                .append_data(&mut header, &entry.path, &mut content)
                .map_err(failed)?;
            if content.count == entry.stamp.size_bytes {
                return Ok(());
            }
            Err(ImageError::ContextChanged {
                path: entry.path.display().to_string(),
            })
        }
    }
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// Hands what is written to the channel in large pieces, and waits while the engine is slow.
struct ChannelWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl ChannelWriter {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece).freeze();
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            Ok(())
        } else {
            self.send()
        }
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

    use super::write;
    use crate::image::context::Context;
    use crate::image::error::ImageError;
    use crate::image::progress::Silent;

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
        write(&context, &mut bytes, &Silent).map(|()| bytes)
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
                assert_eq!((entry.header().uid()?, entry.header().mtime()?), (0, super::FIXED_TIME_SECONDS));
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
            (".systemprompt/cache/fingerprint.json".to_owned(), text("{}")),
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
