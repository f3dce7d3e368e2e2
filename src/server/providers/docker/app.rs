//! What holds a tenant together, and what it has.

use std::time::Duration;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};

use crate::server::containers::{Engine, EngineError, key};
use crate::server::providers::docker::pool::AddressPool;
use crate::server::providers::docker::render::{self, Names};
use crate::server::providers::{Made, Printer, ProviderError, TenantNetwork, TenantSpec};

/// Makes one of the tenant's networks.
pub(super) async fn create_network(
    engine: &Engine,
    pool: AddressPool,
    (spec, names): (&TenantSpec, &Names),
    network: TenantNetwork,
) -> Result<Made, ProviderError> {
    let subnets = pool
        .subnets(spec.network_slot)
        .ok_or_else(|| ProviderError::Fatal {
            code: "address-pool-full",
            what: format!(
                "failed to find addresses for `{}`: the pool {pool} is full",
                spec.label
            ),
            hint: Some("start the server with a larger `--address-pool`".to_owned()),
            source: None,
        })?;
    let network = render::network(spec, names, (network, subnets));
    engine.ensure_network(&network).await?;
    Ok(Made {
        kind: "network",
        external_id: network.name,
    })
}

/// Makes the tenant's volume.
pub(super) async fn create_volume(
    engine: &Engine,
    spec: &TenantSpec,
    name: String,
) -> Result<Made, ProviderError> {
    let labels = render::labels(spec, "volume", None);
    engine.ensure_volume(&name, &labels, &[]).await?;
    Ok(Made {
        kind: "volume",
        external_id: name,
    })
}

/// Removes the tenant's networks. The installation's own containers leave them; machines must be gone.
pub(super) async fn remove(engine: &Engine, spec: &TenantSpec, names: &Names) -> Result<(), ProviderError> {
    clear(engine, spec).await?;
    for network in [TenantNetwork::Edge, TenantNetwork::Private] {
        remove_network(engine, &names.network(network)).await?;
    }
    Ok(())
}

/// Removes a network, if it is there. The installation's own containers leave it.
pub(super) async fn remove_network(engine: &Engine, network: &str) -> Result<(), ProviderError> {
    let infrastructure = [engine.name("postgres"), engine.name("edge")];
    let Some(found) = engine.find_network(network).await? else {
        return Ok(());
    };
    let inside = found.containers.unwrap_or_default();
    for container in inside.into_values().filter_map(|endpoint| endpoint.name) {
        if !infrastructure.contains(&container) {
            return Err(in_use(network, &container));
        }
        engine.disconnect(network, &container).await?;
    }
    Ok(engine.remove_network(network).await?)
}

/// Removes the containers that ran something once.
pub(super) async fn clear(engine: &Engine, spec: &TenantSpec) -> Result<(), EngineError> {
    for container in containers(engine, spec).await? {
        if matches!(role(&container), "command" | "preparation") {
            engine.remove_container(name(&container), Duration::ZERO).await?;
        }
    }
    Ok(())
}

/// Whether nothing of the tenant has used its volume yet, or nothing is left that has.
pub(super) async fn is_first(engine: &Engine, spec: &TenantSpec) -> Result<bool, EngineError> {
    let containers = containers(engine, spec).await?;
    Ok(containers
        .iter()
        .all(|container| role(container) == "preparation"))
}

/// Names of the tenant's machines, newest first.
pub(super) async fn list_machines(engine: &Engine, spec: &TenantSpec) -> Result<Vec<String>, ProviderError> {
    let mut machines = containers(engine, spec).await?;
    machines.retain(|container| role(container) == "machine");
    machines.sort_by_key(|container| std::cmp::Reverse((container.created, release(container))));
    Ok(machines
        .iter()
        .map(|container| name(container).to_owned())
        .collect())
}

/// Everything that the engine has for the tenant.
pub(super) async fn list_resources(engine: &Engine, spec: &TenantSpec) -> Result<Vec<Made>, ProviderError> {
    let wanted = [(key::TENANT, spec.tenant_id.as_str())];
    let networks = engine.list_networks(&wanted).await?;
    let volumes = engine.list_volumes(&wanted).await?;
    let containers = containers(engine, spec).await?;
    let made = |kind| move |external_id| Made { kind, external_id };
    let mut all: Vec<Made> = networks.into_iter().map(made("network")).collect();
    all.extend(volumes.into_iter().map(made("volume")));
    all.extend(containers.iter().map(|container| Made {
        kind: if role(container) == "machine" {
            "machine"
        } else {
            "command"
        },
        external_id: name(container).to_owned(),
    }));
    Ok(all)
}

/// Every machine and every release command of the installation.
pub(super) async fn list_printers(engine: &Engine) -> Result<Vec<Printer>, ProviderError> {
    let containers = engine.list_containers(&[]).await?;
    let printer = |container: &ContainerSummary| {
        let is_command = match role(container) {
            "machine" => false,
            "command" => true,
            _ => return None,
        };
        Some(Printer {
            machine_id: name(container).to_owned(),
            tenant_id: label(container, key::TENANT).parse().ok()?,
            release: release(container),
            is_command,
            is_running: container.state == Some(ContainerSummaryStateEnum::RUNNING),
        })
    };
    Ok(containers.iter().filter_map(printer).collect())
}

async fn containers(engine: &Engine, spec: &TenantSpec) -> Result<Vec<ContainerSummary>, EngineError> {
    engine
        .list_containers(&[(key::TENANT, spec.tenant_id.as_str())])
        .await
}

fn label<'a>(container: &'a ContainerSummary, key: &str) -> &'a str {
    let labels = container.labels.as_ref();
    labels
        .and_then(|labels| labels.get(key))
        .map_or("", String::as_str)
}

fn role(container: &ContainerSummary) -> &str {
    label(container, key::ROLE)
}

fn release(container: &ContainerSummary) -> u32 {
    label(container, key::RELEASE).parse().unwrap_or(0)
}

fn name(container: &ContainerSummary) -> &str {
    let names = container.names.as_deref().unwrap_or_default();
    names.first().map_or("", |name| name.trim_start_matches('/'))
}

fn in_use(network: &str, container: &str) -> ProviderError {
    ProviderError::Fatal {
        code: "network-in-use",
        what: format!("failed to remove the network `{network}`: `{container}` is in it"),
        hint: Some(format!("remove it: `docker rm --force {container}`")),
        source: None,
    }
}
