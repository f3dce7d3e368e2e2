//! A provider that is only written down: it follows the contract strictly, counts what it holds, and fails on request.
//!
//! A machine behaves as the variable `FAKE_BEHAVIOUR` of its environment says (set it as a secret of the tenant):
//! `never-ready` (runs, never answers its probe), `exit-1` (ends at once), `slow-ready` (ready at the third probe),
//! `release-command-fails` (the release command ends with 1). Anything else is ready at once. Faults of single
//! calls are planned in the world: [`crate::server::world::World::plan`].

mod follow;
mod networks;
mod rules;
mod start;

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::server::providers::fake::rules::{
    clear_commands, edge, fatal, private, require_machine, require_place, run_once, volume,
};
use crate::server::providers::{
    CommandOutcome, LogLine, LogQuery, MachineSpec, MachineState, Made, Printer, Provider, ProviderError,
    TenantNetwork, TenantSpec, Usage,
};
use crate::server::world::{Broken, State, Volume, World};

/// The variable that tells a fake machine what to do.
pub const BEHAVIOUR: &str = "FAKE_BEHAVIOUR";
/// The variable that tells a release command which migrations it applies; those that end with `!` cannot be taken back.
pub const MIGRATIONS: &str = "FAKE_MIGRATIONS";

/// Keeps the infrastructure of all tenants in a fake world.
#[derive(Clone, Debug)]
pub struct FakeProvider {
    world: World,
}

impl FakeProvider {
    /// A provider in `world`.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }
}

impl From<Broken> for ProviderError {
    fn from(broken: Broken) -> Self {
        let what = "failed to reach the fake provider".to_owned();
        match broken {
            Broken::Retry { .. } => Self::Retry {
                what,
                after: None,
                source: Some(Box::new(broken)),
            },
            Broken::Fatal { .. } | Broken::World(_) => Self::Fatal {
                code: "planned-fault",
                what,
                hint: None,
                source: Some(Box::new(broken)),
            },
        }
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn ping(&self) -> Result<String, ProviderError> {
        self.world
            .call("provider.ping", |_| Ok("fake provider".to_owned()))
            .await
    }

    async fn create_network(
        &self,
        spec: &TenantSpec,
        network: TenantNetwork,
    ) -> Result<Option<Made>, ProviderError> {
        let method = match network {
            TenantNetwork::Private => "provider.create_network",
            TenantNetwork::Edge => "provider.create_edge_network",
        };
        let act = |state: &mut State| networks::create(state, spec, network).map(Some);
        self.world.call(method, act).await
    }

    async fn remove_network(&self, spec: &TenantSpec, network: TenantNetwork) -> Result<(), ProviderError> {
        let act = |state: &mut State| networks::remove(state, spec, &[network]);
        self.world.call("provider.remove_network", act).await
    }

    async fn remove_app(&self, spec: &TenantSpec) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            networks::remove(state, spec, &[TenantNetwork::Private, TenantNetwork::Edge])?;
            clear_commands(state, spec.tenant_id.as_str(), None);
            Ok(())
        };
        self.world.call("provider.remove_app", act).await
    }

    async fn create_volume(&self, spec: &TenantSpec) -> Result<Made, ProviderError> {
        let act = |state: &mut State| {
            let external_id = volume(spec);
            let made = state
                .volumes
                .entry(external_id.clone())
                .or_insert_with(|| Volume {
                    tenant: spec.tenant_id.to_string(),
                });
            if made.tenant != spec.tenant_id.as_str() {
                return Err(fatal(
                    "name-taken",
                    format!("failed to make the volume `{external_id}`"),
                ));
            }
            Ok(Made {
                kind: "volume",
                external_id,
            })
        };
        self.world.call("provider.create_volume", act).await
    }

    async fn remove_volume(&self, spec: &TenantSpec) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            let tenant = spec.tenant_id.as_str();
            if state.machines.values().any(|it| it.tenant == tenant) {
                return Err(fatal(
                    "volume-in-use",
                    format!("failed to remove the volume of `{}`", spec.label),
                ));
            }
            clear_commands(state, tenant, None);
            state.volumes.remove(&volume(spec));
            Ok(())
        };
        self.world.call("provider.remove_volume", act).await
    }

    fn private_network(&self, spec: &TenantSpec) -> Option<String> {
        Some(private(spec))
    }

    fn edge_network(&self, spec: &TenantSpec) -> Option<String> {
        Some(edge(spec))
    }

    async fn pull_image(&self, spec: &MachineSpec) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            if !spec.image.contains("@sha256:") {
                return Err(fatal(
                    "image-not-pinned",
                    format!("failed to pull `{}`: it has no digest", spec.image),
                ));
            }
            state.images.insert(spec.image.clone());
            Ok(())
        };
        self.world.call("provider.pull_image", act).await
    }

    async fn list_images(&self, repository: &str) -> Result<Vec<String>, ProviderError> {
        let own = format!("{repository}@");
        let act = |state: &mut State| {
            let images = state.images.iter().filter(|image| image.starts_with(&own));
            Ok(images.cloned().collect())
        };
        self.world.call("provider.list_images", act).await
    }

    async fn remove_image(&self, image: &str) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            if state.machines.values().all(|machine| machine.image != image) {
                state.images.remove(image);
            }
            Ok(())
        };
        self.world.call("provider.remove_image", act).await
    }

    async fn run_command(
        &self,
        spec: &MachineSpec,
        _timeout: Duration,
    ) -> Result<CommandOutcome, ProviderError> {
        let act = |state: &mut State| {
            require_place(state, spec)?;
            run_once(state, spec)
        };
        self.world.call("provider.run_command", act).await
    }

    async fn start_machine(&self, spec: &MachineSpec) -> Result<Made, ProviderError> {
        let act = |state: &mut State| start::at_once(state, spec);
        self.world.call("provider.start_machine", act).await
    }

    async fn create_machine(&self, spec: &MachineSpec) -> Result<Made, ProviderError> {
        let act = |state: &mut State| start::later(state, spec);
        self.world.call("provider.create_machine", act).await
    }

    async fn continue_machine(&self, machine_id: &str) -> Result<(), ProviderError> {
        let act = |state: &mut State| start::alone(state, machine_id);
        self.world.call("provider.continue_machine", act).await
    }

    async fn machine_state(&self, machine_id: &str) -> Result<MachineState, ProviderError> {
        let act = |state: &mut State| {
            Ok(match state.machines.get(machine_id) {
                None => MachineState::Absent,
                Some(machine) if machine.behaviour.as_deref() == Some("exit-1") => MachineState::Exited {
                    exit_code: 1,
                    out_of_memory: false,
                },
                Some(machine) if machine.is_ended => MachineState::Exited {
                    exit_code: 0,
                    out_of_memory: false,
                },
                Some(_) => MachineState::Running,
            })
        };
        self.world.call("provider.machine_state", act).await
    }

    async fn last_in_line(
        &self,
        _spec: &TenantSpec,
        machine_id: &str,
        _asked: (u16, &str),
    ) -> Result<bool, ProviderError> {
        let act = |state: &mut State| Ok(state.machines.get(machine_id).is_some_and(|it| !it.is_ended));
        self.world.call("provider.last_in_line", act).await
    }

    async fn probe(
        &self,
        _spec: &TenantSpec,
        machine_id: &str,
        _asked: (u16, &str),
    ) -> Result<bool, ProviderError> {
        let act = |state: &mut State| {
            let Some(machine) = state.machines.get_mut(machine_id) else {
                return Ok(false);
            };
            if machine.is_ended {
                return Ok(false);
            }
            machine.probes += 1;
            Ok(match machine.behaviour.as_deref() {
                Some("never-ready" | "exit-1") => false,
                Some("slow-ready") => machine.probes >= 3,
                _ => true,
            })
        };
        self.world.call("provider.probe", act).await
    }

    async fn attach_traffic(&self, spec: &TenantSpec, machine_id: &str) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            if !state.networks.contains_key(&edge(spec)) {
                return Err(fatal(
                    "network-not-found",
                    format!("failed to find the edge network of `{}`", spec.label),
                ));
            }
            require_machine(state, machine_id)?.traffic = true;
            Ok(())
        };
        self.world.call("provider.attach_traffic", act).await
    }

    async fn list_machines(&self, spec: &TenantSpec) -> Result<Vec<String>, ProviderError> {
        let act = |state: &mut State| {
            let mut found: Vec<(u64, String)> = state
                .machines
                .iter()
                .filter(|(_, it)| it.tenant == spec.tenant_id.as_str())
                .map(|(id, it)| (it.made, id.clone()))
                .collect();
            found.sort_unstable_by(|left, right| right.cmp(left));
            Ok(found.into_iter().map(|(_, id)| id).collect())
        };
        self.world.call("provider.list_machines", act).await
    }

    async fn stop_machine(&self, machine_id: &str, _grace: Duration) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            state.machines.remove(machine_id);
            state.commands.remove(machine_id);
            Ok(())
        };
        self.world.call("provider.stop_machine", act).await
    }

    async fn end_machine(&self, machine_id: &str, _grace: Duration) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            if let Some(machine) = state.machines.get_mut(machine_id) {
                machine.is_ended = true;
            }
            Ok(())
        };
        self.world.call("provider.end_machine", act).await
    }

    async fn restart_machine(&self, machine_id: &str, _grace: Duration) -> Result<(), ProviderError> {
        let act = |state: &mut State| {
            let machine = require_machine(state, machine_id)?;
            machine.restarts += 1;
            machine.probes = 0;
            Ok(())
        };
        self.world.call("provider.restart_machine", act).await
    }

    async fn logs(
        &self,
        machine_id: &str,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, ProviderError>>, ProviderError> {
        let missing = || {
            fatal(
                "machine-not-found",
                format!("failed to find the machine `{machine_id}`"),
            )
        };
        let read = |state: &mut State| rules::log_lines(state, machine_id).ok_or_else(missing);
        let (lines, has_more) = self.world.call("provider.logs", read).await?;
        Ok(follow::lines(&self.world, machine_id, (lines, has_more), query))
    }

    async fn list_printers(&self) -> Result<Vec<Printer>, ProviderError> {
        Ok(self.world.peek(rules::printers).map_err(Broken::from)?)
    }

    async fn usage(&self, machine_id: &str) -> Result<Option<Usage>, ProviderError> {
        let look = |state: &State| {
            let machine = state
                .machines
                .get(machine_id)
                .filter(|machine| !machine.is_ended)?;
            Some(Usage {
                cpu_micros: machine.cpu_micros,
                memory_bytes: machine.memory_bytes,
                memory_limit_bytes: u64::from(machine.memory_mb) * 1024 * 1024,
            })
        };
        Ok(self.world.peek(look).map_err(Broken::from)?)
    }

    async fn list_tenants(&self) -> Result<Vec<String>, ProviderError> {
        self.world
            .call("provider.list_tenants", |state| Ok(rules::owners(state)))
            .await
    }

    async fn list_resources(&self, spec: &TenantSpec) -> Result<Vec<Made>, ProviderError> {
        self.world
            .call("provider.list_resources", |state| Ok(rules::owned(state, spec)))
            .await
    }
}
