//! Secrets: write-only values of a tenant, and the one-time retrieval of its credentials.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::TenantId;
use crate::api::name::SecretKey;
use crate::api::oauth::Scope;
use crate::api::page::{Page, PageQuery};
use crate::api::secret::{
    Credentials, RestoreSecret, Secret, SecretChange, SecretText, SecretVersion, SetSecret, StageQuery,
    UpdateSecret,
};
use crate::api::tenant::TenantStatus;
use crate::server::auth::Principal;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::http::problem;
use crate::server::provision::{NewOperation, Work};
use crate::server::store::events::{self, NewEvent};
use crate::server::store::secret_versions::{self, SecretScope};
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, acts};

const MAX_VALUE_BYTES: usize = 32 * 1024;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_secrets, create_secret))
        .routes(routes!(get_secret, update_secret, delete_secret))
        .routes(routes!(list_secret_versions))
        .routes(routes!(restore_secret))
        .routes(routes!(get_credentials))
        .routes(routes!(confirm_credentials))
}

/// The tenant's secrets without their values.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/secrets", tag = "Secrets", params(PageQuery),
    responses((status = 200, body = Page<Secret>))
)]
async fn list_secrets(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Secret>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let secrets = app.provision.list_secrets(&mut tx, &tenant).await?;
    let path = format!("/api/v1/tenants/{id}/secrets");
    Ok(wanted.window(&path, secrets, |secret| secret.key.to_string()))
}

/// One secret without its value.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/secrets/{key}", tag = "Secrets",
    responses((status = 200, body = Secret))
)]
async fn get_secret(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, key)): Ids<(TenantId, SecretKey)>,
) -> Answer<Json<Secret>> {
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Read).await?;
    find_secret(&app, &mut tx, &tenant, &key).await.map(Json)
}

async fn find_secret(app: &App, tx: &mut Tx, tenant: &TenantRow, key: &SecretKey) -> Answer<Secret> {
    app.provision
        .list_secrets(tx, tenant)
        .await?
        .into_iter()
        .find(|secret| secret.key == *key)
        .ok_or_else(|| no_secret(key))
}

fn no_secret(key: &SecretKey) -> ApiError {
    ApiError::new(&problem::NOT_FOUND, format!("the tenant has no secret `{key}`"))
}

/// Every value that a secret has had, newest first, without the values. Removals are among them.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/secrets/{key}/versions", tag = "Secrets", params(PageQuery),
    responses((status = 200, body = Page<SecretVersion>))
)]
async fn list_secret_versions(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, key)): Ids<(TenantId, SecretKey)>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<SecretVersion>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let rows = secret_versions::list_versions(&mut tx, &id, SecretScope::User, key.as_str()).await?;
    if rows.is_empty() {
        return Err(no_secret(&key));
    }
    let path = format!("/api/v1/tenants/{id}/secrets/{key}/versions");
    let versions = rows.into_iter().map(|row| SecretVersion {
        version: row.version,
        digest: row.digest,
        set_by: row.set_by,
        set_at: row.set_at,
        removed: row.sealed_value.is_none(),
    });
    Ok(wanted.window(&path, versions.collect(), |version| version.version.to_string()))
}

/// Set a secret, new or not. It is applied by a new release of the same image, or by the next deploy (`stage`).
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/secrets", tag = "Secrets",
    params(StageQuery), request_body = SetSecret,
    responses((status = 200, body = SecretChange), (status = 202, body = SecretChange))
)]
async fn create_secret(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<StageQuery>,
    StrictJson(new): StrictJson<SetSecret>,
) -> Answer<Response> {
    acts::about(new.key.as_str());
    check_value(&new.value)?;
    let (tx, tenant) = app.write_tenant(&caller, &id, Scope::Secrets).await?;
    check_living(&tenant)?;
    set_value(&app, &caller, (tx, tenant), (&new.key, &new.value), query.stage).await
}

/// Give a secret a new value.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant_id}/secrets/{key}", tag = "Secrets",
    params(StageQuery), request_body = UpdateSecret,
    responses((status = 200, body = SecretChange), (status = 202, body = SecretChange))
)]
async fn update_secret(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, key)): Ids<(TenantId, SecretKey)>,
    Params(query): Params<StageQuery>,
    StrictJson(new): StrictJson<UpdateSecret>,
) -> Answer<Response> {
    check_value(&new.value)?;
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Secrets).await?;
    check_living(&tenant)?;
    find_secret(&app, &mut tx, &tenant, &key).await?;
    set_value(&app, &caller, (tx, tenant), (&key, &new.value), query.stage).await
}

async fn set_value(
    app: &App,
    caller: &Principal,
    (mut tx, tenant): (Tx, TenantRow),
    (key, value): (&SecretKey, &SecretText),
    stage: bool,
) -> Answer<Response> {
    let set = app
        .provision
        .set_secret(&mut tx, &tenant, (key, value), &caller.email)
        .await?;
    let what = format!("`{key}` was set (version {})", set.version);
    let change = Change {
        tenant,
        secret: Some(set),
        event: ("secret_set", what),
        stage,
    };
    finish(app, tx, caller, change).await
}

/// Give a secret the value of an earlier version again, as a new version.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/secrets/{key}/restore", tag = "Secrets",
    params(StageQuery), request_body = RestoreSecret,
    responses((status = 200, body = SecretChange), (status = 202, body = SecretChange))
)]
async fn restore_secret(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, key)): Ids<(TenantId, SecretKey)>,
    Params(query): Params<StageQuery>,
    StrictJson(wanted): StrictJson<RestoreSecret>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Secrets).await?;
    check_living(&tenant)?;
    let version = wanted.version;
    acts::about(&format!("{key} version {version}"));
    let earlier = app
        .provision
        .earlier_secret(&mut tx, &tenant, (&key, version))
        .await?;
    let value = earlier.ok_or_else(|| {
        ApiError::new(
            &problem::NOT_FOUND,
            format!("`{key}` has no value in a version {version}"),
        )
        .hint(format!(
            "see its versions with `systemprompt secrets history {key}`"
        ))
    })?;
    let set = app
        .provision
        .set_secret(&mut tx, &tenant, (&key, &value), &caller.email)
        .await?;
    let what = format!(
        "`{key}` has the value of version {version} again (version {})",
        set.version
    );
    finish(
        &app,
        tx,
        &caller,
        Change {
            tenant,
            secret: Some(set),
            event: ("secret_set", what),
            stage: query.stage,
        },
    )
    .await
}

/// Remove a secret.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant_id}/secrets/{key}", tag = "Secrets", params(StageQuery),
    responses((status = 200, body = SecretChange), (status = 202, body = SecretChange))
)]
async fn delete_secret(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, key)): Ids<(TenantId, SecretKey)>,
    Params(query): Params<StageQuery>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Secrets).await?;
    check_living(&tenant)?;
    if !app
        .provision
        .unset_secret(&mut tx, &tenant, &key, &caller.email)
        .await?
    {
        return Err(no_secret(&key));
    }
    let what = format!("`{key}` was removed");
    finish(
        &app,
        tx,
        &caller,
        Change {
            tenant,
            secret: None,
            event: ("secret_removed", what),
            stage: query.stage,
        },
    )
    .await
}

/// A change of secrets that is written but not committed.
struct Change {
    tenant: TenantRow,
    secret: Option<Secret>,
    event: (&'static str, String),
    stage: bool,
}

/// Writes the event, queues the release that applies the change where something runs, and commits all of it at once.
async fn finish(app: &App, mut tx: Tx, caller: &Principal, change: Change) -> Answer<Response> {
    let id = &change.tenant.id;
    let (event, what) = change.event;
    events::append(&mut tx, id, None, &NewEvent::new(event, what), app.clock.now()).await?;
    let runs = change.tenant.current_release.is_some() && change.tenant.status != TenantStatus::Suspended;
    let operation_id = if runs && !change.stage {
        app.billing.check_releases(&mut tx, &change.tenant).await?;
        let new = NewOperation {
            tenant_id: id.clone(),
            work: Work::ApplySecrets,
            requested_by: caller.email.clone(),
        };
        Some(app.provision.enqueue(&mut tx, new).await?)
    } else {
        None
    };
    let location = operation_id.as_ref().map(|id| format!("/api/v1/operations/{id}"));
    let body = Json(SecretChange {
        secret: change.secret,
        operation_id,
    });
    let answer = match location {
        Some(location) => (StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response(),
        None => body.into_response(),
    };
    let answer = commit(app, tx, answer).await?;
    app.provision.announce(id);
    app.provision.wake();
    Ok(answer)
}

/// Refuses changes of a tenant that is gone or going.
///
/// # Errors
/// It is.
pub fn check_living(tenant: &TenantRow) -> Answer<()> {
    if matches!(tenant.status, TenantStatus::Deleting | TenantStatus::Deleted) {
        return Err(ApiError::new(&problem::TENANT_STATE, "the tenant is deleted"));
    }
    Ok(())
}

fn check_value(value: &SecretText) -> Answer<()> {
    if value.expose().len() > MAX_VALUE_BYTES {
        return Err(ApiError::invalid("value", "has at most 32 KiB"));
    }
    if value.expose().contains('\0') {
        return Err(ApiError::invalid(
            "value",
            "cannot hold a NUL byte, since it becomes a variable",
        ));
    }
    Ok(())
}

/// The tenant's credentials, until they are confirmed.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/credentials/{token}", tag = "Secrets",
    responses((status = 200, body = Credentials))
)]
async fn get_credentials(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, token)): Ids<(TenantId, String)>,
) -> Answer<impl IntoResponse> {
    let (mut tx, tenant) = app.read_tenant(&caller, &id, Scope::Secrets).await?;
    let credentials = app.provision.credentials(&mut tx, &tenant, &token).await?;
    let credentials = credentials.ok_or_else(no_grant)?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(credentials)))
}

/// Say that the credentials are safely kept; their token ends.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/credentials/{token}/confirm", tag = "Secrets",
    responses((status = 204))
)]
async fn confirm_credentials(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, token)): Ids<(TenantId, String)>,
) -> Answer<Response> {
    let (mut tx, _) = app.write_tenant(&caller, &id, Scope::Secrets).await?;
    if !app.provision.confirm_credentials(&mut tx, &id, &token).await? {
        return Err(no_grant());
    }
    commit(&app, tx, StatusCode::NO_CONTENT).await
}

fn no_grant() -> ApiError {
    ApiError::new(
        &problem::NOT_FOUND,
        "the one-time token was confirmed, has expired, or never was",
    )
    .hint("new credentials: `systemprompt tenant edit --rotate-credentials`")
}
