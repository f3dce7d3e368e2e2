//! Brings the image to the tenant's registry: built, found or named; checked; pushed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::id::TenantId;
use crate::api::registry::RegistryToken;
use crate::cli::context::Context;
use crate::cli::deploy::Args;
use crate::cli::deploy::project::{Project, Scanned, Tries, at};
use crate::cli::error::{CliError, Kind};
use crate::image::binary;
use crate::image::build::{self, BuildRequest, Built};
use crate::image::engine::Engine;
use crate::image::error::ImageError;
use crate::image::progress::Progress;
use crate::image::prune::{self, REFERENCE_LABEL};
use crate::image::push::{self, PushRequest};

/// Carries the fingerprint, so that an image that is there already is known.
const FINGERPRINT_LABEL: &str = "io.systemprompt.fingerprint";
/// A credential that ends sooner is not begun with.
const SPARE_SECONDS: i64 = 60;
/// A refusal after so long is the credential's end, not a matter of rights.
const LONG_PUSH: Duration = Duration::from_secs(60);
const CREDENTIALS: usize = 4;

/// What the tenant's registry holds now.
pub(super) struct Brought {
    /// The reference to deploy.
    pub(super) image: String,
    pub(super) digest: String,
    /// Of the inputs that it was built from, where it says so.
    pub(super) fingerprint: Option<String>,
}

/// Builds if there is something to build, then pushes.
pub(super) async fn bring(
    context: &Context,
    args: &Args,
    (id, project): (&TenantId, &Project),
    scanned: Option<Scanned>,
) -> Result<Brought, CliError> {
    // Asked for first: who may not deploy need not wait for a build to hear it.
    let token = context.client()?.registry_token(id).await?;
    let environment = context.engine_environment(args.docker_host.clone(), args.docker_context.clone());
    let engine = Engine::connect(&environment).await?;
    let reference = token.image();
    let built = match (scanned, &args.image) {
        (Some(scanned), _) => build_steady(context, &engine, (args, project), (scanned, &reference)).await?,
        (None, Some(image)) => {
            if build::find(&engine, image).await?.is_none() {
                return Err(CliError::new(Kind::NotFound, format!("the engine has no image `{image}`"))
                    .hint(format!("get it with `docker pull {image}`, or see those that are there with `docker image ls`")));
            }
            build::tag(&engine, image, &reference).await?
        }
        (None, None) => build::find(&engine, &reference).await?.ok_or_else(|| {
            CliError::new(
                Kind::NotFound,
                "no image was built for this tenant on this engine yet",
            )
            .hint("leave `--skip-build` out, or name an image with `--image REFERENCE`")
        })?,
    };
    let digest = push_image(context, &engine, id, token).await?;
    remove_older(context, &engine, &reference).await;
    let fingerprint = built.labels.get(FINGERPRINT_LABEL).cloned();
    Ok(Brought {
        image: reference,
        digest,
        fingerprint,
    })
}

/// Builds; files that change meanwhile are looked at once more, so that the image is what its fingerprint says.
async fn build_steady(
    context: &Context,
    engine: &Engine,
    (args, project): (&Args, &Project),
    (mut scanned, reference): (Scanned, &str),
) -> Result<Built, CliError> {
    let mut tries = Tries::default();
    loop {
        match build_image(context, engine, (args, project), (&scanned, reference)).await {
            Ok(built) => return Ok(built),
            Err(error) => tries.again(context, at(Kind::BuildFailed, error)).await?,
        }
        scanned = project.scan(context).await?;
    }
}

async fn build_image(
    context: &Context,
    engine: &Engine,
    (args, project): (&Args, &Project),
    (scanned, reference): (&Scanned, &str),
) -> Result<Built, CliError> {
    let Scanned { files, fingerprint } = scanned;
    let found = if args.no_cache {
        None
    } else {
        build::find(engine, reference).await?
    };
    let found = found.filter(|built| built.labels.get(FINGERPRINT_LABEL) == Some(fingerprint));
    let built = match found {
        Some(found) => {
            context.ui().status("the image is built from these files already");
            found
        }
        None => {
            project.confirm(context, files).await?;
            let request = BuildRequest {
                context: files.clone(),
                reference: reference.to_owned(),
                args: project.build_args().clone(),
                target: project.config.target.clone(),
                platform: project.config.platform.clone(),
                no_cache: args.no_cache,
                labels: [
                    (FINGERPRINT_LABEL.to_owned(), fingerprint.clone()),
                    (REFERENCE_LABEL.to_owned(), reference.to_owned()),
                ]
                .into(),
                cache: Some(project.cache.clone()),
            };
            let progress: Arc<dyn Progress> = context.ui().progress();
            build::build(engine, request, progress).await?
        }
    };
    let target = project.config.target.as_deref();
    binary::check(engine, files, project.build_args(), target, &built).await?;
    Ok(built)
}

/// What earlier deploys left on this engine; that it cannot be removed is no reason not to deploy.
async fn remove_older(context: &Context, engine: &Engine, reference: &str) {
    match prune::prune(engine, reference).await {
        Ok(0) => {}
        Ok(1) => context
            .ui()
            .status("removed the image of an earlier deploy from this engine"),
        Ok(count) => context.ui().status(format!(
            "removed {count} images of earlier deploys from this engine"
        )),
        Err(error) => context
            .ui()
            .warning(format!("images of earlier deploys stay on this engine: {error}")),
    }
}

/// Pushes, with a new credential when the old one ends in the middle of a long push.
async fn push_image(
    context: &Context,
    engine: &Engine,
    id: &TenantId,
    token: RegistryToken,
) -> Result<String, CliError> {
    let progress = context.ui().progress();
    let mut token = token;
    let mut left = CREDENTIALS;
    let mut resumes = false;
    loop {
        if token.expires_at.seconds_since(context.clock().now()) < SPARE_SECONDS {
            token = context.client()?.registry_token(id).await?;
        }
        let request = PushRequest {
            registry: token.registry.clone(),
            repository: token.repository.clone(),
            tag: token.tag.clone(),
            username: token.username.clone(),
            password: token.token.clone(),
            ca_file: context.ca_file(),
            resumes,
        };
        let started = Instant::now();
        left -= 1;
        match push::push(engine, &request, progress.as_ref()).await {
            Ok(pushed) => return Ok(pushed.digest),
            Err(ImageError::PushRefused { .. }) if started.elapsed() > LONG_PUSH && left > 0 => {
                token = context.client()?.registry_token(id).await?;
                resumes = true;
            }
            Err(error) => return Err(at(Kind::PushFailed, error.into())),
        }
    }
}
