//! `systemprompt tenant members`: who may do what to a tenant.

use clap::Subcommand;
use serde_json::json;

use crate::api::id::TenantId;
use crate::api::member::{AddMember, Member, Role, UpdateMember};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Table;

/// Flags of `systemprompt tenant members`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show who may do what
    List(ListArgs),
    /// Let somebody who has an account on the server do something to the tenant
    Add(AddArgs),
    /// Give a member another role
    SetRole(SetRoleArgs),
    /// Take a member away; what they have a token for ends at once
    Remove(RemoveArgs),
}

#[derive(Debug, Default, clap::Args)]
struct Where {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// The address of their account
    email: String,
    /// `viewer` sees everything but values of secrets, `developer` deploys and sets secrets, `owner` does everything
    #[arg(long, value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
struct SetRoleArgs {
    /// The address of their account
    email: String,
    /// `viewer`, `developer` or `owner`
    role: Role,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The address of their account
    email: String,
    #[command(flatten)]
    place: Where,
}

/// Runs the verb.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match args.verb {
        Verb::List(args) => list(context, &args).await,
        Verb::Add(args) => add(context, args).await,
        Verb::SetRole(args) => set_role(context, &args).await,
        Verb::Remove(args) => remove(context, &args).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.place.tenant.as_deref()).await?;
    let members = context.client()?.list_members(&id).await?;
    context
        .ui()
        .result(&json!({ "tenant_id": id, "members": members }), || {
            let mut table = Table::new(&["who", "role", "since", "by"]);
            for member in &members {
                table.row([
                    member.email.clone(),
                    member.role.to_string(),
                    member.added_at.to_string(),
                    member.added_by.clone().unwrap_or_default(),
                ]);
            }
            table.render()
        })
}

async fn add(context: &Context, args: AddArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.place.tenant.as_deref()).await?;
    let new = AddMember {
        email: args.email,
        role: args.role,
    };
    let member = context.client()?.add_member(&id, &new).await?;
    let text = format!("`{}` is a member now, as `{}`", member.email, member.role);
    context
        .ui()
        .done(&json!({ "tenant_id": id, "member": member }), text)
}

async fn set_role(context: &Context, args: &SetRoleArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.place.tenant.as_deref()).await?;
    let member = find(context, &id, &args.email).await?;
    let wanted = UpdateMember { role: args.role };
    let client = context.client()?;
    let member = client.update_member(&id, &member.account_id, &wanted).await?;
    let text = format!("`{}` is `{}` now", member.email, member.role);
    context
        .ui()
        .done(&json!({ "tenant_id": id, "member": member }), text)
}

async fn remove(context: &Context, args: &RemoveArgs) -> Result<(), CliError> {
    let id = pick_cloud(context, args.place.tenant.as_deref()).await?;
    let member = find(context, &id, &args.email).await?;
    let client = context.client()?;
    client.remove_member(&id, &member.account_id).await?;
    let text = format!("`{}` is no member any more", member.email);
    context
        .ui()
        .done(&json!({ "tenant_id": id, "removed": member }), text)
}

async fn find(context: &Context, id: &TenantId, email: &str) -> Result<Member, CliError> {
    let members = context.client()?.list_members(id).await?;
    let email = email.trim().to_lowercase();
    members
        .into_iter()
        .find(|member| member.email == email)
        .ok_or_else(|| {
            CliError::new(Kind::NotFound, format!("`{email}` is no member of the tenant"))
                .hint("see who is with `systemprompt tenant members list`")
        })
}
