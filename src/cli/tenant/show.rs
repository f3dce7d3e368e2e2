//! `systemprompt tenant show`: what a tenant is; with `--secrets` its credentials, fetched if they still wait.

use serde_json::{Map, Value, json};

use crate::api::edge_session::{EdgeSessions, Visitors};
use crate::api::tenant::{DatabaseKind, Tenant, TenantStatus};
use crate::cli::context::Context;
use crate::cli::error::{CliError, Kind};
use crate::cli::tenant::pick::{Picked, pick};
use crate::cli::tenant::{TenantArg, credentials};
use crate::workspace::tenants::TenantEntry;

/// Flags of `systemprompt tenant show`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Show the credentials too; fetches them into this project if they were not yet
    #[arg(long)]
    secrets: bool,
}

impl Args {
    /// What the menu asks for.
    #[must_use]
    pub(super) fn of(tenant: String, secrets: bool) -> Self {
        Self {
            tenant: TenantArg::of(tenant),
            secrets,
        }
    }
}

/// Shows a tenant.
pub async fn run(context: &Context, args: Args) -> Result<(), CliError> {
    match pick(context, args.tenant.text()).await? {
        Picked::Local(entry) => show_local(context, &entry, args.secrets),
        Picked::Cloud(id) => {
            let tenant = context.client()?.get_tenant(&id).await?;
            if args.secrets {
                credentials::fetch(context, &tenant).await?;
            }
            let secrets = if args.secrets {
                Some(kept(context, id.as_str())?)
            } else {
                None
            };
            let mut document = json!({ "tenant": shown(&tenant) });
            if let (Some(secrets), Some(object)) = (&secrets, document.as_object_mut()) {
                object.insert("secrets".to_owned(), Value::Object(secrets.clone()));
            }
            context.ui().result(&document, || text(&tenant, secrets.as_ref()))
        }
    }
}

/// A tenant as it goes into documents: without the token that fetches its credentials.
#[must_use]
pub(super) fn shown(tenant: &Tenant) -> Tenant {
    Tenant {
        credentials_token: None,
        ..tenant.clone()
    }
}

fn show_local(context: &Context, entry: &TenantEntry, secrets: bool) -> Result<(), CliError> {
    let secrets = if secrets {
        Some(kept(context, entry.name.as_str())?)
    } else {
        None
    };
    let mut document = json!({ "tenant": entry });
    if let (Some(secrets), Some(object)) = (&secrets, document.as_object_mut()) {
        object.insert("secrets".to_owned(), Value::Object(secrets.clone()));
    }
    context.ui().result(&document, || {
        let mut lines = Lines::default();
        lines.add("name", entry.name.as_str());
        lines.add("id", entry.id.as_str());
        lines.add("type", "local");
        lines.add("created", &entry.created_at.to_string());
        lines.add_secrets(secrets.as_ref());
        lines.text
    })
}

/// What this project keeps of a profile's secrets.
fn kept(context: &Context, profile: &str) -> Result<Map<String, Value>, CliError> {
    let secrets = context.workspace()?.read_secrets(profile)?;
    if secrets.is_empty() {
        return Err(CliError::new(
            Kind::NotFound,
            "the credentials of this tenant are not in this project",
        )
        .hint(
            "they are given out once; make new ones with `systemprompt tenant edit --rotate-credentials`",
        ));
    }
    Ok(secrets
        .into_iter()
        .map(|(key, value)| (key, Value::String(value.expose().to_owned())))
        .collect())
}

fn text(tenant: &Tenant, secrets: Option<&Map<String, Value>>) -> String {
    let mut lines = Lines::default();
    lines.add("name", tenant.name.as_str());
    lines.add("id", tenant.id.as_str());
    lines.add("status", status_word(tenant.status));
    lines.add("url", &tenant.url);
    if let Some(release) = tenant.current_release {
        lines.add("release", &format!("v{release}"));
    }
    lines.add("plan", &tenant.plan);
    lines.add("region", &tenant.region);
    lines.add("provider", &tenant.provider);
    lines.add("memory", &format!("{} MB", tenant.memory_mb));
    lines.add("database", database_word(tenant.database));
    if let Some(sessions) = &tenant.sessions {
        lines.add("visitors", &visitors(sessions));
    }
    lines.add("created", &tenant.created_at.to_string());
    lines.add_secrets(secrets);
    lines.text
}

/// Who is let in, in a few words.
#[must_use]
pub(super) fn visitors(sessions: &EdgeSessions) -> String {
    let own = match sessions.who {
        Visitors::Off => Some("everybody"),
        Visitors::Members => Some("members"),
        Visitors::Accounts => Some("everybody with an account"),
        Visitors::Issuer => None,
    };
    let issuer = sessions.issuer.as_ref();
    let issuer = issuer.map(|issuer| format!("whoever `{}` vouches for", issuer.issuer));
    let all: Vec<String> = own.map(str::to_owned).into_iter().chain(issuer).collect();
    all.join(", ")
}

/// `name: value`, aligned.
#[derive(Default)]
pub(super) struct Lines {
    /// What was added so far.
    pub(super) text: String,
}

impl Lines {
    /// Adds a line.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let name = format!("{name}:");
        self.text.push_str(&format!("{name:<13} {value}\n"));
    }

    fn add_secrets(&mut self, secrets: Option<&Map<String, Value>>) {
        for (key, value) in secrets.into_iter().flatten() {
            self.add(key, value.as_str().unwrap_or_default());
        }
    }
}

/// The status as people and documents write it.
#[must_use]
pub(in crate::cli) const fn status_word(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Pending => "pending",
        TenantStatus::Provisioning => "provisioning",
        TenantStatus::AwaitingDeploy => "awaiting_deploy",
        TenantStatus::Deploying => "deploying",
        TenantStatus::Running => "running",
        TenantStatus::Suspended => "suspended",
        TenantStatus::Failed => "failed",
        TenantStatus::Deleting => "deleting",
        TenantStatus::Deleted => "deleted",
    }
}

/// The database as people and documents write it.
#[must_use]
pub(in crate::cli) const fn database_word(database: DatabaseKind) -> &'static str {
    match database {
        DatabaseKind::Postgres => "postgres",
        DatabaseKind::Sqlite => "sqlite",
    }
}
