//! `systemprompt tenant edit`: rename, resize, suspend, activate, new credentials.

use serde_json::json;

use crate::api::id::TenantId;
use crate::api::name::TenantName;
use crate::api::operation::Operation;
use crate::api::tenant::{MEMORY_SIZES_MB, TenantPatch};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::tenant::show::shown;
use crate::cli::tenant::{TenantArg, credentials};
use crate::cli::ui::Prompt;
use crate::client::tenants::Changed;

/// Flags of `systemprompt tenant edit`.
#[derive(Debug, Default, clap::Args)]
#[command(group(clap::ArgGroup::new("change").multiple(true)))]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// A new name; the hostname stays
    #[arg(long, group = "change")]
    name: Option<TenantName>,
    /// Memory in MB: 256, 512, 1024 or 2048
    #[arg(long, value_name = "MB", group = "change")]
    memory: Option<u32>,
    /// Stop it and keep its data
    #[arg(long, group = "change", conflicts_with = "activate")]
    suspend: bool,
    /// Start it again
    #[arg(long, group = "change")]
    activate: bool,
    /// Give it new database credentials; the old ones end
    #[arg(long, group = "change")]
    rotate_credentials: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    /// What the menu asks for: the change is chosen next.
    #[must_use]
    pub(super) fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            ..Self::default()
        }
    }

    const fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.memory.is_none()
            && !self.suspend
            && !self.activate
            && !self.rotate_credentials
    }
}

/// Changes a tenant.
pub(super) async fn run(context: &Context, mut args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    if args.is_empty() && choose(context, &mut args).await? {
        return crate::cli::secrets::set_asked(context, &id).await;
    }
    if let Some(memory) = args.memory.filter(|memory| !MEMORY_SIZES_MB.contains(memory)) {
        return Err(CliError::usage(format!("`--memory {memory}` is not a size"))
            .hint("choose 256, 512, 1024 or 2048"));
    }
    let mut operations = Vec::new();
    for (title, operation) in changes(context, &id, &args).await? {
        match wait(context, operation, title, &args.wait).await? {
            Some(operation) => operations.push(operation),
            None => return Ok(()),
        }
    }
    let tenant = context.client()?.get_tenant(&id).await?;
    if args.rotate_credentials && context.find_workspace().is_some() {
        credentials::fetch(context, &tenant).await?;
    } else if args.name.is_some()
        && let Some(workspace) = context.find_workspace()
        && workspace.read_tenants()?.find(id.as_str()).is_some()
    {
        credentials::register(workspace, &tenant)?;
    }
    context.ui().done(
        &json!({ "tenant": shown(&tenant), "operations": operations }),
        format!("`{}` is changed", tenant.name),
    )
}

/// Asks for the change; `true` when it is about secrets, which have a command of their own.
async fn choose(context: &Context, args: &mut Args) -> Result<bool, CliError> {
    let flags = "--name, --memory, --suspend, --activate or --rotate-credentials";
    let items = [
        "Rename",
        "Memory",
        "Suspend",
        "Activate",
        "Rotate credentials",
        "Set a secret",
    ];
    let ui = context.ui();
    let place = ui
        .ask_choice(
            Prompt::new("What to change?", flags),
            items.map(str::to_owned).to_vec(),
        )
        .await?;
    match place {
        0 => args.name = Some(ui.ask_text(Prompt::new("New name", "--name NAME"), None).await?),
        1 => {
            let sizes = MEMORY_SIZES_MB.map(|size| format!("{size} MB")).to_vec();
            let place = ui
                .ask_choice(Prompt::new("How much memory?", "--memory MB"), sizes)
                .await?;
            args.memory = MEMORY_SIZES_MB.get(place).copied();
        }
        2 => args.suspend = true,
        3 => args.activate = true,
        4 => args.rotate_credentials = true,
        _ => return Ok(true),
    }
    Ok(false)
}

/// Begins every change; what is done at once has no operation.
async fn changes(
    context: &Context,
    id: &TenantId,
    args: &Args,
) -> Result<Vec<(&'static str, Operation)>, CliError> {
    let client = context.client()?;
    let mut begun = Vec::new();
    if args.name.is_some() || args.memory.is_some() {
        let patch = TenantPatch {
            name: args.name.clone(),
            memory_mb: args.memory,
            ..TenantPatch::default()
        };
        if let Changed::Operation(operation) = client.edit_tenant(id, &patch).await? {
            begun.push(("Changing the tenant", *operation));
        }
    }
    if args.rotate_credentials {
        begun.push(("Rotating credentials", client.rotate_credentials(id).await?));
    }
    if args.suspend {
        begun.push(("Suspending", client.suspend_tenant(id).await?));
    }
    if args.activate {
        begun.push(("Activating", client.activate_tenant(id).await?));
    }
    Ok(begun)
}
