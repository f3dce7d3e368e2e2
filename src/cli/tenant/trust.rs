//! `systemprompt tenant trust`: which CI jobs may deploy without a stored secret.

use clap::Subcommand;
use serde_json::json;

use crate::api::id::TrustRuleId;
use crate::api::trust::{CreateTrustRule, GITHUB, GITLAB};
use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::cli::tenant::pick::pick_cloud;
use crate::cli::ui::Table;

/// Flags of `systemprompt tenant trust`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tenant, by id or name [env: `SYSTEMPROMPT_TENANT`] [default: the one selected in this project]
    #[arg(long, value_name = "TENANT", global = true)]
    tenant: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the repositories whose jobs may deploy; what `trust` alone does
    List,
    /// Let the jobs of a repository deploy, with your rights
    Add(AddArgs),
    /// Take a rule back
    Remove {
        /// The rule, by its id
        rule: TrustRuleId,
    },
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    /// Who signs the jobs' identities: `github`, `gitlab`, or the URL of another that the server allows
    #[arg(long, value_name = "ISSUER", default_value = "github")]
    issuer: String,
    /// The repository: `owner/name`, with groups on GitLab
    #[arg(long, value_name = "OWNER/NAME")]
    repository: String,
    /// The branch or tag: `main`, `refs/tags/v*`
    #[arg(long = "ref", value_name = "REF", default_value = "main")]
    git_ref: String,
}

/// Runs the verb; without one, lists.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    let tenant = args.tenant.as_deref();
    match args.verb {
        None | Some(Verb::List) => list(context, tenant).await,
        Some(Verb::Add(rule)) => add(context, tenant, rule).await,
        Some(Verb::Remove { rule }) => remove(context, tenant, &rule).await,
    }
}

async fn list(context: &Context, tenant: Option<&str>) -> Result<(), CliError> {
    let id = pick_cloud(context, tenant).await?;
    let rules = context.client()?.list_trust_rules(&id).await?;
    let document = json!({ "tenant_id": id, "trust_rules": rules });
    context.ui().result(&document, || {
        if rules.is_empty() {
            return "no CI job may deploy: let one in with `systemprompt tenant trust add`".to_owned();
        }
        let mut table = Table::new(&["rule", "repository", "ref", "issuer", "made by", "made at"]);
        for rule in &rules {
            table.row([
                rule.id.to_string(),
                rule.repository.clone(),
                rule.git_ref.clone(),
                rule.issuer.clone(),
                rule.created_by.clone(),
                rule.created_at.to_string(),
            ]);
        }
        table.render()
    })
}

async fn add(context: &Context, tenant: Option<&str>, args: AddArgs) -> Result<(), CliError> {
    let wanted = CreateTrustRule {
        issuer: match args.issuer.as_str() {
            "github" => GITHUB.to_owned(),
            "gitlab" => GITLAB.to_owned(),
            _ => args.issuer,
        },
        repository: args.repository,
        git_ref: args.git_ref,
    };
    let wanted = wanted
        .checked()
        .map_err(|(field, detail)| CliError::usage(format!("`--{field}` {detail}")))?;
    let id = pick_cloud(context, tenant).await?;
    let rule = context.client()?.create_trust_rule(&id, &wanted).await?;
    let text = format!(
        "jobs of {} at {} may deploy: they sign in with `systemprompt login --oidc --tenant {id}`",
        rule.repository, rule.git_ref
    );
    context
        .ui()
        .done(&json!({ "tenant_id": id, "trust_rule": rule }), text)
}

async fn remove(context: &Context, tenant: Option<&str>, rule: &TrustRuleId) -> Result<(), CliError> {
    let id = pick_cloud(context, tenant).await?;
    context.client()?.delete_trust_rule(&id, rule).await?;
    context.ui().done(
        &json!({ "tenant_id": id, "removed": rule }),
        "the rule is taken back; a token that a job has by it ends within ten minutes",
    )
}
