//! `create-tenant`: everything that a tenant needs but an image. What was made is taken back when a part fails.

use async_trait::async_trait;

use crate::api::operation::OperationError;
use crate::api::secret::SecretText;
use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::server::databases::TenantDatabases;
use crate::server::providers::{Made, TenantNetwork};
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::provision::secrets::{
    JWT_SECRET, database_slot, find_tenant_key, new_grant, password_key, platform_value, random_text,
    require_tenant_key, sealed_row,
};
use crate::server::store::events::NewEvent;
use crate::server::store::secret_versions::SecretScope;
use crate::server::vault::SealedKey;

/// The saga.
pub(super) struct CreateTenant;

const STEPS: &[StepDefinition] = &[
    // Tells that it begins: nobody waits for that.
    step("start"),
    // Kept over a retry: whatever was made with them can be used again.
    step("generate-secrets").kept().after(&[]),
    step("create-network").making(&["network"]).after(&[]),
    step("create-volume").making(&["volume"]).after(&[]),
    step("tell-edge").undone().after(&[]),
    // The engine makes one network after the other: who joins this one does not wait for the other.
    step("open-edge")
        .making(&["network", "route"])
        .named("-edge")
        .after(&[]),
    step("make-database")
        .making(&["database"])
        .after(&["generate-secrets"]),
    step("join-database").undone().after(&["create-network"]),
    step("store-secrets").undone().after(&["generate-secrets"]),
    step("add-certificate")
        .making(&["certificate"])
        .after(&["tell-edge"]),
];

/// What was queued with these had its parts cut otherwise.
const RETIRED: &[StepDefinition] = &[
    step("create-app").making(&["network"]).after(&["start"]),
    step("join-edge").making(&["route"]).after(&["create-app"]),
    step("allocate-addresses").making(&["route"]),
    step("create-database").making(&["database"]),
];

#[async_trait]
impl Saga for CreateTenant {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    fn retired(&self) -> &'static [StepDefinition] {
        RETIRED
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "start" => Ok(start()),
            "generate-secrets" => generate_secrets(cx).await,
            "create-network" => create_network(cx).await,
            "create-app" => create_app(cx).await,
            "create-volume" => create_volume(cx).await,
            "tell-edge" => {
                cx.parts.edge.know(&cx.case.tenant.label).await?;
                Ok(Effects::none())
            }
            "open-edge" => open_edge(cx).await,
            "join-edge" => join_edge(cx).await,
            "make-database" => make_database(cx).await,
            "join-database" => join_database(cx).await,
            "allocate-addresses" => {
                cx.parts.edge.know(&cx.case.tenant.label).await?;
                join_edge(cx).await
            }
            "create-database" => {
                let made = make_database(cx).await?;
                let joined = join_database(cx).await?;
                Ok(Effects {
                    made: made.made,
                    ..joined
                })
            }
            "store-secrets" => store_secrets(cx).await,
            _ => add_certificate(cx).await,
        }
    }

    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        let (parts, spec) = (cx.parts, cx.case.spec()?);
        match step {
            "create-network" | "create-app" => {
                parts.provider.remove_app(&spec).await?;
                Ok(Effects::none().gone_kinds(&["network"]))
            }
            "create-volume" => {
                parts.provider.remove_volume(&spec).await?;
                Ok(Effects::none().gone_kinds(&["volume"]))
            }
            "tell-edge" => {
                parts.edge.detach(&spec.label, None).await?;
                Ok(Effects::none())
            }
            "open-edge" => {
                let left = leave_edge(cx).await?;
                parts.provider.remove_network(&spec, TenantNetwork::Edge).await?;
                Ok(match parts.provider.edge_network(&spec) {
                    Some(name) => left.gone("network", name),
                    None => left,
                })
            }
            "join-edge" | "allocate-addresses" => leave_edge(cx).await,
            "join-database" => {
                let network = parts.provider.private_network(&spec);
                parts.databases.detach(network.as_deref()).await?;
                Ok(Effects::none())
            }
            "make-database" | "create-database" => {
                drop_database(cx).await?;
                Ok(Effects::none().gone_kinds(&["database", "database-role"]))
            }
            "store-secrets" => Ok(Effects::none().change(Change::RevokeGrants)),
            // The certificate is in the edge's own cache and ends by itself; no line of the ledger may claim it.
            _ => Ok(Effects::none().gone_kinds(&["certificate"])),
        }
    }

    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => ready(parts, case),
            Ending::Failed | Ending::Undone => failed(case),
            Ending::Stuck => stuck(case),
            Ending::Abandoned => abandoned(case).status(TenantStatus::Failed),
        }
    }
}

fn start() -> Effects {
    Effects::none()
        .status(TenantStatus::Provisioning)
        .event(NewEvent::new(
            "provisioning_started",
            "the infrastructure is being made",
        ))
}

async fn generate_secrets(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    let mut tx = parts.store.look();
    let found = find_tenant_key(&mut tx, &tenant.id).await?;
    drop(tx);
    let mut effects = Effects::none();
    let key = match found {
        Some(key) => key,
        None => {
            let key = parts.vault.new_tenant_key(&tenant.id)?;
            effects = effects.change(Change::TenantKey(key.clone()));
            key
        }
    };
    let values = [
        (password_key(tenant.login_slot), random_text::<32>(&parts.clock)),
        (JWT_SECRET, random_text::<48>(&parts.clock)),
    ];
    for (name, value) in values {
        let change = first_version(parts, cx.case, &key, (name, &value))?;
        effects = effects.change(change);
    }
    Ok(effects)
}

fn first_version(
    parts: &Parts,
    case: &Case,
    key: &SealedKey,
    (name, value): (&str, &SecretText),
) -> Result<Change, StepError> {
    let scope = SecretScope::Platform;
    let row = sealed_row(
        parts,
        (&case.tenant.id, key),
        (scope, name, 1),
        value,
        "systemprompt",
    )?;
    Ok(Change::Secret(scope, Box::new(row)))
}

async fn create_network(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (provider, spec) = (&cx.parts.provider, cx.case.spec()?);
    let made = provider.create_network(&spec, TenantNetwork::Private).await?;
    let message = format!("the private network on `{}` is there", provider.name());
    Ok(Effects::none()
        .made(made)
        .event(NewEvent::new("app_created", message)))
}

async fn create_app(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let made = cx.parts.provider.create_app(&cx.case.spec()?).await?;
    let message = format!("the networks on `{}` are there", cx.parts.provider.name());
    Ok(Effects::none()
        .made(made)
        .event(NewEvent::new("app_created", message)))
}

async fn create_volume(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let made = cx.parts.provider.create_volume(&cx.case.spec()?).await?;
    let event = NewEvent::new("volume_created", "the volume is there");
    Ok(Effects::none().made([made]).event(event))
}

/// The way from the edge to the tenant.
async fn open_edge(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (provider, spec) = (&cx.parts.provider, cx.case.spec()?);
    let network = provider.create_network(&spec, TenantNetwork::Edge).await?;
    let (network, joined) = (Effects::none().made(network), join_edge(cx).await?);
    Ok(Effects {
        made: [network.made, joined.made].concat(),
        ..joined
    })
}

async fn join_edge(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, spec) = (cx.parts, cx.case.spec()?);
    let network = parts.provider.edge_network(&spec);
    parts.edge.join(&spec.label, network.as_deref()).await?;
    let hostname = parts.edge.hostname(&spec.label);
    let event = NewEvent::new("ips_allocated", format!("the edge answers for `{hostname}`"))
        .with(serde_json::json!({ "hostname": hostname }));
    let route = Made {
        kind: "route",
        external_id: hostname,
    };
    Ok(Effects::none().made([route]).event(event))
}

async fn leave_edge(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, spec) = (cx.parts, cx.case.spec()?);
    let network = parts.provider.edge_network(&spec);
    parts.edge.detach(&spec.label, network.as_deref()).await?;
    Ok(Effects::none().gone_kinds(&["route"]))
}

async fn make_database(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    if tenant.database == DatabaseKind::Sqlite {
        return Ok(Effects::none());
    }
    let mut tx = parts.store.look();
    let key = require_tenant_key(&mut tx, &tenant.id).await?;
    let name = password_key(tenant.login_slot);
    let password = platform_value(&mut tx, parts, (&tenant.id, &key), name).await?;
    drop(tx);
    let slot = database_slot(tenant.login_slot);
    let made = parts.databases.create(&tenant.id, None, slot, &password).await?;
    let made = made
        .into_iter()
        .map(|(kind, external_id)| Made { kind, external_id });
    Ok(Effects::none().made(made))
}

/// The way from the tenant's private network to the database server.
async fn join_database(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    if tenant.database == DatabaseKind::Sqlite {
        let event = NewEvent::new("database_created", "the database is a file on the volume");
        return Ok(Effects::none().event(event));
    }
    let network = parts.provider.private_network(&cx.case.spec()?);
    parts.databases.attach(network.as_deref()).await?;
    let event = NewEvent::new("database_created", "the database is there");
    Ok(Effects::none().event(event))
}

/// Removes the tenant's database, its roles and the way to it.
pub(super) async fn drop_database(cx: &StepContext<'_>) -> Result<(), StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    if tenant.database == DatabaseKind::Sqlite {
        return Ok(());
    }
    let network = parts.provider.private_network(&cx.case.spec()?);
    // Spelled out: every value has a `drop` of its own.
    TenantDatabases::drop(&*parts.databases, &tenant.id, network.as_deref()).await?;
    Ok(())
}

async fn store_secrets(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant.id);
    let mut tx = parts.store.look();
    let key = require_tenant_key(&mut tx, tenant).await?;
    let grant = new_grant(parts, tenant, &key)?;
    let message = "the credentials wait to be fetched, once";
    let event = NewEvent::new("secrets_stored", message)
        .with(serde_json::json!({ "expires_at": grant.expires_at.to_string() }));
    Ok(Effects::none().change(Change::Grant(grant)).event(event))
}

async fn add_certificate(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (edge, label) = (&cx.parts.edge, &cx.case.tenant.label);
    let state = edge.certificate(label).await?;
    let hostname = edge.hostname(label);
    let event = NewEvent::new(
        "certificate_added",
        format!("the certificate of `{hostname}` is {state}"),
    )
    .with(serde_json::json!({ "hostname": hostname, "state": state }));
    let certificate = Made {
        kind: "certificate",
        external_id: hostname,
    };
    Ok(Effects::none().made([certificate]).event(event))
}

fn ready(parts: &Parts, case: &Case) -> Effects {
    let url = parts.edge.url(&case.tenant.label);
    let message = "everything is there but an image: `systemprompt deploy`";
    let result = serde_json::json!({ "url": url });
    Effects {
        result: Some(result.clone()),
        ..Effects::none()
    }
    .status(TenantStatus::AwaitingDeploy)
    .event(NewEvent::new("infrastructure_ready", message).with(result))
}

fn failed(case: &Case) -> Effects {
    let error = case.operation.error.clone();
    let message = error.as_ref().map_or_else(
        || "the creation was taken back".to_owned(),
        |error| format!("{}; what was made is taken back", error.message),
    );
    let detail = error.as_ref().map_or_else(
        || serde_json::json!({}),
        |error| serde_json::json!({ "code": error.code, "step": error.step }),
    );
    let mut effects = Effects::none()
        .status(TenantStatus::Failed)
        .event(NewEvent::new("provisioning_failed", message).with(detail));
    effects.error = error.map(|error| OperationError {
        hint: error.hint.or_else(|| {
            Some(
                "`systemprompt tenant retry` tries again, `systemprompt tenant delete` gives it up"
                    .to_owned(),
            )
        }),
        ..error
    });
    effects
}
