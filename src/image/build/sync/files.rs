//! What of the context the engine asks for, and where it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::fsutil::types::Packet;
use bollard::moby::filesync::v1::file_sync_server::FileSync;
use futures::Stream;
use futures::stream::Empty;
use tonic::{Request, Response, Status, Streaming};

use crate::image::build::sync::sent::Sent;
use crate::image::build::sync::talk::Talk;
use crate::image::build::sync::wire::stat;
use crate::image::context::{Context, Entry};
use crate::image::error::ImageError;
use crate::image::progress::Progress;

/// The context, to be asked for.
pub(super) struct Files {
    context: Context,
    sent: Sent,
    progress: Arc<dyn Progress>,
    failure: Mutex<Option<ImageError>>,
}

impl Files {
    pub(super) fn new(context: Context, sent: Sent, progress: Arc<dyn Progress>) -> Self {
        Self {
            context,
            sent,
            progress,
            failure: Mutex::default(),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    /// Why the build has to end.
    pub(super) fn fail(&self, error: ImageError) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn take_failure(&self) -> Option<ImageError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What the engine hears of the entry of this index.
    pub(super) fn stat(&self, index: usize) -> Option<Packet> {
        let entry = self.context.entries().get(index)?;
        // Compilers behind `--mount=type=cache` compare times: a file that is new must look new.
        let keeps_times = self.context.dockerfile().has_cache_mounts();
        Some(stat(entry, self.sent.build(index), keeps_times))
    }

    /// What is told of, as indexes of the entries, and whether that is the whole context. BuildKit asks three times:
    /// for the Dockerfile with its ignore file, for the ignore file, and for the files. What it would leave out by the
    /// ignore file is not in the context.
    fn select(&self, folder: &str, only: &[&str]) -> Result<(Vec<usize>, bool), Status> {
        let dockerfile = self.context.dockerfile_name();
        match (folder, only) {
            ("dockerfile", _) => {
                let ignore_file = format!("{dockerfile}.dockerignore");
                Ok((self.named(&[dockerfile, &ignore_file]), false))
            }
            ("context", [".dockerignore" | "/.dockerignore"]) => Ok((self.named(&[".dockerignore"]), false)),
            ("context", _) => Ok((self.all(|entry| !self.context.is_outside(entry)), true)),
            _ => Err(Status::not_found(format!("there is no folder `{folder}`"))),
        }
    }

    /// These files and the folders that they are in.
    fn named(&self, names: &[&str]) -> Vec<usize> {
        let wanted: BTreeSet<&Path> = names
            .iter()
            .flat_map(|name| Path::new(name).ancestors())
            .collect();
        self.all(|entry| wanted.contains(&*entry.path))
    }

    fn all(&self, is_wanted: impl Fn(&Entry) -> bool) -> Vec<usize> {
        let entries = self.context.entries().iter().enumerate();
        let wanted = entries.filter(|(_, entry)| is_wanted(entry));
        wanted.map(|(index, _)| index).collect()
    }
}

/// The service that the engine calls.
pub(super) struct Served(pub(super) Arc<Files>);

#[tonic::async_trait]
impl FileSync for Served {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;
    type TarStreamStream = Empty<Result<Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let text = |key| request.metadata().get_all(key).into_iter();
        let text = |key| text(key).filter_map(|value| value.to_str().ok());
        let folder = text("dir-name").next().unwrap_or_default();
        let only: Vec<&str> = text("followpaths").collect();
        let (selected, is_whole) = self.0.select(folder, &only)?;
        let talk = Talk::new(Arc::clone(&self.0), selected, is_whole);
        Ok(Response::new(Box::pin(talk.answer(request.into_inner()))))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("the files go one by one"))
    }
}
