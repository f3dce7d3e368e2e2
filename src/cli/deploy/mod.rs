//! `systemprompt deploy`: build this project's image, push it, release it, wait until it serves.

mod image;
mod project;

use serde_json::json;

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::release::DeployRequest;
use crate::api::tenant::{TenantReport, TenantStatus};
use crate::cli::context::Context;
use crate::cli::deploy::project::{Project, Scanned};
use crate::cli::error::{CliError, Kind};
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;

/// Flags of `systemprompt deploy`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Why, for the list of releases
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Push and release what was built before
    #[arg(long, conflicts_with_all = ["image", "no_cache", "build_arg", "target", "platform"])]
    skip_build: bool,
    /// Release this image of the local engine instead, or `current`: what runs now, with the secrets as they are
    #[arg(long, value_name = "REFERENCE", conflicts_with_all = ["no_cache", "build_arg", "target", "platform"])]
    image: Option<String>,
    /// Build every step anew, even when nothing has changed
    #[arg(long)]
    no_cache: bool,
    /// Value of an `ARG` line; wins over `build_args` of config.yaml
    #[arg(long, value_name = "NAME=VALUE", value_parser = project::parse_build_arg)]
    build_arg: Vec<(String, String)>,
    /// The stage to build, unless the last
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// What the image runs on: `linux/amd64` …
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// The Docker Engine [env: `DOCKER_HOST`]
    #[arg(long, value_name = "ADDRESS")]
    docker_host: Option<String>,
    /// The Docker context [env: `DOCKER_CONTEXT`]
    #[arg(long, value_name = "NAME", conflicts_with = "docker_host")]
    docker_context: Option<String>,
    /// Release all the same without this secret of the running release; may be given several times
    #[arg(long, value_name = "KEY")]
    allow_missing: Vec<SecretKey>,
    /// Do not ask, not even before a large build context is sent
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    /// A deploy to this tenant with every default: what `tenant create` offers at its end.
    #[must_use]
    pub fn for_tenant(tenant: &TenantId) -> Self {
        Self {
            tenant: TenantArg::of(tenant.to_string()),
            ..Self::default()
        }
    }
}

/// The image that is released.
const CURRENT: &str = "current";

/// Build this project's image, push it and release it.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let project = Project::resolve(context, &args)?;
    let id = pick_cloud(context, args.tenant.text()).await?;
    let report = context.client()?.tenant_status(&id).await?;
    check_ready(&report)?;

    let mut request = DeployRequest {
        image: CURRENT.to_owned(),
        digest: None,
        strategy: Some(project.config.strategy),
        message: args.message.clone(),
        fingerprint: None,
        release_command: project.config.release_command.clone(),
        health_path: Some(project.config.health_path.clone()),
        allow_missing: args.allow_missing.clone(),
    };
    let scanned = match (&args.image, args.skip_build) {
        (None, false) => Some(project.scan(context).await?),
        _ => None,
    };
    if let Some(scanned) = scanned
        .as_ref()
        .filter(|scanned| !args.no_cache && is_serving(&report, scanned))
    {
        if !has_staged_secrets(context, &id).await? {
            return unchanged(context, &report, scanned);
        }
        context
            .ui()
            .status("nothing has changed but secrets; they are released with the image that runs");
        request.digest = report.release.as_ref().map(|release| release.digest.clone());
        request.fingerprint = Some(scanned.fingerprint.clone());
    } else if args.image.as_deref() == Some(CURRENT) {
        request.fingerprint = report
            .release
            .as_ref()
            .and_then(|release| release.fingerprint.clone());
    } else {
        let pushed = image::bring(context, &args, (&id, &project), scanned).await?;
        request.image = pushed.image;
        request.digest = Some(pushed.digest);
        request.fingerprint = pushed.fingerprint;
    }
    release(context, &args, &report, &request).await
}

async fn release(
    context: &Context,
    args: &Args,
    report: &TenantReport,
    request: &DeployRequest,
) -> Result<(), CliError> {
    let tenant = &report.tenant;
    let operation = context.client()?.deploy(&tenant.id, request).await?;
    let title = format!("Deploying to `{}`", tenant.name);
    let ended = wait(context, operation, &title, &args.wait)
        .await
        .map_err(|error| nothing_serves(report, error))?;
    let Some(operation) = ended else { return Ok(()) };
    let text = |name: &str| {
        operation
            .result
            .get(name)
            .and_then(|value| value.as_str())
            .map(str::to_owned)
    };
    let url = text("url").unwrap_or_else(|| tenant.url.clone());
    let number = operation
        .result
        .get("release")
        .and_then(serde_json::Value::as_u64);
    let document = json!({
        "tenant_id": tenant.id,
        "name": tenant.name,
        "unchanged": false,
        "release": number,
        "digest": text("digest").or_else(|| request.digest.clone()),
        "fingerprint": request.fingerprint,
        "url": url,
        "held": operation.result.get("held"),
        "operation_id": operation.id,
    });
    let which = number.map_or_else(|| "the new release".to_owned(), |number| format!("v{number}"));
    context
        .ui()
        .success(format!("{which} of `{}` serves", tenant.name));
    context.ui().result(&document, || url.clone())
}

/// Exit code 9 promises that the old release serves on; where none has served, somebody must decide what now.
fn nothing_serves(report: &TenantReport, mut error: CliError) -> CliError {
    match (error.kind, &report.release) {
        (Kind::DeployFailed, None) => {
            error.kind = Kind::DeployStuck;
            error.hint("no release has served yet: mend it and run `systemprompt deploy` again")
        }
        (Kind::DeployFailed, Some(old)) => error.hint(format!("v{} serves on", old.number)),
        _ => error,
    }
}

/// What would be refused after the build is refused before it.
fn check_ready(report: &TenantReport) -> Result<(), CliError> {
    let name = &report.tenant.name;
    if let Some(operation) = &report.current_operation {
        let text = format!(
            "`{name}` is busy: {} by {} since {}",
            operation.kind, operation.requested_by, operation.created_at
        );
        return Err(CliError::new(Kind::Conflict, text).code("busy").hint(format!(
            "see how it ends with `systemprompt operation show {} --follow`",
            operation.id
        )));
    }
    let (text, hint) = match report.tenant.status {
        TenantStatus::Suspended => (
            "is suspended",
            format!("activate it with `systemprompt tenant activate {name}`"),
        ),
        TenantStatus::Deleting | TenantStatus::Deleted => (
            "is being removed",
            "see your tenants with `systemprompt tenant list`".to_owned(),
        ),
        _ => return Ok(()),
    };
    Err(CliError::new(Kind::Conflict, format!("`{name}` {text}")).hint(hint))
}

/// Whether what these files make is what serves.
fn is_serving(report: &TenantReport, scanned: &Scanned) -> bool {
    let is_same = |print: &String| *print == scanned.fingerprint;
    report.tenant.status == TenantStatus::Running
        && report.machine.state == "ok"
        && report
            .release
            .as_ref()
            .and_then(|release| release.fingerprint.as_ref())
            .is_some_and(is_same)
}

async fn has_staged_secrets(context: &Context, id: &TenantId) -> Result<bool, CliError> {
    Ok(context
        .client()?
        .list_secrets(id)
        .await?
        .iter()
        .any(|secret| secret.staged))
}

fn unchanged(context: &Context, report: &TenantReport, scanned: &Scanned) -> Result<(), CliError> {
    let tenant = &report.tenant;
    let release = report.release.as_ref();
    let document = json!({
        "tenant_id": tenant.id,
        "name": tenant.name,
        "unchanged": true,
        "release": release.map(|release| release.number),
        "digest": release.map(|release| &release.digest),
        "fingerprint": scanned.fingerprint,
        "url": tenant.url,
        "operation_id": null,
    });
    let number = release.map_or(0, |release| release.number);
    context.ui().success(format!(
        "nothing has changed: v{number} of `{}` is made from these files and serves",
        tenant.name
    ));
    context
        .ui()
        .hint("build all the same with `systemprompt deploy --no-cache`");
    context.ui().result(&document, || tenant.url.clone())
}
