//! `systemprompt tenant edit`: rename, resize, suspend, activate, new credentials.

use std::time::Duration;

use serde_json::json;

use crate::api::id::TenantId;
use crate::api::name::TenantName;
use crate::api::operation::Operation;
use crate::api::tenant::{MEMORY_SIZES_MB, RotateJwtSecret, TenantPatch};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, parse_duration, wait};
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
    /// Give it another secret to sign its own tokens with
    #[arg(long, group = "change")]
    rotate_jwt_secret: bool,
    /// Let the former signing secret go now, before its time
    #[arg(long, group = "change", conflicts_with = "rotate_jwt_secret")]
    end_jwt_overlap: bool,
    /// For how long tokens of the former secret are still good: `2h`, `7d`; `0s` ends them at once [default: 2h]
    #[arg(long, value_name = "DURATION", value_parser = parse_overlap, requires = "rotate_jwt_secret")]
    overlap: Option<Duration>,
    #[command(flatten)]
    wait: WaitArgs,
}

fn parse_overlap(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        other => parse_duration(other),
    }
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
            && !self.rotate_jwt_secret
            && !self.end_jwt_overlap
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
    if (args.rotate_credentials || args.rotate_jwt_secret) && context.find_workspace().is_some() {
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
    let flags = "--name, --memory, --suspend, --activate, --rotate-credentials or --rotate-jwt-secret";
    let items = [
        "Rename",
        "Memory",
        "Suspend",
        "Activate",
        "Rotate credentials",
        "Rotate the signing secret",
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
        5 => args.rotate_jwt_secret = true,
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
    if args.rotate_jwt_secret {
        let seconds = args.overlap.map(|overlap| overlap.as_secs());
        let rotation = RotateJwtSecret {
            overlap_seconds: seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            end_overlap: false,
        };
        let operation = client.rotate_jwt_secret(id, &rotation).await?;
        begun.push(("Rotating the signing secret", operation));
    }
    if args.end_jwt_overlap {
        let end = RotateJwtSecret {
            end_overlap: true,
            ..RotateJwtSecret::default()
        };
        let operation = client.rotate_jwt_secret(id, &end).await?;
        begun.push(("Letting the former signing secret go", operation));
    }
    if args.suspend {
        begun.push(("Suspending", client.suspend_tenant(id).await?));
    }
    if args.activate {
        begun.push(("Activating", client.activate_tenant(id).await?));
    }
    Ok(begun)
}
