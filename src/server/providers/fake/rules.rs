//! What the fake provider names its things, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::server::providers::fake::{BEHAVIOUR, MIGRATIONS};
use crate::server::providers::{
    CommandOutcome, LogLine, MachineSpec, Made, Printer, ProviderError, TenantSpec,
};
use crate::server::world::{Command, Machine, State};

pub(super) fn private(spec: &TenantSpec) -> String {
    format!("sp-fake-{}", spec.label)
}

pub(super) fn edge(spec: &TenantSpec) -> String {
    format!("sp-fake-{}-edge", spec.label)
}

pub(super) fn volume(spec: &TenantSpec) -> String {
    format!("sp-fake-{}", spec.label)
}

pub(super) fn machine_id(spec: &TenantSpec, release: u32) -> String {
    format!("sp-fake-{}-v{release}", spec.label)
}

pub(super) fn fatal(code: &'static str, what: String) -> ProviderError {
    ProviderError::Fatal {
        code,
        what,
        hint: None,
        source: None,
    }
}

/// A machine needs its networks, its volume and its image, as in the real world.
pub(super) fn require_place(state: &State, spec: &MachineSpec) -> Result<(), ProviderError> {
    let label = &spec.tenant.label;
    if !state.networks.contains_key(&private(&spec.tenant)) {
        return Err(fatal(
            "network-not-found",
            format!("failed to find the private network of `{label}`"),
        ));
    }
    if !state.volumes.contains_key(&volume(&spec.tenant)) {
        return Err(fatal(
            "volume-not-found",
            format!("failed to find the volume of `{label}`"),
        ));
    }
    if !state.images.contains(&spec.image) {
        return Err(fatal(
            "image-not-found",
            format!("failed to find the image `{}`", spec.image),
        ));
    }
    Ok(())
}

pub(super) fn require_machine<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Machine, ProviderError> {
    state
        .machines
        .get_mut(id)
        .ok_or_else(|| fatal("machine-not-found", format!("failed to find the machine `{id}`")))
}

pub(super) fn new_machine(state: &mut State, spec: &MachineSpec) -> Machine {
    Machine {
        tenant: spec.tenant.tenant_id.to_string(),
        release: spec.release,
        image: spec.image.clone(),
        memory_mb: spec.memory_mb,
        environment: digests(spec),
        behaviour: behaviour(spec),
        traffic: false,
        probes: 0,
        restarts: 0,
        made: state.next_made(),
        printed: Vec::new(),
        is_ended: false,
        cpu_micros: 0,
        memory_bytes: 40_000_000,
    }
}

/// Runs the release command, or answers how it ended before.
pub(super) fn run_once(state: &mut State, spec: &MachineSpec) -> Result<CommandOutcome, ProviderError> {
    let Some(command) = &spec.command else {
        return Err(fatal(
            "command-missing",
            "failed to run a release command: there is none".to_owned(),
        ));
    };
    let name = format!("{}-release", machine_id(&spec.tenant, spec.release));
    let fails = behaviour(spec).as_deref() == Some("release-command-fails");
    let ran = state.commands.entry(name.clone()).or_insert_with(|| Command {
        tenant: spec.tenant.tenant_id.to_string(),
        release: spec.release,
        exit_code: i64::from(fails),
        runs: 1,
        output: said(spec, command),
    });
    Ok(CommandOutcome {
        machine_id: name,
        exit_code: ran.exit_code,
        log_tail: ran.output.clone(),
    })
}

/// What a release command prints; with `FAKE_MIGRATIONS` also what it did to the database.
fn said(spec: &MachineSpec, command: &[String]) -> Vec<String> {
    let mut lines = vec![format!("ran `{}`", command.join(" "))];
    if let Some(names) = spec.environment.get(MIGRATIONS) {
        let names: Vec<&str> = names.expose().split_whitespace().collect();
        let plain: Vec<&str> = names.iter().map(|name| name.trim_end_matches('!')).collect();
        let final_ones: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix('!')).collect();
        lines.push(
            serde_json::json!({ "applied": plain, "irreversible": final_ones, "total": plain.len() })
                .to_string(),
        );
    }
    lines
}

/// Clears what commands left: those of one release, or all of the tenant.
pub(super) fn clear_commands(state: &mut State, tenant: &str, release: Option<u32>) {
    state
        .commands
        .retain(|_, it| it.tenant != tenant || release.is_some_and(|wanted| it.release != wanted));
}

/// What a machine or a command has printed so far, and whether there may be more; `None` when it is not there.
pub(super) fn log_lines(state: &State, id: &str) -> Option<(Vec<LogLine>, bool)> {
    let line = |at: &str, stream, text: &str| LogLine {
        at: at.to_owned(),
        stream,
        line: text.to_owned(),
        is_whole: true,
    };
    let first = |stream, text: &str| line("2026-01-01T00:00:00Z", stream, text);
    if let Some(command) = state.commands.get(id) {
        let lines = command.output.iter().map(|text| first("stdout", text));
        return Some((lines.collect(), false));
    }
    let machine = state.machines.get(id)?;
    let mut lines = vec![first("stdout", &format!("release v{} starts", machine.release))];
    lines.push(match machine.behaviour.as_deref() {
        Some("exit-1") => first("stderr", "something is wrong, exit 1"),
        Some("never-ready") => first("stderr", "still waiting for something"),
        _ => first("stdout", "ready"),
    });
    lines.extend(machine.printed.iter().map(|it| {
        let stream = if it.is_error { "stderr" } else { "stdout" };
        line(&it.at, stream, &it.text)
    }));
    let has_ended = machine.is_ended || machine.behaviour.as_deref() == Some("exit-1");
    Some((lines, !has_ended))
}

/// How much it has printed, as [`log_lines`] tells it.
pub(super) fn log_count(state: &State, id: &str) -> Option<(usize, bool)> {
    if let Some(command) = state.commands.get(id) {
        return Some((command.output.len(), false));
    }
    let machine = state.machines.get(id)?;
    let has_ended = machine.is_ended || machine.behaviour.as_deref() == Some("exit-1");
    Some((machine.printed.len() + 2, !has_ended))
}

/// Everything that prints or has printed.
pub(super) fn printers(state: &State) -> Vec<Printer> {
    let machines = state
        .machines
        .iter()
        .map(|(id, it)| (id, &it.tenant, it.release, false));
    let commands = state
        .commands
        .iter()
        .map(|(id, it)| (id, &it.tenant, it.release, true));
    machines
        .chain(commands)
        .filter_map(|(id, tenant, release, is_command)| {
            Some(Printer {
                machine_id: id.clone(),
                tenant_id: tenant.parse().ok()?,
                release,
                is_command,
                is_running: log_count(state, id).is_some_and(|(_, more)| more),
            })
        })
        .collect()
}

pub(super) fn owned(state: &State, spec: &TenantSpec) -> Vec<Made> {
    let tenant = spec.tenant_id.as_str();
    let made = |kind, id: &String| Made {
        kind,
        external_id: id.clone(),
    };
    let networks = state.networks.iter().filter(|(_, it)| it.tenant == tenant);
    let volumes = state.volumes.iter().filter(|(_, it)| it.tenant == tenant);
    let machines = state.machines.iter().filter(|(_, it)| it.tenant == tenant);
    let commands = state.commands.iter().filter(|(_, it)| it.tenant == tenant);
    networks
        .map(|(id, _)| made("network", id))
        .chain(volumes.map(|(id, _)| made("volume", id)))
        .chain(machines.map(|(id, _)| made("machine", id)))
        .chain(commands.map(|(id, _)| made("command", id)))
        .collect()
}

/// Whoever has anything.
pub(super) fn owners(state: &State) -> Vec<String> {
    let networks = state.networks.values().map(|it| &it.tenant);
    let volumes = state.volumes.values().map(|it| &it.tenant);
    let machines = state.machines.values().map(|it| &it.tenant);
    let commands = state.commands.values().map(|it| &it.tenant);
    let all: BTreeSet<&String> = networks.chain(volumes).chain(machines).chain(commands).collect();
    all.into_iter().cloned().collect()
}

fn behaviour(spec: &MachineSpec) -> Option<String> {
    spec.environment
        .get(BEHAVIOUR)
        .map(|value| value.expose().to_owned())
}

fn digests(spec: &MachineSpec) -> BTreeMap<String, String> {
    spec.environment
        .iter()
        .map(|(name, value)| {
            (
                name.clone(),
                hex::encode(Sha256::digest(value.expose().as_bytes())),
            )
        })
        .collect()
}
