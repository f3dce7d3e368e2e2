//! The menu's `Operation`: what is being done to a tenant now, and what can be decided about it.

use crate::api::id::TenantId;
use crate::api::operation::{Operation, OperationStatus};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::operation;
use crate::cli::ui::Prompt;

/// Asks what to do with the operation that holds the tenant, or with its last one.
pub(super) async fn run(context: &Context, tenant: &TenantId) -> Result<(), CliError> {
    let operations = context.client()?.list_operations(tenant).await?;
    let Some(last) = operations.into_iter().next() else {
        return Err(CliError::failed("nothing was ever done to this tenant"));
    };
    let choices = choices(&last);
    let items = choices.iter().map(|(item, _)| (*item).to_owned()).collect();
    let question = format!("{} ({})", operation::heading(&last), last.id);
    let prompt = Prompt::new(&question, "name a verb, as in `systemprompt operation show`");
    let place = context.ui().ask_choice(prompt, items).await?;
    let Some((_, verb)) = choices.get(place) else {
        return Ok(());
    };
    operation::run(context, operation::Args::of(*verb, last.id)).await
}

fn choices(last: &Operation) -> Vec<(&'static str, operation::Word)> {
    use operation::Word::{Abandon, Cancel, Follow, Retry, Show};
    let mut choices = vec![("Show", Show)];
    if last.status == OperationStatus::Stuck {
        choices.push(("Retry", Retry));
        choices.push(("Abandon", Abandon));
    } else if !last.status.is_terminal() {
        choices.push(("Follow", Follow));
        choices.push(("Cancel", Cancel));
        choices.push(("Abandon", Abandon));
    } else if last.kind == "create-tenant" && last.status != OperationStatus::Succeeded {
        choices.push(("Retry", Retry));
    }
    choices
}
