//! The networks of tenants, in the world that is only pretended.

use crate::server::providers::fake::rules::{edge, fatal, private};
use crate::server::providers::{Made, ProviderError, TenantNetwork, TenantSpec};
use crate::server::world::{Network, State};

fn name(spec: &TenantSpec, network: TenantNetwork) -> String {
    match network {
        TenantNetwork::Private => private(spec),
        TenantNetwork::Edge => edge(spec),
    }
}

pub(super) fn create(
    state: &mut State,
    spec: &TenantSpec,
    network: TenantNetwork,
) -> Result<Made, ProviderError> {
    let (tenant, name) = (spec.tenant_id.as_str(), name(spec, network));
    let clash = state
        .networks
        .values()
        .any(|it| it.slot == spec.network_slot && it.tenant != tenant);
    if clash {
        return Err(fatal(
            "address-in-use",
            format!("failed to make the networks of `{}`", spec.label),
        ));
    }
    let made = state.networks.entry(name.clone()).or_insert_with(|| Network {
        tenant: tenant.to_owned(),
        slot: spec.network_slot,
        attached: [].into(),
    });
    if made.tenant != tenant {
        return Err(fatal(
            "name-taken",
            format!("failed to make the network `{name}`"),
        ));
    }
    Ok(Made {
        kind: "network",
        external_id: name,
    })
}

/// All of them, or none.
pub(super) fn remove(
    state: &mut State,
    spec: &TenantSpec,
    networks: &[TenantNetwork],
) -> Result<(), ProviderError> {
    let names = networks.iter().map(|network| name(spec, *network));
    let names: Vec<String> = names.collect();
    let joined = names
        .iter()
        .filter_map(|name| state.networks.get(name))
        .any(|network| !network.attached.is_empty());
    let tenant = spec.tenant_id.as_str();
    if joined || state.machines.values().any(|it| it.tenant == tenant) {
        return Err(fatal(
            "network-in-use",
            format!("failed to remove the networks of `{}`", spec.label),
        ));
    }
    for name in names {
        state.networks.remove(&name);
    }
    Ok(())
}
