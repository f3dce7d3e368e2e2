//! `systemprompt tenant scale`: another size of memory, without a gap.

use serde_json::json;

use crate::api::tenant::{MEMORY_SIZES_MB, TenantPatch};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::follow::{WaitArgs, wait};
use crate::cli::tenant::TenantArg;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::tenant::show::shown;
use crate::cli::ui::Prompt;
use crate::client::tenants::Changed;

/// Flags of `systemprompt tenant scale`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Memory in MB: 256, 512, 1024 or 2048
    #[arg(long, value_name = "MB", value_parser = memory)]
    memory: Option<u32>,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(tenant: String) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            ..Self::default()
        }
    }
}

fn memory(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("MB").unwrap_or(text).trim().parse().ok();
    number
        .filter(|size| MEMORY_SIZES_MB.contains(size))
        .ok_or_else(|| "choose 256, 512, 1024 or 2048".to_owned())
}

/// Gives a tenant another size. A size that its release does not get ready with is refused: the old one serves on.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let id = pick_cloud(context, args.tenant.text()).await?;
    let client = context.client()?;
    let before = client.get_tenant(&id).await?;
    let memory_mb = match args.memory {
        Some(memory) => memory,
        None => {
            let sizes = MEMORY_SIZES_MB.map(|size| match size == before.memory_mb {
                true => format!("{size} MB (now)"),
                false => format!("{size} MB"),
            });
            let prompt = Prompt::new("How much memory?", "--memory MB");
            let place = context.ui().ask_choice(prompt, sizes.to_vec()).await?;
            MEMORY_SIZES_MB.get(place).copied().unwrap_or(before.memory_mb)
        }
    };
    let patch = TenantPatch {
        memory_mb: Some(memory_mb),
        ..TenantPatch::default()
    };
    let operation = match client.edit_tenant(&id, &patch).await? {
        Changed::Operation(operation) => {
            let title = format!("Scaling `{}` to {memory_mb} MB", before.name);
            let ended = wait(context, *operation, &title, &args.wait).await;
            let ended = ended.map_err(|error| {
                error.hint(format!("`{}` has {} MB as before", before.name, before.memory_mb))
            })?;
            match ended {
                Some(operation) => Some(operation),
                None => return Ok(()),
            }
        }
        Changed::Tenant(_) => None,
    };
    let tenant = client.get_tenant(&id).await?;
    let said = match (&operation, before.memory_mb == memory_mb) {
        (_, true) => format!("`{}` has {memory_mb} MB already", tenant.name),
        (Some(_), false) => format!(
            "`{}` has {memory_mb} MB, before {}",
            tenant.name, before.memory_mb
        ),
        (None, false) => format!("the next release of `{}` gets {memory_mb} MB", tenant.name),
    };
    let document = json!({ "tenant": shown(&tenant), "operation": operation });
    context.ui().done(&document, said)
}
