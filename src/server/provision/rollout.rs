//! What every operation that brings a release has in common: a new machine beside the old one, readiness, the switch,
//! the drain. The steps find their release by their operation, so that a repeat goes on with the same one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::log::LogSource;
use crate::api::release::{ImageConfig, Release, ReleaseStatus, Strategy};
use crate::server::edge::Traffic;
use crate::server::providers::MachineSpec;
use crate::server::provision::context::{Case, StepContext, StepError};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::environment::{PORT, Pinned, plain_of, read_environment};
use crate::server::provision::handover;
use crate::server::provision::observe::{self, Origin};
use crate::server::provision::readiness::{Patience, answers, health_failed, health_passed, takes_in};
use crate::server::store::events::NewEvent;
use crate::server::store::releases::{self, ReleaseRow};
use crate::server::store::tenants::LoginSlot;

/// A machine that never served has nothing to finish.
pub(super) const UNSERVED_GRACE: Duration = Duration::from_secs(2);

/// What a new release is made of.
pub(super) struct NewRelease {
    pub(super) digest: String,
    pub(super) image: String,
    pub(super) fingerprint: Option<String>,
    pub(super) memory_mb: u32,
    pub(super) strategy: Strategy,
    pub(super) health_path: String,
    pub(super) release_command: Vec<String>,
    pub(super) message: Option<String>,
    /// Versions of the user's secrets.
    pub(super) secrets: BTreeMap<String, u32>,
    /// The platform's variables that it restores; empty for those of today.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) image_config: Option<ImageConfig>,
    /// The earlier release that it restores.
    pub(super) restores: Option<u32>,
}

/// The release that serves.
pub(super) async fn current_release(cx: &StepContext<'_>) -> Result<Option<ReleaseRow>, StepError> {
    let tenant = &cx.case.tenant;
    let Some(number) = tenant.current_release else {
        return Ok(None);
    };
    let mut tx = cx.parts.store.begin_read().await?;
    Ok(releases::find(&mut tx, &tenant.id, number).await?)
}

/// The release that this operation brings.
pub(super) async fn own_release(cx: &StepContext<'_>) -> Result<ReleaseRow, StepError> {
    let mut tx = cx.parts.store.begin_read().await?;
    releases::find_by_operation(&mut tx, &cx.case.operation.id)
        .await?
        .ok_or_else(|| StepError::fatal("release-missing", "failed to find the release of this operation"))
}

/// Numbers the release and pins everything that it will see.
pub(super) async fn create_release(cx: &StepContext<'_>, new: NewRelease) -> Result<Effects, StepError> {
    let case = cx.case;
    let mut tx = cx.parts.store.begin_read().await?;
    let number = releases::last_number(&mut tx, &case.tenant.id).await? + 1;
    let release = Release {
        number,
        status: ReleaseStatus::Pending,
        digest: new.digest,
        image: new.image,
        fingerprint: new.fingerprint,
        memory_mb: new.memory_mb,
        strategy: new.strategy,
        secret_versions: new.secrets,
        environment: plain_of(cx.parts, &case.tenant, number, &new.environment),
        image_config: new.image_config,
        migrations: None,
        restores: new.restores,
        pinned: false,
        collected_at: None,
        health_path: new.health_path,
        release_command: new.release_command,
        message: new.message,
        created_by: case.operation.requested_by.clone(),
        operation_id: case.operation.id.clone(),
        created_at: cx.parts.clock.now(),
    };
    let waits = handover::predecessor(cx, &release).await?.is_some();
    let event = NewEvent::new("release_created", format!("release v{number} is made"))
        .with(serde_json::json!({ "release": number, "digest": release.digest }));
    Ok(Effects::none()
        .output(serde_json::json!({ "release": number, "digest": release.digest, "waits": waits }))
        .change(Change::Release(Box::new(release)))
        .event(event))
}

/// The release will not serve.
fn undo_create_release(cx: &StepContext<'_>) -> Effects {
    match cx.case.output::<u32>("create-release", "release") {
        Some(number) => Effects::none().change(Change::ReleaseFailed(number)),
        None => Effects::none(),
    }
}

/// What the provider needs to run a release.
pub(super) async fn machine_spec(
    cx: &StepContext<'_>,
    release: &Release,
    slot: LoginSlot,
) -> Result<MachineSpec, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant);
    let mut tx = parts.store.begin_read().await?;
    let environment = read_environment(&mut tx, parts, tenant, slot, Pinned::of(release)).await?;
    Ok(MachineSpec {
        tenant: cx.case.spec()?,
        release: release.number,
        image: format!(
            "{}/{}@{}",
            parts.images.registry_host(),
            crate::api::registry::REPOSITORY,
            release.digest
        ),
        pull: parts.images.pull_credential(&tenant.id),
        environment,
        memory_mb: release.memory_mb,
        port: PORT,
        command: None,
    })
}

/// The steps that every operation has that brings a release.
pub(super) async fn bring(
    cx: &StepContext<'_>,
    step: &str,
    (release, slot): (&Release, LoginSlot),
) -> Result<Effects, StepError> {
    match step {
        "pull" => Box::pin(pull(cx, release, slot)).await,
        "start-machine" => Box::pin(start_machine(cx, release, slot)).await,
        "wait-ready" => Box::pin(wait_ready(cx, release, slot)).await,
        "switch-traffic" => Box::pin(switch_traffic(cx, release)).await,
        _ => Box::pin(drain_old(cx)).await,
    }
}

/// The same for the release that this operation makes: with the switch its memory becomes the tenant's.
pub(super) async fn bring_own(cx: &StepContext<'_>, step: &str) -> Result<Effects, StepError> {
    let release = own_release(cx).await?.release;
    let effects = Box::pin(bring(cx, step, (&release, cx.case.tenant.login_slot))).await?;
    Ok(match step {
        "switch-traffic" => effects.change(Change::Memory(release.memory_mb)),
        _ => effects,
    })
}

/// The way back of an operation that makes a release.
pub(super) async fn take_back(cx: &StepContext<'_>, step: &str) -> Result<Effects, StepError> {
    match step {
        "create-release" => Ok(undo_create_release(cx)),
        _ => undo_start_machine(cx).await,
    }
}

/// Brings the image to where it will run.
async fn pull(cx: &StepContext<'_>, release: &Release, slot: LoginSlot) -> Result<Effects, StepError> {
    let spec = machine_spec(cx, release, slot).await?;
    cx.parts.provider.pull_image(&spec).await?;
    Ok(Effects::none())
}

/// Starts the release's machine beside whatever serves.
async fn start_machine(
    cx: &StepContext<'_>,
    release: &Release,
    slot: LoginSlot,
) -> Result<Effects, StepError> {
    let spec = machine_spec(cx, release, slot).await?;
    let waits = handover::predecessor(cx, release).await?.is_some();
    let made = if waits {
        cx.parts.provider.create_machine(&spec).await?
    } else {
        cx.parts.provider.start_machine(&spec).await?
    };
    let other = cx.case.tenant.current_release;
    let (event, message) = match other.filter(|number| *number != release.number) {
        Some(old) if waits => (
            "machine_updated",
            format!("v{} is made; it starts when v{old} has ended", release.number),
        ),
        Some(old) => (
            "machine_updated",
            format!("v{} started beside v{old}", release.number),
        ),
        None => ("machine_created", format!("v{} started", release.number)),
    };
    let detail = serde_json::json!({ "release": release.number, "machine": made.external_id });
    Ok(Effects::none()
        .output(serde_json::json!({ "machine": made.external_id }))
        .change(Change::Machine(release.number, Some(made.external_id.clone())))
        .made([made])
        .event(NewEvent::new(event, message).with(detail)))
}

/// Waits until the release answers; one that may not run beside the old one takes its place first.
pub(super) async fn wait_ready(
    cx: &StepContext<'_>,
    release: &Release,
    slot: LoginSlot,
) -> Result<Effects, StepError> {
    let spec = machine_spec(cx, release, slot).await?;
    if let Some(old) = handover::predecessor(cx, release).await? {
        return Box::pin(handover::take_over(cx, (release, &spec), &old)).await;
    }
    let (settings, machine) = (&cx.parts.settings, machine_of(cx)?);
    let patience = Patience {
        within: settings.ready_within,
        every: settings.probe_every,
        stop: cx.stop,
    };
    match answers(cx.parts, &spec, (&machine, &release.health_path), &patience).await? {
        Ok(took) => Ok(Effects::none().event(health_passed(release, took))),
        Err(why) => Err(health_failed(cx, release, &machine, &why).await),
    }
}

/// Lets traffic come to the new machine; from here on the new release is the one that serves.
async fn switch_traffic(cx: &StepContext<'_>, release: &Release) -> Result<Effects, StepError> {
    let machine = machine_of(cx)?;
    let (parts, spec) = (cx.parts, cx.case.spec()?);
    parts.provider.attach_traffic(&spec, &machine).await?;
    ask_first(cx).await?;
    parts
        .edge
        .switch(&spec.label, Traffic::To(release.number))
        .await?;
    let (number, from) = (release.number, cx.case.tenant.current_release);
    let held = handover::held(cx, &spec.label).await?;
    let message = match &held {
        Some(held) => format!("v{number} serves; {held}"),
        None => format!("v{number} serves"),
    };
    let event = NewEvent::new("traffic_switched", message)
        .with(serde_json::json!({ "release": number, "from": from, "held": held }));
    Ok(Effects::none()
        .output(serde_json::json!({ "held": held }))
        .change(Change::ReleaseActive(number))
        .event(event))
}

/// Stops every machine but the one that serves, each with time to finish what it serves.
async fn drain_old(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let keep = machine_of(cx)?;
    let (parts, spec) = (cx.parts, cx.case.spec()?);
    let mut tx = parts.store.begin_read().await?;
    let rows = releases::list_with_machine(&mut tx, &cx.case.tenant.id).await?;
    drop(tx);
    for row in rows {
        if let Some(machine) = row.machine_id.filter(|machine| *machine != keep) {
            takes_in(parts, &spec, (&machine, &row.release.health_path)).await;
        }
    }
    let effects = stop_all_but(cx, Some(&keep), cx.parts.settings.grace).await?;
    clear_commands(cx).await?;
    Ok(effects)
}

/// Removes what release commands ran in, of operations that were given up too.
pub(super) async fn clear_commands(cx: &StepContext<'_>) -> Result<(), StepError> {
    let provider = &cx.parts.provider;
    let there = provider.list_resources(&cx.case.spec()?).await?;
    for command in there.iter().filter(|made| made.kind == "command") {
        provider
            .stop_machine(&command.external_id, Duration::ZERO)
            .await?;
    }
    Ok(())
}

/// Takes the new machine away again. What was started is asked of the provider, so that nothing that a lost answer
/// hides is left.
async fn undo_start_machine(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let serving = current_release(cx).await?.filter(|row| row.machine_id.is_some());
    let own = own_release(cx).await?.release;
    if let Some(old) = handover::predecessor(cx, &own).await? {
        return Box::pin(handover::give_back(cx, &old)).await;
    }
    // The edge may have been told of the new one, though its answer was lost.
    let traffic = match &serving {
        Some(row) => Traffic::To(row.release.number),
        None => Traffic::Nobody,
    };
    cx.parts.edge.switch(&cx.case.spec()?.label, traffic).await?;
    let keep = serving.and_then(|row| row.machine_id);
    stop_all_but(cx, keep.as_deref(), UNSERVED_GRACE).await
}

/// Before anybody serves, the edge knows whether it asks who visits: one that has forgotten it would let everybody in.
pub(super) async fn ask_first(cx: &StepContext<'_>) -> Result<(), StepError> {
    if cx.case.tenant.edge_sessions.is_some() {
        cx.parts.edge.ask_first(&cx.case.spec()?.label, true).await?;
    }
    Ok(())
}

/// Tells visitors at once that the tenant is suspended, instead of letting them wait for nobody, and stops all
/// machines.
pub(super) async fn stop_serving(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let label = cx.case.spec()?.label;
    cx.parts.edge.switch(&label, Traffic::Suspended).await?;
    stop_all_but(cx, None, cx.parts.settings.grace).await
}

/// Stops all machines of the tenant but one, and writes down which are gone.
pub(super) async fn stop_all_but(
    cx: &StepContext<'_>,
    keep: Option<&str>,
    grace: Duration,
) -> Result<Effects, StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant.id);
    let mut effects = Effects::none();
    let running = parts.provider.list_machines(&cx.case.spec()?).await?;
    for machine in running.iter().filter(|id| Some(id.as_str()) != keep) {
        end_and_remove(cx, machine, grace).await?;
        effects = effects.gone("machine", machine);
    }
    let mut tx = parts.store.begin_read().await?;
    for row in releases::list_with_machine(&mut tx, tenant).await? {
        if row.machine_id.as_deref() != keep {
            effects = effects
                .gone("machine", row.machine_id.unwrap_or_default())
                .change(Change::Machine(row.release.number, None));
        }
    }
    Ok(effects)
}

/// Ends a machine, keeps the last lines that it printed, and removes it.
async fn end_and_remove(cx: &StepContext<'_>, machine: &str, grace: Duration) -> Result<(), StepError> {
    let (parts, tenant) = (cx.parts, &cx.case.tenant.id);
    parts.provider.end_machine(machine, grace).await?;
    let mut tx = parts.store.begin_read().await?;
    let release = releases::list_with_machine(&mut tx, tenant)
        .await?
        .into_iter()
        .find(|row| row.machine_id.as_deref() == Some(machine))
        .map_or(0, |row| row.release.number);
    drop(tx);
    let origin = Origin {
        machine_id: machine.to_owned(),
        tenant: tenant.clone(),
        release,
        source: LogSource::App,
    };
    observe::drain(parts, &origin).await;
    Ok(parts.provider.stop_machine(machine, grace).await?)
}

/// Keeps what a release command printed: its machine goes when the release starts.
pub(super) async fn keep_output(cx: &StepContext<'_>, machine: &str, release: u32) {
    let origin = Origin {
        machine_id: machine.to_owned(),
        tenant: cx.case.tenant.id.clone(),
        release,
        source: LogSource::Release,
    };
    observe::drain(cx.parts, &origin).await;
}

/// Whether this operation has got so far that a release of its own exists.
pub(super) fn release_number(case: &Case) -> Option<u32> {
    case.output("create-release", "release")
}

/// The machine that this operation has started.
pub(super) fn machine_of(cx: &StepContext<'_>) -> Result<String, StepError> {
    cx.case
        .output("start-machine", "machine")
        .ok_or_else(|| StepError::fatal("machine-missing", "failed to find the machine of the new release"))
}
