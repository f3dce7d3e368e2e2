//! The build context as BuildKit's session sends it: the engine keeps a copy, hears what there is, and asks for the
//! files that are not as in its copy. A changed line costs that file and no archive of everything.
//!
//! Protocol: `moby.filesync.v1.FileSync/DiffCopy` of BuildKit (`session/filesync`) with the packets of `fsutil`.

mod credentials;
mod files;
mod sent;
mod session;
mod talk;
mod wire;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bollard::auth::DockerCredentials;

use crate::image::build::sync::files::Files;
use crate::image::build::sync::sent::Sent;
use crate::image::build::sync::session::Session;
use crate::image::context::Context;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::Progress;

/// A context that the engine may ask for, for as long as this lives.
pub(super) struct Offer {
    files: Arc<Files>,
    session: Session,
}

impl Offer {
    /// Opens the session. Nothing where this is not the way: an engine behind TLS, names that the protocol cannot
    /// carry, no place to remember what was sent, another build of the same project at this moment.
    pub(super) async fn begin(
        engine: &Engine,
        (context, cache): (&Context, &Path),
        credentials: Option<HashMap<String, DockerCredentials>>,
        progress: &Arc<dyn Progress>,
    ) -> Option<Self> {
        if !session::is_reachable(engine.endpoint()) || !wire::is_sendable(context) {
            return None;
        }
        let (context, cache) = (context.clone(), cache.to_owned());
        let looked = tokio::task::spawn_blocking(move || Some((Sent::look(&context, &cache)?, context)));
        let (sent, context) = looked.await.ok()??;
        let key = sent.key();
        let files = Arc::new(Files::new(context, sent, Arc::clone(progress)));
        let session = Session::open(engine, &key, Arc::clone(&files), credentials.unwrap_or_default()).await;
        // An engine that opens none is one that the archive is for.
        session.ok().map(|session| Self { files, session })
    }

    /// What the build request names.
    pub(super) fn session_id(&self) -> &str {
        self.session.id()
    }

    /// Serves the engine; ends only when the engine hangs up.
    pub(super) async fn serve(&mut self) -> Infallible {
        self.session.serve().await
    }

    /// Why a file could not be sent, if one could not.
    pub(super) fn take_failure(&self) -> Option<ImageError> {
        self.files.take_failure()
    }
}
