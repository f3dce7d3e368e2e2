//! Deploying: push credentials, and the deploy itself.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::TenantId;
use crate::api::oauth::Scope;
use crate::api::operation::Operation;
use crate::api::registry::{REPOSITORY, RegistryToken, tenant_image, tenant_tag};
use crate::api::release::DeployRequest;
use crate::api::tenant::TenantStatus;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson};
use crate::server::http::idempotency::commit;
use crate::server::http::problem;
use crate::server::http::tenants::begin;
use crate::server::provision::{DeployParams, LostSecret, Work, losses_hint, losses_told};
use crate::server::registry::GateAccess;
use crate::server::store::releases;
use crate::server::store::tenants::TenantRow;

/// Life of push credentials, in seconds.
const PUSH_SECONDS: u32 = 900;
/// The user name that goes with them.
const PUSH_USER: &str = "systemprompt";
/// Deploys the image that runs already.
const CURRENT: &str = "current";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_registry_token))
        .routes(routes!(deploy_tenant))
}

/// Credentials for 15 minutes that may push the tenant's one tag.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/registry-token", tag = "Deploying",
    responses((status = 200, body = RegistryToken))
)]
async fn get_registry_token(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
) -> Answer<impl IntoResponse> {
    let (_, tenant) = app.read_tenant(&caller, &id, Scope::Deploy).await?;
    if matches!(tenant.status, TenantStatus::Deleting | TenantStatus::Deleted) {
        return Err(ApiError::new(&problem::TENANT_STATE, "the tenant is deleted"));
    }
    let (token, expires_at) = app.gate.mint(&id, GateAccess::Push, PUSH_SECONDS);
    let token = RegistryToken {
        registry: app.gate.registry_host().to_owned(),
        username: PUSH_USER.to_owned(),
        token,
        repository: REPOSITORY.to_owned(),
        tag: tenant_tag(&id),
        expires_at,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(token)))
}

/// Release the image that was pushed, or the one that runs (`current`), with the secrets as they are now.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/deploy", tag = "Deploying", request_body = DeployRequest,
    responses((status = 202, body = Operation))
)]
async fn deploy_tenant(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(request): StrictJson<DeployRequest>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Deploy).await?;
    check(&request)?;
    let digest = if request.image == CURRENT {
        let serving = match tenant.current_release {
            Some(number) => releases::find(&mut tx, &id, number).await?,
            None => None,
        };
        if let Some(serving) = serving {
            check_digest(&request, &serving.release.digest)?;
        }
        None
    } else {
        drop(tx);
        Some(pushed_digest(&app, &tenant, &request).await?)
    };
    let params = DeployParams {
        image: request.image,
        digest,
        message: request.message,
        fingerprint: request.fingerprint,
        release_command: request.release_command,
        health_path: request.health_path,
        strategy: request.strategy,
        allow_missing: request.allow_missing,
    };
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Deploy).await?;
    let lost = app
        .provision
        .lost_secrets(&mut tx, &tenant, &params.allow_missing)
        .await?;
    if !lost.is_empty() {
        return Err(secrets_missing(&lost));
    }
    let accepted = begin(&mut tx, &app, &caller, (&id, Work::Deploy(params))).await?;
    let answer = commit(&app, tx, accepted).await?;
    app.provision.wake();
    Ok(answer)
}

/// Names every secret that would be lost.
fn secrets_missing(lost: &[LostSecret]) -> ApiError {
    let error = ApiError::new(&problem::SECRETS_MISSING, losses_told(lost)).hint(losses_hint(lost));
    lost.iter()
        .fold(error, |error, lost| error.field("/allow_missing", lost.told()))
}

/// What the tenant's tag points to: the digest that will run, whatever is pushed later.
async fn pushed_digest(app: &App, tenant: &TenantRow, request: &DeployRequest) -> Answer<String> {
    let expected = tenant_image(app.gate.registry_host(), &tenant.id);
    if request.image != expected {
        let detail = format!(
            "this tenant deploys `{expected}` or `current`, not `{}`",
            request.image
        );
        return Err(ApiError::new(&problem::IMAGE_MISMATCH, detail)
            .field("/image", format!("must be `{expected}` or `current`"))
            .hint(format!("push to `{expected}` and deploy that")));
    }
    let pushed = app.gate.resolve_tag(&tenant.id).await?.ok_or_else(|| {
        ApiError::new(
            &problem::NO_IMAGE,
            format!("nothing was pushed to `{expected}` yet"),
        )
        .hint("`systemprompt deploy` builds and pushes first")
    })?;
    check_digest(request, &pushed.digest)?;
    Ok(pushed.digest)
}

fn check_digest(request: &DeployRequest, actual: &str) -> Answer<()> {
    match &request.digest {
        Some(wanted) if wanted != actual => Err(ApiError::new(
            &problem::DIGEST_CHANGED,
            format!("`{}` is `{actual}` now, not `{wanted}`", request.image),
        )
        .hint("somebody else pushed meanwhile: run `systemprompt deploy` again")),
        _ => Ok(()),
    }
}

fn check(request: &DeployRequest) -> Answer<()> {
    if request
        .message
        .as_ref()
        .is_some_and(|message| message.chars().count() > 500)
    {
        return Err(ApiError::invalid("message", "has at most 500 characters"));
    }
    if request
        .fingerprint
        .as_ref()
        .is_some_and(|print| print.len() > 128)
    {
        return Err(ApiError::invalid("fingerprint", "has at most 128 characters"));
    }
    let path_is_good = |path: &String| {
        path.starts_with('/') && path.len() <= 256 && path.bytes().all(|b| b.is_ascii_graphic())
    };
    if request
        .health_path
        .as_ref()
        .is_some_and(|path| !path_is_good(path))
    {
        return Err(ApiError::invalid(
            "health_path",
            "begins with `/` and has at most 256 visible ASCII characters",
        ));
    }
    let words = request.release_command.as_deref().unwrap_or_default();
    if words.len() > 64 || words.iter().any(|word| word.len() > 4096 || word.contains('\0')) {
        return Err(ApiError::invalid(
            "release_command",
            "has at most 64 words of at most 4096 bytes",
        ));
    }
    Ok(())
}
