//! Which tenant a command means: named, selected, or chosen from a menu.

use crate::api::id::TenantId;
use crate::api::tenant::Tenant;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::ui::Prompt;
use crate::workspace::tenants::{TenantEntry, TenantKind, Tenants};

/// The tenant that a command means.
#[derive(Clone, Debug)]
pub enum Picked {
    /// On a server.
    Cloud(TenantId),
    /// On this machine.
    Local(Box<TenantEntry>),
}

/// The tenant that the flag, the environment, the selection of this project or a menu names, in this order.
pub async fn pick(context: &Context, flag: Option<&str>) -> Result<Picked, CliError> {
    let tenants = match context.find_workspace() {
        Some(workspace) => workspace.read_tenants()?,
        None => Tenants::default(),
    };
    let named = match flag {
        Some(text) => Some(text.to_owned()),
        None => context.named_tenant()?,
    };
    if let Some(text) = named {
        return by_text(context, &tenants, &text).await;
    }
    if let Some(entry) = tenants.default_tenant() {
        return Ok(of_entry(entry));
    }
    if !context.ui().interactive() {
        return Err(
            CliError::usage("no tenant is named, and none is selected in this project")
                .code("answer-missing")
                .hint("name one with `--tenant TENANT` or `SYSTEMPROMPT_TENANT`")
                .hint("select one for this project with `systemprompt tenant select TENANT`"),
        );
    }
    from_menu(context, &tenants).await
}

/// The same for commands that make sense only on a server.
pub async fn pick_cloud(context: &Context, flag: Option<&str>) -> Result<TenantId, CliError> {
    match pick(context, flag).await? {
        Picked::Cloud(id) => Ok(id),
        Picked::Local(entry) => Err(CliError::usage(format!(
            "`{}` is a local tenant: a database on this machine",
            entry.name
        ))
        .code("tenant-is-local")
        .hint(
            "name a tenant of a server with `--tenant TENANT`, or make one with `systemprompt tenant create`",
        )),
    }
}

fn of_entry(entry: &TenantEntry) -> Picked {
    match entry.kind {
        TenantKind::Cloud => Picked::Cloud(entry.id.clone()),
        TenantKind::Local => Picked::Local(Box::new(entry.clone())),
    }
}

async fn by_text(context: &Context, tenants: &Tenants, text: &str) -> Result<Picked, CliError> {
    let named = tenants.named(text);
    // Of several on a server at most one is there still; the server knows which.
    if let Some(entry) = named.first()
        && (named.len() == 1 || entry.kind == TenantKind::Local)
    {
        return Ok(of_entry(entry));
    }
    if let Ok(id) = text.parse::<TenantId>() {
        return Ok(Picked::Cloud(id));
    }
    let listed = context.client()?.list_tenants().await?;
    listed
        .into_iter()
        .find(|tenant| tenant.name.as_str() == text)
        .map(|tenant| Picked::Cloud(tenant.id))
        .ok_or_else(|| {
            CliError::new(Kind::NotFound, format!("there is no tenant `{text}`"))
                .hint("see your tenants with `systemprompt tenant list`")
        })
}

async fn from_menu(context: &Context, tenants: &Tenants) -> Result<Picked, CliError> {
    let local = tenants
        .tenants
        .iter()
        .filter(|entry| entry.kind == TenantKind::Local);
    let local: Vec<TenantEntry> = local.cloned().collect();
    let cloud: Vec<Tenant> = match context.client()?.list_tenants().await {
        Ok(cloud) => cloud,
        // Local tenants need no server.
        Err(_) if !local.is_empty() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if cloud.is_empty() && local.is_empty() {
        return Err(CliError::new(Kind::NotFound, "you have no tenant")
            .hint("make one with `systemprompt tenant create`"));
    }
    let mut items: Vec<String> = cloud
        .iter()
        .map(|tenant| {
            format!(
                "{} ({})",
                tenant.name,
                crate::cli::tenant::show::status_word(tenant.status)
            )
        })
        .collect();
    items.extend(local.iter().map(|entry| format!("{} (local)", entry.name)));
    let place = context
        .ui()
        .ask_choice(Prompt::new("Which tenant?", "--tenant TENANT"), items)
        .await?;
    match cloud.get(place) {
        Some(tenant) => Ok(Picked::Cloud(tenant.id.clone())),
        None => local
            .get(place - cloud.len())
            .map(of_entry)
            .ok_or_else(|| CliError::failed("the menu answered an entry that it does not have")),
    }
}
