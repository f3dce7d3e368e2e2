//! Pushes what the engine exports: every layer that the registry lacks, packed on all processors while it streams.
//!
//! The engine exports an image whole, however little of it is new; a layer that the registry has is read and not sent.
//! The engine does not learn from it what the registry has: its own push, later, packs and sends each layer once.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_stream::wrappers::ReceiverStream;

use crate::image::engine::Engine;
use crate::image::progress::{Progress, ProgressEvent};
use crate::image::push::export::{self, Part};
use crate::image::push::pack::{self, Effort};
use crate::image::push::registry::{Descriptor, Layer, Registry, diff_ids, is_loopback};
use crate::image::push::{Failure, ID, Pushed, digest_of};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const PACKED: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
/// Layers that are on their way at once: one ends while the next begins.
const AT_ONCE: usize = 2;
/// A smaller layer is sent without a guess that it is there already.
const GUESSED_BYTES: u64 = 4 << 20;
const TICK: Duration = Duration::from_millis(200);

/// Sends the image that the engine has by this id. `known` are layers that the registry has.
pub(super) async fn push(
    engine: &Engine,
    registry: &Registry<'_>,
    (image_id, size_bytes, known): (&str, u64, &[Layer]),
    progress: &dyn Progress,
) -> Result<Pushed, Failure> {
    let mut sending = Sending::new(registry, known);
    let done_bytes = Arc::clone(&sending.done_bytes);
    let work = async move {
        if !sending.all(engine, image_id).await? {
            // A layer was taken for another of the same size: once more, and nothing is guessed.
            sending.guesses = false;
            sending.all(engine, image_id).await?;
        }
        sending.point(image_id).await
    };
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            pushed = &mut work => return pushed,
            _ = tick.tick() => progress.report(ProgressEvent::Advanced {
                id: ID.to_owned(),
                done_bytes: done_bytes.load(Ordering::Relaxed).min(size_bytes),
                total_bytes: Some(size_bytes),
            }),
        }
    }
}

struct Sending<'a> {
    registry: &'a Registry<'a>,
    /// Layers that the registry has, by what they are unpacked.
    there: BTreeMap<String, Descriptor>,
    documents: BTreeMap<String, Bytes>,
    /// Whether a layer as large as one that is there is taken for it until its digest is known.
    guesses: bool,
    effort: Effort,
    /// Read so far.
    done_bytes: Arc<AtomicU64>,
}

/// What became of a part of the export.
enum Taken {
    Layer(String, Descriptor),
    Document(String, Bytes),
    /// Not sent, and it had to be.
    Mistaken,
    /// Not sent, for it is there.
    There,
}

impl<'a> Sending<'a> {
    fn new(registry: &'a Registry<'a>, known: &[Layer]) -> Self {
        let known = known.iter().cloned();
        Self {
            registry,
            there: known.map(|layer| (layer.diff_id, layer.descriptor)).collect(),
            documents: BTreeMap::new(),
            guesses: true,
            effort: Effort::to(is_loopback(&registry.request().registry)),
            done_bytes: Arc::default(),
        }
    }

    /// Reads the export once; false if something that the registry lacks was not sent.
    async fn all(&mut self, engine: &Engine, image_id: &str) -> Result<bool, Failure> {
        let parts = ReceiverStream::new(export::begin(engine, image_id));
        self.done_bytes.store(0, Ordering::Relaxed);
        let this = &*self;
        let taken: Vec<Taken> = parts
            .map_err(|error| Failure::Again(format!("the engine's export broke off: {error}")))
            .map_ok(|part| this.take(part))
            .try_buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut complete = true;
        for taken in taken {
            match taken {
                // The registry's own stays: machines that have run the image before have it under that digest.
                Taken::Layer(diff_id, descriptor) => {
                    self.there.entry(diff_id).or_insert(descriptor);
                }
                Taken::Document(digest, bytes) => {
                    self.documents.insert(digest, bytes);
                }
                Taken::Mistaken => complete = false,
                Taken::There => {}
            }
        }
        Ok(complete)
    }

    async fn take(&self, part: Part) -> Result<Taken, Failure> {
        let layer = match part {
            Part::Document(document) => return Ok(Taken::Document(document.digest, document.bytes)),
            Part::Layer(layer) => layer,
        };
        let is_named = layer
            .named
            .as_ref()
            .is_some_and(|named| self.there.contains_key(named));
        if is_named || self.may_be_there(layer.size_bytes) {
            return self.look(layer).await;
        }
        let unpacked = layer.size_bytes;
        let (descriptor, diff_id) = self.send(layer).await?;
        Ok(Taken::Layer(diff_id, descriptor.with_unpacked(unpacked)))
    }

    fn may_be_there(&self, size_bytes: u64) -> bool {
        let mut there = self.there.values();
        self.guesses && size_bytes >= GUESSED_BYTES && there.any(|layer| layer.unpacked() == Some(size_bytes))
    }

    /// Reads a layer to its end, and sees whether it is there.
    async fn look(&self, mut layer: export::Layer) -> Result<Taken, Failure> {
        while let Some(piece) = layer.pieces.recv().await {
            self.done_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        let diff_id = layer.diff_id.await.map_err(|_| broken())?;
        Ok(if self.there.contains_key(&diff_id) {
            Taken::There
        } else {
            Taken::Mistaken
        })
    }

    /// Sends a layer while it is read.
    async fn send(&self, mut layer: export::Layer) -> Result<(Descriptor, String), Failure> {
        let first = layer.pieces.recv().await.unwrap_or_default();
        let (effort, probe) = (self.effort, first.clone());
        let is_worth = tokio::task::spawn_blocking(move || pack::is_worth(&probe, effort));
        let effort = is_worth.await.unwrap_or(false).then_some(effort);
        let upload = self.registry.begin().await?;
        let pieces = stream::iter([first]).chain(ReceiverStream::new(layer.pieces));
        let total = Arc::new(Mutex::new(Total::default()));
        let body = reqwest::Body::wrap_stream(packed(
            pieces,
            effort,
            Arc::clone(&total),
            Arc::clone(&self.done_bytes),
        ));
        let upload = self.registry.fill(upload, body).await?;
        // An export that broke off in the middle looks like a layer that ended; only a whole one has a digest.
        let diff_id = layer.diff_id.await.map_err(|_| broken())?;
        let total = std::mem::take(&mut *total.lock().unwrap_or_else(PoisonError::into_inner));
        // A layer that is sent as it is has one digest for both.
        let (kind, digest) = match effort {
            Some(_) => (PACKED, format!("sha256:{}", hex::encode(total.hash.finalize()))),
            None => (PLAIN, diff_id.clone()),
        };
        self.registry.end(upload, &digest).await?;
        Ok((Descriptor::new(kind, digest, total.size), diff_id))
    }

    /// Brings the configuration, then the manifest.
    async fn point(&self, image_id: &str) -> Result<Pushed, Failure> {
        let unknown = || Failure::Again("the engine's export is of a form that is not known here".to_owned());
        let config = self.documents.get(image_id).cloned().ok_or_else(unknown)?;
        let layers = diff_ids(&config).ok_or_else(unknown)?;
        let layers: Option<Vec<&Descriptor>> = layers.iter().map(|diff_id| self.there.get(diff_id)).collect();
        let layers = layers.ok_or_else(unknown)?;
        let size_bytes = config.len() as u64 + layers.iter().map(|layer| layer.size).sum::<u64>();
        let described = Descriptor::new(CONFIG, image_id.to_owned(), config.len() as u64);
        self.registry.put(config).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described,
            "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = digest_of(&manifest);
        let stored = self.registry.point(MANIFEST, manifest).await?;
        if stored != digest {
            return Err(Failure::mismatch(digest, stored));
        }
        Ok(Pushed { digest, size_bytes })
    }
}

/// How much of a layer has gone, and, where it is packed, of which bytes.
#[derive(Default)]
struct Total {
    hash: Sha256,
    size: u64,
}

/// What is sent of a layer: its pieces, or each of them packed.
fn packed(
    pieces: impl Stream<Item = Bytes> + Send + 'static,
    effort: Option<Effort>,
    total: Arc<Mutex<Total>>,
    done_bytes: Arc<AtomicU64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let pieces = pieces.map(move |piece| async move {
        let count = piece.len() as u64;
        let packed = match effort {
            Some(effort) => {
                let work = tokio::task::spawn_blocking(move || pack::member(&piece, effort));
                work.await.map_err(io::Error::other).flatten()
            }
            None => Ok(piece),
        };
        packed.map(|packed| (packed, count))
    });
    pieces.buffered(at_once).map_ok(move |(piece, count)| {
        done_bytes.fetch_add(count, Ordering::Relaxed);
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.size += piece.len() as u64;
        if effort.is_some() {
            total.hash.update(&piece);
        }
        piece
    })
}

fn broken() -> Failure {
    Failure::Again("the engine's export broke off".to_owned())
}
