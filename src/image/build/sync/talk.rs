//! One comparison: all that there is goes to the engine, while it wishes for what is not so in its copy.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bollard::fsutil::types::Packet;
use bollard::fsutil::types::packet::PacketType;
use futures::future::{join_all, join3};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::image::build::sync::files::Files;
use crate::image::build::sync::wire;
use crate::image::context::{Entry, EntryKind, is_still, open, size, unread};
use crate::image::error::ImageError;
use crate::image::progress::ProgressEvent;

/// How many packets wait for the engine at most, and how large they are.
const AHEAD: usize = 16;
const CHUNK_BYTES: u64 = 256 * 1024;
/// How many files are read at once, and how many wishes one reader takes at a time.
const READERS: usize = 4;
const WISHES: usize = 32;
const PROGRESS_ID: &str = "context";

/// One comparison.
pub(super) struct Talk {
    files: Arc<Files>,
    /// Indexes of entries. The engine calls them by their place in here.
    selected: Vec<usize>,
    /// Whether people are told of it: of the context, not of the Dockerfile before it.
    is_told: bool,
    sent_bytes: AtomicU64,
    sent_count: AtomicUsize,
}

type Sending = mpsc::Sender<Packet>;
type Wishes = Mutex<mpsc::UnboundedReceiver<u32>>;

impl Talk {
    pub(super) fn new(files: Arc<Files>, selected: Vec<usize>, is_told: bool) -> Self {
        Self {
            files,
            selected,
            is_told,
            sent_bytes: AtomicU64::new(0),
            sent_count: AtomicUsize::new(0),
        }
    }

    /// The packets for the engine, made while they are taken.
    pub(super) fn answer(
        self,
        incoming: Streaming<Packet>,
    ) -> impl Stream<Item = Result<Packet, Status>> + Send + 'static {
        let (sending, outgoing) = mpsc::channel(AHEAD);
        let work = stream::once(Arc::new(self).run(incoming, sending));
        let work = work.filter_map(|()| std::future::ready(None));
        stream::select(work, ReceiverStream::new(outgoing).map(Ok))
    }

    async fn run(self: Arc<Self>, incoming: Streaming<Packet>, sending: Sending) {
        self.report(|id| ProgressEvent::Started {
            id,
            label: "Comparing the build context with the engine's copy".to_owned(),
            total_bytes: None,
        });
        let (wish, wishes) = mpsc::unbounded_channel();
        let wishes = Arc::new(Mutex::new(wishes));
        let readers =
            (0..READERS).map(|_| Self::read(Arc::clone(&self), Arc::clone(&wishes), sending.clone()));
        let told = self.tell(&sending);
        let ((), is_complete, _) = join3(told, listen(incoming, wish, &sending), join_all(readers)).await;
        if is_complete {
            self.report(|id| ProgressEvent::Finished {
                id,
                summary: self.summary(),
            });
        }
    }

    /// Says what there is. Nobody takes it when the engine has hung up: what the build says counts.
    async fn tell(&self, sending: &Sending) {
        for index in &self.selected {
            let Some(told) = self.files.stat(*index) else {
                continue;
            };
            if sending.send(told).await.is_err() {
                return;
            }
        }
        let end = wire::packet(PacketType::PacketStat, 0);
        sending.send(end).await.ok();
    }

    /// Takes wishes and sends what is wished for, until there are no more.
    async fn read(self: Arc<Self>, wishes: Arc<Wishes>, sending: Sending) {
        loop {
            let mut taken = Vec::with_capacity(WISHES);
            if wishes.lock().await.recv_many(&mut taken, WISHES).await == 0 {
                return;
            }
            let (talk, sending) = (Arc::clone(&self), sending.clone());
            let sent =
                tokio::task::spawn_blocking(move || taken.into_iter().all(|id| talk.send(id, &sending)));
            if !sent.await.is_ok_and(|is_sent| is_sent) {
                return;
            }
        }
    }

    /// Sends a file; says why not, and that nothing else is worth sending.
    fn send(&self, id: u32, sending: &Sending) -> bool {
        let index = self.selected.get(id as usize);
        let entry = index.and_then(|index| self.files.context().entries().get(*index));
        let sent = match entry.filter(|entry| entry.kind == EntryKind::File) {
            Some(entry) => self.send_content(entry, id, sending).map_err(|error| {
                let text = error.to_string();
                self.files.fail(error);
                text
            }),
            None => Err(format!("there is no file of number {id}")),
        };
        if let Err(text) = &sent {
            sending.blocking_send(wire::failure(text)).ok();
        }
        sent.is_ok()
    }

    fn send_content(&self, entry: &Entry, id: u32, sending: &Sending) -> Result<(), ImageError> {
        let source = self.files.context().source(entry);
        let mut file = open(&source, entry)?;
        let mut left = entry.stamp.size_bytes;
        while left > 0 {
            let room = left.min(CHUNK_BYTES);
            let mut chunk = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
            let count = (&mut file).take(room).read_to_end(&mut chunk);
            let count = count.map_err(|error| unread(error, &source, entry))? as u64;
            if count == 0 {
                return Err(unread(io::ErrorKind::UnexpectedEof.into(), &source, entry));
            }
            left -= count;
            if sending.blocking_send(wire::data(id, chunk)).is_err() {
                return Ok(());
            }
            let done_bytes = self.sent_bytes.fetch_add(count, Ordering::Relaxed) + count;
            self.report(|id| ProgressEvent::Advanced {
                id,
                done_bytes,
                total_bytes: None,
            });
        }
        is_still(&file, &source, entry)?;
        self.sent_count.fetch_add(1, Ordering::Relaxed);
        sending.blocking_send(wire::data(id, Vec::new())).ok();
        Ok(())
    }

    fn report(&self, event: impl FnOnce(String) -> ProgressEvent) {
        if self.is_told {
            self.files.progress().report(event(PROGRESS_ID.to_owned()));
        }
    }

    fn summary(&self) -> String {
        let (total_bytes, total_count) = self.files.context().total();
        match self.sent_count.load(Ordering::Relaxed) {
            0 => format!("the engine has all {total_count} files ({})", size(total_bytes)),
            count => {
                let bytes = self.sent_bytes.load(Ordering::Relaxed);
                format!(
                    "sent {count} of {total_count} files, {} of {}",
                    size(bytes),
                    size(total_bytes)
                )
            }
        }
    }
}

/// Takes what the engine says, until it has all that it wants; whether it came to that.
async fn listen(
    mut incoming: Streaming<Packet>,
    wish: mpsc::UnboundedSender<u32>,
    sending: &Sending,
) -> bool {
    while let Ok(Some(packet)) = incoming.message().await {
        match packet.r#type() {
            PacketType::PacketReq => {
                // Nobody takes wishes once a file could not be sent.
                wish.send(packet.id).ok();
            }
            PacketType::PacketFin => {
                sending.send(wire::packet(PacketType::PacketFin, 0)).await.ok();
                return true;
            }
            // Its reason is in the build's answer, too.
            PacketType::PacketErr => return false,
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
    false
}
