//! Pushes an image: nothing where the registry has it, else by the way that sends it sooner. The credential goes in one
//! header: never into an argument or a file.

mod by_engine;
mod by_upload;
mod export;
mod lines;
mod local;
mod pack;
mod registry;

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::api::secret::SecretText;
use crate::image::context::size;
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};
use crate::image::push::local::Local;
use crate::image::push::registry::Registry;

const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
const ID: &str = "push";

/// What to push, and by what right.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Host and port of the registry.
    pub registry: String,
    /// The repository in it.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// Goes with the password.
    pub username: String,
    /// What the registry minted for this push.
    pub password: SecretText,
    /// Private certificate authorities (PEM) to trust when the registry is asked.
    pub ca_file: Option<PathBuf>,
    /// A push before this one outlived its credential: the engine's way goes on where it stopped, ours does not.
    pub resumes: bool,
}

/// What the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// `sha256:…` of the manifest, the same on both sides.
    pub digest: String,
    /// What a machine has to download: configuration and layers.
    pub size_bytes: u64,
}

/// One attempt's failure.
enum Failure {
    /// The next one may succeed.
    Again(String),
    /// None will.
    Final(ImageError),
}

impl Failure {
    /// The registry has other bytes than were sent.
    fn mismatch(pushed: String, stored: String) -> Self {
        Self::Final(ImageError::DigestMismatch { pushed, stored })
    }
}

/// Pushes the image that the engine knows as `registry/repository:tag`, again when the connection breaks: layers that
/// arrived are not sent twice.
pub async fn push(
    engine: &Engine,
    request: &PushRequest,
    progress: &dyn Progress,
) -> Result<Pushed, ImageError> {
    check_reach(engine, &request.registry)?;
    let label = format!("Pushing to {}", request.registry);
    progress.report(ProgressEvent::Started {
        id: ID.to_owned(),
        label,
        total_bytes: None,
    });
    let mut message = String::new();
    let mut may_upload = !request.resumes;
    for attempt in 1..=ATTEMPTS {
        if attempt > 1 {
            let text = format!("the push broke off ({message}); attempt {attempt} of {ATTEMPTS}");
            progress.report(ProgressEvent::Line {
                id: ID.to_owned(),
                text,
            });
            tokio::time::sleep(PAUSE * 3_u32.pow(attempt - 2)).await;
        }
        match push_once(engine, request, (progress, &mut may_upload)).await {
            Ok(pushed) => {
                let summary = format!("{} as {}", size(pushed.size_bytes), pushed.digest);
                progress.report(ProgressEvent::Finished {
                    id: ID.to_owned(),
                    summary,
                });
                return Ok(pushed);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Again(why)) => message = why,
        }
    }
    Err(ImageError::PushFailed {
        registry: request.registry.clone(),
        attempts: ATTEMPTS,
        message,
    })
}

/// How a registry names these bytes.
fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

async fn push_once(
    engine: &Engine,
    request: &PushRequest,
    (progress, may_upload): (&dyn Progress, &mut bool),
) -> Result<Pushed, Failure> {
    // The engine answers a bad credential with 50 s of retries; the registry itself says so at once.
    let registry = Registry::sign_in(request).await?;
    let local = Local::find(engine, request).await.map_err(Failure::Final)?;
    let stored = registry.stored().await?;
    if let Some(stored) = stored.as_ref().filter(|stored| stored.is(&local.id)) {
        return Ok(stored.pushed());
    }
    let is_near = !engine.endpoint().is_remote();
    if *may_upload && is_near && local.can_be_exported() {
        // Whatever happens to it: what is tried again is the other way.
        *may_upload = false;
        let known = match &stored {
            Some(stored) => registry.layers(stored).await?,
            None => Vec::new(),
        };
        // An engine that has the image before this one soon knows what the registry has; in CI it is a new one each time.
        let knows = match stored.as_ref().and_then(|stored| stored.image_id()) {
            Some(before) => engine.docker().inspect_image(before).await.is_ok(),
            None => false,
        };
        if !knows || local.is_mostly_new(engine, &known).await {
            let image = (local.id.as_str(), local.size_bytes, known.as_slice());
            return by_upload::push(engine, &registry, image, progress).await;
        }
    }
    by_engine::push(engine, &registry, progress).await
}

/// A registry on this machine's loopback is not there for an engine on another machine.
fn check_reach(engine: &Engine, registry: &str) -> Result<(), ImageError> {
    if !engine.endpoint().is_remote() || !registry::is_loopback(registry) {
        return Ok(());
    }
    Err(ImageError::Endpoint {
        what: format!(
            "the Docker Engine at `{}` runs on another machine and cannot reach the registry at `{registry}`",
            engine.endpoint().host
        ),
        hint: "use an engine on this machine, or give the server a name that both can reach (`serve --public-url`)"
            .to_owned(),
    })
}
