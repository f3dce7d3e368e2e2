//! Members of a tenant: who they are, and what each may do.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::id::{AccountId, TenantId};
use crate::api::member::{AddMember, Member, Role, UpdateMember};
use crate::api::oauth::Scope;
use crate::api::page::{Page, PageQuery};
use crate::server::auth::accounts::normal_email;
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::http::extract::{Caller, Ids, Json as StrictJson, Params};
use crate::server::http::idempotency::commit;
use crate::server::http::page::{Paged, Wanted};
use crate::server::http::problem;
use crate::server::http::secrets::check_living;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, accounts, acts, members, tenants};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_members, add_member))
        .routes(routes!(update_member, remove_member))
}

/// Who may do what to the tenant; who has been there longest comes first.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant_id}/members", tag = "Members", params(PageQuery),
    responses((status = 200, body = Page<Member>))
)]
async fn list_members(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    Params(query): Params<PageQuery>,
) -> Answer<Paged<Member>> {
    let wanted = Wanted::new(&query)?;
    let (mut tx, _) = app.read_tenant(&caller, &id, Scope::Read).await?;
    let all = members::list(&mut tx, &id).await?;
    let path = format!("/api/v1/tenants/{id}/members");
    Ok(wanted.window(&path, all, |member| member.account_id.to_string()))
}

/// Let an account of this server do something to the tenant.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant_id}/members", tag = "Members", request_body = AddMember,
    responses((status = 201, body = Member))
)]
async fn add_member(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids(id): Ids<TenantId>,
    StrictJson(new): StrictJson<AddMember>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    check_living(&tenant)?;
    let email = normal_email(&new.email)?;
    acts::about(&format!("{email} {}", new.role));
    let account = accounts::find_by_email(&mut tx, &email).await?.ok_or_else(|| {
        ApiError::invalid("email", "nobody has an account of this address")
            .hint("the server's operator makes accounts: `systemprompt server account create`")
    })?;
    // Held until the commit: the same account is not added twice at once.
    tenants::get_locked(&mut tx, &id).await?;
    if let Some(role) = members::role_of(&mut tx, &id, &account.id).await? {
        let what = format!("`{email}` is a member already, as `{role}`");
        return Err(ApiError::new(&problem::ALREADY_MEMBER, what).hint(format!(
            "give them another role: `systemprompt tenant members set-role {email} {}`",
            new.role
        )));
    }
    let who = (&account.id, new.role);
    members::put(&mut tx, &id, who, &caller.email, app.clock.now()).await?;
    let member = member_of(&mut tx, &id, &account.id).await?;
    commit(&app, tx, (StatusCode::CREATED, Json(member))).await
}

/// Give a member another role.
#[utoipa::path(
    patch, path = "/api/v1/tenants/{tenant_id}/members/{account_id}", tag = "Members", request_body = UpdateMember,
    responses((status = 200, body = Member))
)]
async fn update_member(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, account)): Ids<(TenantId, AccountId)>,
    StrictJson(wanted): StrictJson<UpdateMember>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    check_living(&tenant)?;
    let tenant = tenants::get_locked(&mut tx, &tenant.id).await?;
    let member = member_of(&mut tx, &id, &account).await?;
    acts::about(&format!("{} {}", member.email, wanted.role));
    if member.role != wanted.role {
        hand_over(&app, &mut tx, &tenant, &member).await?;
        let who = (&account, wanted.role);
        members::put(&mut tx, &id, who, &caller.email, app.clock.now()).await?;
    }
    let member = member_of(&mut tx, &id, &account).await?;
    commit(&app, tx, Json(member)).await
}

/// Take a member away. What they have a token for ends at once.
#[utoipa::path(
    delete, path = "/api/v1/tenants/{tenant_id}/members/{account_id}", tag = "Members",
    responses((status = 204))
)]
async fn remove_member(
    State(app): State<App>,
    Caller(caller): Caller,
    Ids((id, account)): Ids<(TenantId, AccountId)>,
) -> Answer<Response> {
    let (mut tx, tenant) = app.write_tenant(&caller, &id, Scope::Admin).await?;
    check_living(&tenant)?;
    let tenant = tenants::get_locked(&mut tx, &tenant.id).await?;
    let member = member_of(&mut tx, &id, &account).await?;
    acts::about(&member.email);
    hand_over(&app, &mut tx, &tenant, &member).await?;
    members::remove(&mut tx, &id, &account).await?;
    commit(&app, tx, StatusCode::NO_CONTENT).await
}

async fn member_of(tx: &mut Tx, tenant: &TenantId, account: &AccountId) -> Answer<Member> {
    let member = members::find(tx, tenant, account).await?;
    member.ok_or_else(|| ApiError::not_found("member"))
}

/// Before somebody is an owner no more: another one must be there, and pays if this one has paid. The tenant's row is
/// held, so that two owners do not take each other away.
async fn hand_over(app: &App, tx: &mut Tx, tenant: &TenantRow, leaving: &Member) -> Answer<()> {
    if leaving.role != Role::Owner {
        return Ok(());
    }
    let heir = members::other_owner(tx, &tenant.id, &leaving.account_id).await?;
    let heir = heir.ok_or_else(|| {
        let what = format!("`{}` is the only owner of the tenant", leaving.email);
        ApiError::new(&problem::LAST_OWNER, what).hint(
            "make somebody else an owner first: `systemprompt tenant members set-role EMAIL owner`, \
             or delete the tenant",
        )
    })?;
    if tenant.owner_id == leaving.account_id {
        app.billing.check_room(tx, &heir.account_id, &tenant.plan).await?;
        tenants::set_owner(tx, &tenant.id, &heir.account_id, app.clock.now()).await?;
    }
    Ok(())
}
