//! `deploy`: the image of a digest becomes the release that serves, or everything stays as it was.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value as Json;

use crate::api::operation::OperationError;
use crate::api::release::Release;
use crate::api::tenant::TenantStatus;
use crate::server::failpoint;
use crate::server::provision::context::{Case, Failure, Parts, StepContext, StepError};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::handover;
use crate::server::provision::kept_secrets::{losses_hint, losses_told, next_secrets};
use crate::server::provision::migrations::mark_of;
use crate::server::provision::readiness::tail_of;
use crate::server::provision::rollout::{self, NewRelease, release_number};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::provision::work::DeployParams;
use crate::server::store::events::NewEvent;

/// The saga.
pub(super) struct Deploy;

const STEPS: &[StepDefinition] = &[
    step("start"),
    step("verify-image"),
    step("create-release").undone(),
    step("pull"),
    step("release-command").undone(),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("drain-old"),
];

#[async_trait]
impl Saga for Deploy {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    /// Once traffic is switched the new release serves: what fails after that is not a reason to go back.
    fn pivot(&self) -> usize {
        pivot(STEPS)
    }

    fn announce(&self, step: &str, case: &Case) -> Option<NewEvent> {
        let number = release_number(case)?;
        (step == "release-command" && !case.output("create-release", "waits").unwrap_or(false)).then(|| {
            NewEvent::new(
                "release_command_started",
                format!("the release command of v{number} runs"),
            )
            .with(serde_json::json!({ "release": number }))
        })
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "start" => Ok(start(cx.case)),
            "verify-image" => verify_image(cx).await,
            "create-release" => create_release(cx).await,
            "release-command" => {
                let release = rollout::own_release(cx).await?.release;
                if handover::predecessor(cx, &release).await?.is_some() {
                    // It runs when the old release has ended.
                    return Ok(Effects::none());
                }
                release_command(cx, &release).await
            }
            _ => rollout::bring_own(cx, step).await,
        }
    }

    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "release-command" => undo_release_command(cx).await,
            _ => rollout::take_back(cx, step).await,
        }
    }

    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects {
        conclude(ending, parts, case)
    }
}

/// The position after the switch of traffic.
pub(super) fn pivot(steps: &[StepDefinition]) -> usize {
    steps
        .iter()
        .position(|step| step.name == "switch-traffic")
        .map_or(usize::MAX, |at| at + 1)
}

/// Says that a release is on its way.
pub(super) fn start(case: &Case) -> Effects {
    let event = NewEvent::new("deploy_started", format!("`{}` begins", case.operation.kind))
        .with(serde_json::json!({ "kind": case.operation.kind, "current": case.tenant.current_release }));
    Effects::none().status(TenantStatus::Deploying).event(event)
}

fn params(case: &Case) -> Result<DeployParams, StepError> {
    serde_json::from_value(case.params().clone()).map_err(|source| {
        StepError::Fatal(Box::new(Failure {
            code: "bad-params".to_owned(),
            message: "failed to read what was asked for".to_owned(),
            source: Some(Box::new(source)),
            ..Failure::default()
        }))
    })
}

async fn verify_image(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let digest = match params(cx.case)?.digest {
        Some(digest) => digest,
        None => match rollout::current_release(cx).await? {
            Some(row) => row.release.digest,
            None => {
                return Err(StepError::fatal(
                    "no-current-release",
                    "no release serves: there is no current image",
                ));
            }
        },
    };
    require_image(cx, &digest).await
}

/// Sees that the registry has the image, and keeps what it says of itself.
pub(super) async fn require_image(cx: &StepContext<'_>, digest: &str) -> Result<Effects, StepError> {
    let asked = cx.parts.images.describe(&cx.case.tenant.id, digest);
    let Some(image) = failpoint::call("images.describe", asked).await? else {
        return Err(StepError::Fatal(Box::new(Failure {
            code: "image-not-found".to_owned(),
            message: format!("failed to find `{digest}` in the registry"),
            hint: Some("push it again: `systemprompt deploy`".to_owned()),
            ..Failure::default()
        })));
    };
    let event = NewEvent::new("image_verified", format!("the registry has `{digest}`"))
        .with(serde_json::json!({ "digest": digest }));
    Ok(Effects::none()
        .output(serde_json::json!({ "digest": digest, "image": image }))
        .event(event))
}

/// The versions of the secrets of now, unless something of the running release would be lost.
async fn secrets_of_now(
    cx: &StepContext<'_>,
    asked: &DeployParams,
) -> Result<BTreeMap<String, u32>, StepError> {
    let mut tx = cx.parts.store.begin_read().await?;
    let next = next_secrets(&mut tx, cx.parts, &cx.case.tenant, &asked.allow_missing).await?;
    if next.lost.is_empty() {
        return Ok(next.versions);
    }
    Err(StepError::Fatal(Box::new(Failure {
        code: "secrets-missing".to_owned(),
        message: losses_told(&next.lost),
        hint: Some(losses_hint(&next.lost)),
        ..Failure::default()
    })))
}

async fn create_release(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let (asked, settings) = (params(cx.case)?, &cx.parts.settings);
    let digest: Option<String> = cx.case.output("verify-image", "digest");
    let digest =
        digest.ok_or_else(|| StepError::fatal("image-not-found", "failed to find the image's digest"))?;
    let secrets = secrets_of_now(cx, &asked).await?;
    // `current` goes on with what the release that serves was told.
    let current = match asked.digest {
        Some(_) => None,
        None => rollout::current_release(cx).await?.map(|row| row.release),
    };
    let kept = current.as_ref();
    let new = NewRelease {
        digest,
        image: kept.map_or(asked.image, |release| release.image.clone()),
        fingerprint: asked
            .fingerprint
            .or_else(|| kept.and_then(|release| release.fingerprint.clone())),
        memory_mb: cx.case.tenant.memory_mb,
        strategy: asked
            .strategy
            .or_else(|| kept.map(|release| release.strategy))
            .unwrap_or_default(),
        health_path: asked
            .health_path
            .or_else(|| kept.map(|release| release.health_path.clone()))
            .unwrap_or_else(|| settings.health_path.clone()),
        release_command: asked
            .release_command
            .or_else(|| kept.map(|release| release.release_command.clone()))
            .unwrap_or_else(|| settings.release_command.clone()),
        message: asked.message,
        secrets,
        environment: BTreeMap::new(),
        image_config: cx.case.output("verify-image", "image"),
        restores: None,
    };
    rollout::create_release(cx, new).await
}

/// Runs the release command, where there is one.
pub(super) async fn release_command(cx: &StepContext<'_>, release: &Release) -> Result<Effects, StepError> {
    let number = release.number;
    let detail = serde_json::json!({ "release": number, "command": release.release_command });
    if release.release_command.is_empty() {
        let event = NewEvent::new(
            "release_command_finished",
            format!("v{number} has no release command"),
        );
        return Ok(Effects::none().event(event.with(detail)));
    }
    let mut spec = rollout::machine_spec(cx, release, cx.case.tenant.login_slot).await?;
    spec.command = Some(release.release_command.clone());
    let within = cx.parts.settings.release_command_within;
    let outcome = cx.parts.provider.run_command(&spec, within).await?;
    rollout::keep_output(cx, &outcome.machine_id, number).await;
    if outcome.exit_code == 0 {
        let mark = mark_of(&outcome.log_tail);
        let told = match mark.applied.as_slice() {
            [] => format!("the release command of v{number} is done"),
            applied => format!(
                "the release command of v{number} is done: applied {}",
                applied.join(", ")
            ),
        };
        let mut detail = detail;
        detail["migrations"] = serde_json::json!(mark);
        let event = NewEvent::new("release_command_finished", told).with(detail);
        let mark = Change::Migrations(number, Box::new(mark));
        return Ok(Effects::none().change(mark).event(event));
    }
    let message = format!(
        "the release command `{}` of v{number} ended with exit code {}",
        release.release_command.join(" "),
        outcome.exit_code
    );
    Err(StepError::Fatal(Box::new(Failure {
        code: "release-command-failed".to_owned(),
        events: vec![NewEvent::new("release_command_failed", message.clone()).with(detail)],
        message,
        hint: Some("see the last lines it printed; mend it and `systemprompt deploy` again".to_owned()),
        log_tail: tail_of(outcome.log_tail),
        source: None,
    })))
}

/// What the command did inside the tenant's database stays, and is written down; what it ran in is removed.
async fn undo_release_command(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    rollout::clear_commands(cx).await?;
    let release = rollout::own_release(cx).await?.release;
    if release.release_command.is_empty() || release.migrations.is_some() {
        return Ok(Effects::none());
    }
    let unknown = Change::Migrations(release.number, Box::default());
    Ok(Effects::none().change(unknown))
}

/// How every operation that brings a release ends.
pub(super) fn conclude(ending: Ending, parts: &Parts, case: &Case) -> Effects {
    let number = release_number(case);
    match ending {
        Ending::Succeeded => ready(parts, case),
        Ending::Failed | Ending::Undone => failed(case),
        Ending::Stuck => stuck(case),
        Ending::Abandoned => {
            let effects = abandoned(case).status(case.resting_status());
            match number.filter(|number| case.tenant.current_release != Some(*number)) {
                Some(number) => effects.change(Change::ReleaseFailed(number)),
                None => effects,
            }
        }
    }
}

/// The release serves.
pub(super) fn ready(parts: &Parts, case: &Case) -> Effects {
    let url = parts.edge.url(&case.tenant.label);
    let digest: Option<String> = case.output("create-release", "digest");
    let held: Option<Json> = case.output("switch-traffic", "held");
    let result = serde_json::json!({
        "release": release_number(case), "url": url, "digest": digest, "held": held,
    });
    let event = NewEvent::new("tenant_ready", format!("serving at {url}")).with(result.clone());
    Effects {
        result: Some(result),
        ..Effects::none()
    }
    .status(TenantStatus::Running)
    .event(event)
}

fn failed(case: &Case) -> Effects {
    let mut effects = Effects::none().status(case.resting_status());
    let serves = case.tenant.current_release;
    if let Some(number) = release_number(case) {
        let message = match serves {
            Some(old) => format!("v{number} is taken back, v{old} serves as before"),
            None => format!("v{number} is taken back, nothing serves"),
        };
        let detail = serde_json::json!({ "release": number, "serving": serves });
        effects = effects.event(NewEvent::new("release_rolled_back", message).with(detail));
    }
    let Some(error) = &case.operation.error else {
        return effects.event(NewEvent::new("deploy_failed", "the deploy was taken back"));
    };
    let told = serde_json::json!({ "code": error.code, "step": error.step, "serving": serves });
    let mut effects = effects.event(NewEvent::new("deploy_failed", error.message.clone()).with(told));
    effects.error = Some(OperationError {
        code: match serves {
            Some(_) => "deploy-failed-old-release-serves",
            None => "deploy-failed",
        }
        .to_owned(),
        ..error.clone()
    });
    effects
}

/// Tells that an operation can go neither on nor back, and the two ways out.
pub(super) fn stuck(case: &Case) -> Effects {
    let (id, kind) = (&case.operation.id, &case.operation.kind);
    let ways = format!("`systemprompt operation retry {id}`, or `systemprompt operation abandon {id}`");
    let Some(error) = &case.operation.error else {
        return Effects::none().event(NewEvent::new("operation_stuck", format!("`{kind}` is stuck")));
    };
    let message = format!("`{kind}` is stuck at `{}`: {}", error.step, error.message);
    let detail = serde_json::json!({ "code": error.code, "step": error.step, "hint": ways });
    let hint = match &error.hint {
        Some(hint) => format!("{hint}; then {ways}"),
        None => ways,
    };
    Effects {
        error: Some(OperationError {
            hint: Some(hint),
            ..error.clone()
        }),
        ..Effects::none()
    }
    .event(NewEvent::new("operation_stuck", message).with(detail))
}

/// Tells that somebody gave an operation up.
pub(super) fn abandoned(case: &Case) -> Effects {
    let message = format!(
        "`{}` was given up; what it left is in the ledger",
        case.operation.kind
    );
    Effects::none().event(NewEvent::new("operation_abandoned", message))
}
