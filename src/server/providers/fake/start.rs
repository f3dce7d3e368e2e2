//! How fake machines come to run.

use crate::server::providers::fake::rules::{
    clear_commands, fatal, machine_id, new_machine, require_machine, require_place,
};
use crate::server::providers::{MachineSpec, Made, ProviderError};
use crate::server::world::{Machine, State};

/// It is made, unless an equal one is there, and runs.
pub(super) fn at_once(state: &mut State, spec: &MachineSpec) -> Result<Made, ProviderError> {
    require_place(state, spec)?;
    let external_id = machine_id(&spec.tenant, spec.release);
    clear_commands(state, spec.tenant.tenant_id.as_str(), Some(spec.release));
    let wanted = new_machine(state, spec);
    let equal = state.machines.get(&external_id).is_some_and(|it| {
        it.image == wanted.image && it.environment == wanted.environment && it.memory_mb == wanted.memory_mb
    });
    if !equal {
        state.machines.insert(external_id.clone(), wanted);
    }
    if let Some(machine) = state.machines.get_mut(&external_id) {
        machine.is_ended = false;
    }
    Ok(Made {
        kind: "machine",
        external_id,
    })
}

/// It is made and does not run yet.
pub(super) fn later(state: &mut State, spec: &MachineSpec) -> Result<Made, ProviderError> {
    require_place(state, spec)?;
    let external_id = machine_id(&spec.tenant, spec.release);
    let made = Machine {
        is_ended: true,
        traffic: true,
        ..new_machine(state, spec)
    };
    state.machines.entry(external_id.clone()).or_insert(made);
    Ok(Made {
        kind: "machine",
        external_id,
    })
}

/// It runs, and no other one of its tenant does.
pub(super) fn alone(state: &mut State, id: &str) -> Result<(), ProviderError> {
    let tenant = require_machine(state, id)?.tenant.clone();
    let beside = |(other, it): (&String, &Machine)| it.tenant == tenant && !it.is_ended && other != id;
    if state.machines.iter().any(beside) {
        return Err(fatal(
            "volume-in-use",
            format!("failed to start `{id}` alone: another machine runs"),
        ));
    }
    let machine = require_machine(state, id)?;
    if machine.is_ended {
        machine.is_ended = false;
        machine.probes = 0;
    }
    Ok(())
}
