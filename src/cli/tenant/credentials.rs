//! The one-time credentials of a tenant: onto the disk first, then confirmed, so that a lost reply loses nothing.

use crate::api::tenant::Tenant;
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::show::database_word;
use crate::workspace::Workspace;
use crate::workspace::profile::Profile;
use crate::workspace::tenants::{TenantEntry, TenantKind};

/// Puts the tenant into this project: `tenants.json`, and the profile. The first one becomes the selected one.
pub(super) fn register(workspace: &Workspace, tenant: &Tenant) -> Result<(), CliError> {
    let entry = TenantEntry {
        id: tenant.id.clone(),
        name: tenant.name.clone(),
        kind: TenantKind::Cloud,
        region: Some(tenant.region.clone()),
        hostname: Some(tenant.hostname.clone()),
        created_at: tenant.created_at,
        other: serde_json::Map::new(),
    };
    let id = tenant.id.as_str();
    let profile = Profile::new(id, database_word(tenant.database), &tenant.url, id, true);
    workspace.ensure_profile(&profile)?;
    workspace.change_tenants(|tenants| {
        tenants.put(entry);
        tenants.selected.get_or_insert_with(|| tenant.id.clone());
    })?;
    Ok(())
}

/// Fetches the credentials if they still wait on the server; answers whether this project has them now.
pub(super) async fn fetch(context: &Context, tenant: &Tenant) -> Result<bool, CliError> {
    let workspace = context.workspace()?;
    let Some(token) = &tenant.credentials_token else {
        return Ok(workspace.has_secrets(tenant.id.as_str())?);
    };
    let client = context.client()?;
    let credentials = client.get_credentials(&tenant.id, token).await?;
    workspace.keep_secrets(
        tenant.id.as_str(),
        &credentials.database_url,
        &credentials.jwt_secret,
    )?;
    register(workspace, tenant)?;
    client.confirm_credentials(&tenant.id, token).await?;
    context.ui().status(format!(
        "credentials kept in `{}`",
        relative_path(workspace, tenant.id.as_str())
    ));
    Ok(true)
}

fn relative_path(workspace: &Workspace, profile: &str) -> String {
    let path = workspace.secrets_path(profile);
    path.strip_prefix(workspace.root())
        .unwrap_or(&path)
        .display()
        .to_string()
}
