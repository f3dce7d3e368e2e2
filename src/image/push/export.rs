//! Reads the engine's export of an image while it arrives: layers as streams, documents whole.
//!
//! Engines up to 24 call a layer `ID/layer.tar`, later ones `blobs/sha256/DIFF-ID`; both put the configuration beside
//! it under its digest. What a layer is, only its bytes say: its digest is taken while it passes.

use std::io::{self, Read};

use bollard::errors::Error as DockerError;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::image::engine::Engine;
use crate::image::push::digest_of;
use crate::image::push::pack::PIECE_BYTES;

/// Pieces of a layer that wait to be sent; one more is being read.
const PIECES: usize = 3;
/// A configuration is kilobytes; a layer that is as small is no document, for it is not JSON.
const DOCUMENT_BYTES: u64 = 4 << 20;

/// Something in the export.
pub(super) enum Part {
    Layer(Layer),
    /// A configuration, or a list of what there is.
    Document(Document),
}

/// A layer that is being read.
pub(super) struct Layer {
    /// What its digest must be, where its name says so.
    pub(super) named: Option<String>,
    pub(super) size_bytes: u64,
    pub(super) pieces: mpsc::Receiver<Bytes>,
    /// Its digest, once all has been read; an export that breaks off has none.
    pub(super) diff_id: oneshot::Receiver<String>,
}

/// A small file, and its digest.
pub(super) struct Document {
    pub(super) digest: String,
    pub(super) bytes: Bytes,
}

/// Begins an export. The parts must be taken, and the pieces of each layer, or nothing goes on.
pub(super) fn begin(engine: &Engine, image_id: &str) -> mpsc::Receiver<io::Result<Part>> {
    let answer = engine.patient().export_image(image_id);
    let (parts, received) = mpsc::channel(1);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let archive = Archive {
            runtime,
            answer: answer.boxed(),
            piece: Bytes::new(),
        };
        if let Err(error) = read(archive, &parts) {
            let _ = parts.blocking_send(Err(error));
        }
    });
    received
}

/// The engine's answer, as one reads a file.
struct Archive {
    runtime: Handle,
    answer: BoxStream<'static, Result<Bytes, DockerError>>,
    piece: Bytes,
}

impl Read for Archive {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.answer.next()) {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

fn read(archive: impl Read, parts: &mpsc::Sender<io::Result<Part>>) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        // A layer that is there twice is a link to the first.
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size_bytes = entry.size();
        let is_layer = name.ends_with("/layer.tar");
        let named = name
            .strip_prefix("blobs/sha256/")
            .map(|hex| format!("sha256:{hex}"));
        let mut beginning = Vec::new();
        if !is_layer && size_bytes <= DOCUMENT_BYTES {
            entry.read_to_end(&mut beginning)?;
            if serde_json::from_slice::<serde::de::IgnoredAny>(&beginning).is_ok() {
                let digest = digest_of(&beginning);
                let bytes = beginning.into();
                if parts
                    .blocking_send(Ok(Part::Document(Document { digest, bytes })))
                    .is_err()
                {
                    return Ok(());
                }
                continue;
            }
        }
        let (sender, pieces) = mpsc::channel(PIECES);
        let (told, diff_id) = oneshot::channel();
        let layer = Layer {
            named,
            size_bytes,
            pieces,
            diff_id,
        };
        if parts.blocking_send(Ok(Part::Layer(layer))).is_err() {
            return Ok(());
        }
        let diff_id = layer_of(Read::chain(beginning.as_slice(), entry), size_bytes, &sender)?;
        let _ = told.send(diff_id);
    }
    Ok(())
}

/// Passes a layer on and gives its digest.
fn layer_of(mut layer: impl Read, size_bytes: u64, pieces: &mpsc::Sender<Bytes>) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut left = size_bytes;
    loop {
        let mut piece = BytesMut::zeroed(PIECE_BYTES);
        let count = fill(&mut layer, &mut piece)?;
        piece.truncate(count);
        left = left.saturating_sub(count as u64);
        if count == 0 {
            // A connection that breaks looks like the end.
            if left > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(format!("sha256:{}", hex::encode(hash.finalize())));
        }
        hash.update(&piece);
        // Whoever took the layer has given up; so does the export.
        let sent = pieces.blocking_send(piece.freeze());
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}

fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < into.len() {
        match from.read(&mut into[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};
    use tokio::sync::mpsc;

    use super::{Part, digest_of, read};

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append_data(&mut header, name, *bytes).expect("appended");
        }
        builder.into_inner().expect("ended")
    }

    /// What is in an export: layers as `SIZE DIGEST`, documents as their text.
    fn seen(archive: Vec<u8>) -> Vec<String> {
        let (sender, mut parts) = mpsc::channel(1);
        let reader = std::thread::spawn(move || {
            if let Err(error) = read(archive.as_slice(), &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        let mut seen = Vec::new();
        while let Some(part) = parts.blocking_recv() {
            seen.push(match part {
                Err(error) => format!("error: {error}"),
                Ok(Part::Document(document)) => String::from_utf8_lossy(&document.bytes).into_owned(),
                Ok(Part::Layer(mut layer)) => {
                    while layer.pieces.blocking_recv().is_some() {}
                    let digest = layer.diff_id.blocking_recv().unwrap_or_else(|_| "cut".to_owned());
                    format!("{} {digest}", layer.size_bytes)
                }
            });
        }
        reader.join().expect("read");
        seen
    }

    #[test]
    fn engines_of_both_kinds_are_read() {
        let layer = vec![7_u8; 3 << 20];
        let hex = hex::encode(Sha256::digest(&layer));
        let expected = vec![format!("{} {}", layer.len(), digest_of(&layer)), "{}".to_owned()];
        let older = archive(&[("0a1b/layer.tar", &layer), ("c0ffee.json", b"{}")]);
        let newer = archive(&[
            (&format!("blobs/sha256/{hex}"), &layer),
            ("blobs/sha256/00", b"{}"),
        ]);
        assert_eq!(seen(older), expected);
        assert_eq!(seen(newer), expected);
    }

    #[test]
    fn a_small_layer_is_no_document() {
        let small = archive(&[("blobs/sha256/00", &[0; 1024])]);
        assert_eq!(seen(small), [format!("1024 {}", digest_of(&[0; 1024]))]);
    }

    #[test]
    fn an_export_that_breaks_off_has_no_digest() {
        let mut cut = archive(&[("0a1b/layer.tar", &[7; 1 << 20])]);
        cut.truncate(1 << 19);
        let seen = seen(cut);
        assert!(
            seen[0].ends_with("cut") && seen[1].starts_with("error: "),
            "{seen:?}"
        );
    }
}
