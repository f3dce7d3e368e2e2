//! The ways in which the engine gets the context: through a session, where it asks for what it lacks, or as an archive.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as DockerError;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptionsBuilder, BuilderVersion};
use bollard::{BollardRequest, body_full, body_try_stream};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use crate::image::build::BuildRequest;
use crate::image::build::lines::Lines;
use crate::image::build::sync::Offer;
use crate::image::context::Upload;
use crate::image::engine::{Engine, url_safe_credentials};
use crate::image::error::ImageError;
use crate::image::progress::{Progress, ProgressEvent};

/// What tells the engine that the context is in the session.
const IN_SESSION: &str = "client-session";

type Credentials = Option<HashMap<String, DockerCredentials>>;

/// Has the engine build it; returns the image's id.
pub(super) async fn run(
    engine: &Engine,
    request: BuildRequest,
    credentials: Credentials,
    progress: &Arc<dyn Progress>,
) -> Result<String, ImageError> {
    if let Some(cache) = request.cache.as_deref().filter(|_| engine.info().buildkit) {
        let files = (&request.context, cache);
        if let Some(offer) = Offer::begin(engine, files, credentials.clone(), progress).await {
            match by_session(engine, &request, offer, progress).await {
                Err(error) if !is_the_projects(&error) => {
                    // The archive needs nothing of the engine but to read: what fails there too is no matter of the way.
                    progress.report(ProgressEvent::Line {
                        id: "build".to_owned(),
                        text: format!("the session with the engine failed ({error}); sending all files"),
                    });
                }
                built => return built,
            }
        }
    }
    by_archive(engine, request, credentials, progress).await
}

/// Whether a build failed for what the project is: a file that changed meanwhile, a command that failed. Whatever else it
/// was, a lost connection or a file that the engine does not find, may be the session's fault.
fn is_the_projects(error: &ImageError) -> bool {
    match error {
        ImageError::ContextChanged { .. } => true,
        ImageError::BuildFailed { step, .. } => step.contains("] RUN "),
        _ => false,
    }
}

async fn by_session(
    engine: &Engine,
    request: &BuildRequest,
    mut offer: Offer,
    progress: &Arc<dyn Progress>,
) -> Result<String, ImageError> {
    // The client opens a session of its own for every build that it knows to be BuildKit's.
    let options = options(request)
        .version(BuilderVersion::BuilderV1)
        .session(offer.session_id())
        .remote(IN_SESSION);
    let docker = engine.patient().with_request_modifier(for_buildkit);
    let built = {
        let answer = docker.build_image(options.build(), None, Some(body_full(Bytes::new())));
        tokio::select! {
            built = read(answer, progress, true) => built,
            never = offer.serve() => match never {},
        }
    };
    built.map_err(|error| offer.take_failure().unwrap_or(error))
}

async fn by_archive(
    engine: &Engine,
    request: BuildRequest,
    credentials: Credentials,
    progress: &Arc<dyn Progress>,
) -> Result<String, ImageError> {
    let mut options = options(&request);
    let has_session = engine.info().buildkit;
    if has_session {
        let session = uuid::Uuid::new_v4().to_string();
        options = options.version(BuilderVersion::BuilderBuildKit).session(&session);
    }
    let (upload, stream) = Upload::start(request.context, Arc::clone(progress));
    let docker = engine.patient();
    let answer = docker.build_image(options.build(), credentials, Some(body_try_stream(stream)));
    let built = read(answer, progress, has_session).await;
    built.map_err(|error| upload.take_failure().unwrap_or(error))
}

/// Reads the answer to its end, or with a session to the image's id: that answer ends only when the session does,
/// which is ours to end.
async fn read(
    answer: impl Stream<Item = Result<BuildInfo, DockerError>>,
    progress: &Arc<dyn Progress>,
    has_session: bool,
) -> Result<String, ImageError> {
    let mut lines = Lines::new(&**progress);
    let mut answer = pin!(answer);
    while let Some(line) = answer.next().await {
        lines.take(line.map_err(|error| failed(error, &lines))?);
        if has_session && lines.image_id().is_some() {
            break;
        }
    }
    let id = lines.image_id().map(str::to_owned);
    id.ok_or_else(|| lines.failure("the engine named no image".to_owned()))
}

/// Makes a request of the classic builder's one of BuildKit's.
fn for_buildkit(mut request: BollardRequest) -> BollardRequest {
    let uri = request.uri().to_string().replace("version=1", "version=2");
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    url_safe_credentials(request)
}

fn options(request: &BuildRequest) -> BuildImageOptionsBuilder {
    let mut options = BuildImageOptionsBuilder::default()
        .dockerfile(request.context.dockerfile_name())
        .nocache(request.no_cache)
        .rm(true)
        .forcerm(true)
        .buildargs(&request.args.clone().into_iter().collect())
        .labels(&request.labels.clone().into_iter().collect());
    if let Some(target) = &request.target {
        options = options.target(target);
    }
    if let Some(platform) = &request.platform {
        options = options.platform(platform);
    }
    options
}

fn failed(error: DockerError, lines: &Lines<'_>) -> ImageError {
    match error {
        DockerError::DockerStreamError { error } => lines.failure(error),
        // A Dockerfile that cannot be read is refused before the first step.
        DockerError::DockerResponseServerError {
            status_code: 400 | 500,
            message,
        } => lines.failure(message),
        error => ImageError::engine("build the image")(error),
    }
}
