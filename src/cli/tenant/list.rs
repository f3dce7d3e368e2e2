//! `systemprompt tenant list`: the tenants of the account, and the local ones of this project.

use serde_json::{Value, json};

use crate::api::tenant::Tenant;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::show::{shown, status_word};
use crate::cli::ui::Table;
use crate::workspace::tenants::{TenantKind, Tenants};

/// Flags of `systemprompt tenant list`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Only the local tenants of this project; asks no server
    #[arg(long)]
    local: bool,
    /// Every tenant of the server, for its operators: what each is, nothing of what is in it
    #[arg(long, conflicts_with = "local")]
    all: bool,
}

/// Lists tenants.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    if args.all {
        return list_all(context).await;
    }
    let kept = match context.find_workspace() {
        Some(workspace) => workspace.read_tenants()?,
        None => Tenants::default(),
    };
    let has_local = kept.tenants.iter().any(|entry| entry.kind == TenantKind::Local);
    let cloud = if args.local {
        Vec::new()
    } else {
        list_cloud(context, has_local).await?
    };
    let document = json!({
        "tenants": documents(&cloud, &kept),
        "selected": kept.default_tenant().map(|entry| &entry.id),
    });
    context.ui().result(&document, || table(&cloud, &kept))
}

async fn list_all(context: &Context) -> Result<(), CliError> {
    let tenants = context.client()?.list_all_tenants().await?;
    context.ui().result(&json!({ "tenants": tenants }), || {
        if tenants.is_empty() {
            return "the server has no tenants".to_owned();
        }
        let mut table = Table::new(&["name", "status", "release", "plan", "memory", "owner", "id"]);
        for tenant in &tenants {
            let release = tenant.current_release.map(|number| format!("v{number}"));
            table.row([
                tenant.name.to_string(),
                status_word(tenant.status).to_owned(),
                release.unwrap_or_default(),
                tenant.plan.clone(),
                format!("{} MB", tenant.memory_mb),
                tenant.owner_id.to_string(),
                tenant.id.to_string(),
            ]);
        }
        table.render()
    })
}

async fn list_cloud(context: &Context, has_local: bool) -> Result<Vec<Tenant>, CliError> {
    match context.client()?.list_tenants().await {
        Ok(tenants) => Ok(tenants),
        // Local tenants work without a server and without a login; so does listing them.
        Err(error) if has_local => {
            context
                .ui()
                .warning(format!("only local tenants are listed: {error}"));
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

fn documents(cloud: &[Tenant], kept: &Tenants) -> Vec<Value> {
    let cloud = cloud
        .iter()
        .map(|tenant| with_type(json!(shown(tenant)), "cloud"));
    let local = kept
        .tenants
        .iter()
        .filter(|entry| entry.kind == TenantKind::Local);
    cloud.chain(local.map(|entry| json!(entry))).collect()
}

fn with_type(mut document: Value, kind: &str) -> Value {
    if let Some(object) = document.as_object_mut() {
        object.insert("type".to_owned(), kind.into());
    }
    document
}

fn table(cloud: &[Tenant], kept: &Tenants) -> String {
    let local: Vec<_> = kept
        .tenants
        .iter()
        .filter(|entry| entry.kind == TenantKind::Local)
        .collect();
    if cloud.is_empty() && local.is_empty() {
        return "no tenants; make one with `systemprompt tenant create`".to_owned();
    }
    let selected = kept.default_tenant().map(|entry| &entry.id);
    let mark = |is_selected: bool| if is_selected { "*" } else { "" }.to_owned();
    let mut table = Table::new(&["name", "status", "release", "url", "id", "selected"]);
    for tenant in cloud {
        table.row([
            tenant.name.to_string(),
            status_word(tenant.status).to_owned(),
            tenant
                .current_release
                .map(|number| format!("v{number}"))
                .unwrap_or_default(),
            tenant.url.clone(),
            tenant.id.to_string(),
            mark(selected == Some(&tenant.id)),
        ]);
    }
    for entry in local {
        table.row([
            entry.name.to_string(),
            "local".to_owned(),
            String::new(),
            String::new(),
            entry.id.to_string(),
            mark(selected == Some(&entry.id)),
        ]);
    }
    table.render()
}
