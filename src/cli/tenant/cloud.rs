//! A tenant on a server: plan, checkout, its creation, and what is written into the project.
//!
//! Everything is written before anything else is asked, and the credentials are confirmed only after they are on
//! the disk: whatever is interrupted, the same command takes it up again.

use std::time::Duration;

use serde_json::json;

use crate::api::checkout::{Checkout, CheckoutRequest, CheckoutStatus, Plan};
use crate::api::id::TenantId;
use crate::api::operation::Operation;
use crate::api::tenant::{DatabaseKind, MEMORY_SIZES_MB, Tenant};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::follow;
use crate::cli::tenant::create::{Args, Database, name};
use crate::cli::tenant::credentials;
use crate::cli::tenant::show::shown;
use crate::cli::ui::Prompt;
use crate::client::error::ClientError;
use crate::workspace::Workspace;

const PAYMENT_POLL: Duration = Duration::from_secs(2);
const MENU: &str = "tenant create";

/// Creates a tenant on a server.
pub(super) async fn create(context: &Context, args: &Args) -> Result<(), CliError> {
    let workspace = context.workspace()?;
    if !args.skip_build_check {
        check_build(workspace)?;
    }
    // Files that cannot be read now could not be written after the payment either.
    workspace.read_tenants()?;
    let request = resolve(context, args).await?;
    let (tenant_id, operation) = purchase(context, args, &request).await?;
    let client = context.client()?;
    let tenant = client.get_tenant(&tenant_id).await?;
    credentials::register(workspace, &tenant)?;
    context.set_reattach(Some(format!("systemprompt tenant show {tenant_id} --secrets")));
    if args.wait.detach {
        return context.ui().done(
            &json!({ "tenant": shown(&tenant), "operation": operation }),
            format!("`{}` is being created; fetch its credentials later with `systemprompt tenant show {tenant_id} --secrets`", tenant.name),
        );
    }
    let operation = match operation {
        Some(operation) => {
            let title = format!("Creating `{}`", tenant.name);
            let ended = follow::watch(context, &operation, &title, args.wait.timeout).await?;
            follow::concluded(ended).map_err(|error| {
                error.hint(format!(
                    "take it up again with `systemprompt tenant retry {tenant_id}`"
                ))
            })?
        }
        None => return finish_without_operation(context, &tenant_id).await,
    };
    finish(context, &tenant_id, &operation).await?;
    offer_deploy(context, args, &tenant_id).await
}

/// What is left once the tenant's infrastructure is there: credentials onto the disk, and saying so.
pub(super) async fn finish(context: &Context, id: &TenantId, operation: &Operation) -> Result<(), CliError> {
    let tenant = kept(context, id).await?;
    let document = json!({ "tenant": shown(&tenant), "operation": operation });
    context.ui().done(&document, ready(&tenant))
}

async fn finish_without_operation(context: &Context, id: &TenantId) -> Result<(), CliError> {
    let tenant = kept(context, id).await?;
    let document = json!({ "tenant": shown(&tenant), "operation": null });
    context.ui().done(&document, ready(&tenant))
}

async fn kept(context: &Context, id: &TenantId) -> Result<Tenant, CliError> {
    let tenant = context.client()?.get_tenant(id).await?;
    if !credentials::fetch(context, &tenant).await? {
        context
            .ui()
            .warning("the credentials of this tenant were given out before and are not in this project");
        context.ui().hint(format!(
            "make new ones with `systemprompt tenant edit {id} --rotate-credentials`"
        ));
    }
    credentials::register(context.workspace()?, &tenant)?;
    context.set_reattach(None);
    Ok(tenant)
}

fn ready(tenant: &Tenant) -> String {
    format!(
        "`{}` ({}) is ready; deploy to it with `systemprompt deploy`",
        tenant.name, tenant.id
    )
}

/// The seed's rule: build before you buy.
fn check_build(workspace: &Workspace) -> Result<(), CliError> {
    let config = workspace.read_config()?;
    let missing = workspace.missing_artifacts(&config);
    if missing.is_empty() {
        return Ok(());
    }
    let mut error = CliError::failed("this project is not built yet")
        .code("not-built")
        .details(
            missing
                .iter()
                .map(|artifact| format!("missing: {}", artifact.path.display())),
        );
    for artifact in &missing {
        error = error.hint(format!(
            "build `{}` with `{}`",
            artifact.path.display(),
            artifact.build
        ));
    }
    Err(error.hint("create the tenant all the same with `--skip-build-check`"))
}

async fn resolve(context: &Context, args: &Args) -> Result<CheckoutRequest, CliError> {
    if let Some(memory) = args.memory.filter(|memory| !MEMORY_SIZES_MB.contains(memory)) {
        return Err(CliError::usage(format!("`--memory {memory}` is not a size"))
            .hint("choose 256, 512, 1024 or 2048"));
    }
    let plans = context.client()?.list_plans().await?;
    let name = name(context, args).await?;
    let plan = choose_plan(context, args, &plans).await?;
    let region = choose_region(context, args, plan).await?;
    if plan.amount_minor > 0 && !args.yes {
        let question = format!("Create `{name}` on plan {}?", plan_line(plan));
        if !context
            .ui()
            .ask_confirm(Prompt::new(&question, "--yes"), true)
            .await?
        {
            return Err(CliError::failed("nothing was bought"));
        }
    }
    Ok(CheckoutRequest {
        price_id: plan.price_id.clone(),
        name,
        region,
        memory_mb: args.memory,
        database: match args.database {
            Some(Database::Sqlite) => DatabaseKind::Sqlite,
            Some(Database::Postgres) | None => DatabaseKind::Postgres,
        },
        redirect_uri: None,
    })
}

async fn choose_plan<'p>(context: &Context, args: &Args, plans: &'p [Plan]) -> Result<&'p Plan, CliError> {
    let names = || {
        plans
            .iter()
            .map(|plan| plan.name.as_str())
            .collect::<Vec<_>>()
            .join("`, `")
    };
    let place = match (&args.plan, plans) {
        (Some(text), _) => {
            let wanted = |plan: &Plan| plan.name == *text || plan.price_id == *text;
            return plans.iter().find(|plan| wanted(plan)).ok_or_else(|| {
                CliError::usage(format!("the server has no plan `{text}`"))
                    .hint(format!("choose one of `{}`", names()))
            });
        }
        (None, [_]) => 0,
        // The default must not cost anything.
        (None, _) if args.yes => plans
            .iter()
            .position(|plan| plan.amount_minor == 0)
            .unwrap_or(usize::MAX),
        (None, _) => {
            let items = plans.iter().map(plan_line).collect();
            context
                .ui()
                .ask_choice(Prompt::new("Which plan?", "--plan PLAN"), items)
                .await?
        }
    };
    plans.get(place).ok_or_else(|| {
        CliError::usage("a plan must be named: this server has no free one")
            .code("answer-missing")
            .hint(format!("name it with `--plan PLAN`, one of `{}`", names()))
    })
}

async fn choose_region(context: &Context, args: &Args, plan: &Plan) -> Result<String, CliError> {
    if let Some(region) = &args.region {
        return Ok(region.clone());
    }
    let place = match plan.regions.as_slice() {
        [] | [_] => 0,
        _ if args.yes => 0,
        regions => {
            let prompt = Prompt::new("Which region?", "--region REGION");
            context.ui().ask_choice(prompt, regions.to_vec()).await?
        }
    };
    Ok(plan
        .regions
        .get(place)
        .cloned()
        .unwrap_or_else(|| "local".to_owned()))
}

fn plan_line(plan: &Plan) -> String {
    let price = match plan.amount_minor {
        0 => "free".to_owned(),
        amount => format!(
            "{}.{:02} {} a {}",
            amount / 100,
            amount % 100,
            plan.currency,
            plan.interval.as_deref().unwrap_or("month")
        ),
    };
    format!("{}: {price}, up to {} MB", plan.name, plan.max_memory_mb)
}

/// Buys the tenant; answers it and the operation that creates it. A purchase whose answer was lost is taken up.
async fn purchase(
    context: &Context,
    args: &Args,
    request: &CheckoutRequest,
) -> Result<(TenantId, Option<Operation>), CliError> {
    let client = context.client()?;
    let mut checkout = match client.create_checkout(request).await {
        Ok(checkout) => checkout,
        Err(error) if error.code() == Some("name-taken") => return adopt(context, request, error).await,
        Err(error) => return Err(error.into()),
    };
    if checkout.status == CheckoutStatus::Open {
        checkout = wait_for_payment(context, args, checkout).await?;
    }
    let Some(tenant_id) = checkout.tenant_id else {
        return Err(
            CliError::failed("the server completed the checkout without a tenant")
                .hint("look for it with `systemprompt tenant list`"),
        );
    };
    let operation = match &checkout.operation_id {
        Some(id) => Some(client.get_operation(id).await?),
        None => None,
    };
    Ok((tenant_id, operation))
}

/// The name is taken: by us, in a creation that was interrupted, or by somebody else.
async fn adopt(
    context: &Context,
    request: &CheckoutRequest,
    error: ClientError,
) -> Result<(TenantId, Option<Operation>), CliError> {
    let client = context.client()?;
    let tenants = client.list_tenants().await?;
    let Some(tenant) = tenants.into_iter().find(|tenant| tenant.name == request.name) else {
        return Err(CliError::from(error));
    };
    if tenant.credentials_token.is_none() && context.workspace()?.has_secrets(tenant.id.as_str())? {
        return Err(CliError::new(
            Kind::Conflict,
            format!("you have a tenant `{}` already", tenant.name),
        )
        .code("name-taken")
        .hint(format!(
            "look at it with `systemprompt tenant show {}`",
            tenant.name
        )));
    }
    context.ui().status(format!(
        "you have `{}` already; taking up its creation",
        tenant.name
    ));
    let operations = client.list_operations(&tenant.id).await?;
    let creation = operations
        .into_iter()
        .find(|operation| operation.kind == "create-tenant");
    Ok((tenant.id, creation))
}

async fn wait_for_payment(
    context: &Context,
    args: &Args,
    mut checkout: Checkout,
) -> Result<Checkout, CliError> {
    let url = checkout.checkout_url.clone().unwrap_or_default();
    context.ui().notice(format!("Pay here: {url}"));
    if !args.no_browser {
        crate::cli::login::open_browser(context, &url);
    }
    let reporter = context.ui().progress();
    reporter.wait(MENU, "waiting for the payment");
    let began = std::time::Instant::now();
    while checkout.status == CheckoutStatus::Open && began.elapsed() < args.wait.timeout {
        tokio::time::sleep(PAYMENT_POLL).await;
        checkout = context.client()?.get_checkout(&checkout.checkout_id).await?;
    }
    reporter.wait_over(MENU);
    match checkout.status {
        CheckoutStatus::Complete => Ok(checkout),
        CheckoutStatus::Open => Err(CliError::new(Kind::Payment, "the payment has not come yet")
            .hint(format!("pay at {url}, then run the same command again"))),
        CheckoutStatus::Expired => Err(CliError::new(
            Kind::Payment,
            "the checkout has ended without a payment",
        )
        .hint("run the same command again to begin a new one")),
    }
}

/// Only after everything is written is anything else asked.
async fn offer_deploy(context: &Context, args: &Args, id: &TenantId) -> Result<(), CliError> {
    let ui = context.ui();
    if args.yes || ui.json() || !ui.interactive() {
        return Ok(());
    }
    if ui
        .ask_confirm(Prompt::new("Deploy to it now?", "--yes"), true)
        .await?
    {
        return crate::cli::deploy::run(context, crate::cli::deploy::Args::for_tenant(id)).await;
    }
    Ok(())
}
