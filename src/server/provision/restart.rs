//! `restart`, `apply-secrets`, `change-memory`: the image that serves in a new release, so that nothing is interrupted.
//!
//! The release command does not run again: it has run for this image.

use async_trait::async_trait;

use crate::server::provision::context::{Case, Failure, Parts, StepContext, StepError};
use crate::server::provision::deploy;
use crate::server::provision::effects::Effects;
use crate::server::provision::environment::latest_versions;
use crate::server::provision::rollout::{self, NewRelease};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};

/// The saga.
pub(super) struct Restart;

const STEPS: &[StepDefinition] = &[
    step("start"),
    step("create-release").undone(),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("drain-old"),
];

#[async_trait]
impl Saga for Restart {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    fn pivot(&self) -> usize {
        deploy::pivot(STEPS)
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "start" => Ok(deploy::start(cx.case)),
            "create-release" => create_release(cx).await,
            _ => rollout::bring_own(cx, step).await,
        }
    }

    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        rollout::take_back(cx, step).await
    }

    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects {
        deploy::conclude(ending, parts, case)
    }
}

async fn create_release(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let new = same_image(cx, &message(cx.case)).await?;
    if cx.case.operation.kind == "change-memory" {
        require_room(cx, new.memory_mb).await?;
    }
    rollout::create_release(cx, new).await
}

/// A release that uses more than it shall have would be ready at first and be killed for its memory later.
async fn require_room(cx: &StepContext<'_>, memory_mb: u32) -> Result<(), StepError> {
    let Some(machine) = rollout::current_release(cx).await?.and_then(|row| row.machine_id) else {
        return Ok(());
    };
    // A provider that does not tell is no reason to refuse: readiness is asked for in any case.
    let Ok(Some(usage)) = cx.parts.provider.usage(&machine).await else {
        return Ok(());
    };
    let used_mb = usage.memory_bytes.div_ceil(1024 * 1024);
    if used_mb < u64::from(memory_mb) {
        return Ok(());
    }
    Err(StepError::Fatal(Box::new(Failure {
        code: "memory-in-use".to_owned(),
        message: format!("the tenant uses {used_mb} MB now, which does not fit into {memory_mb} MB"),
        hint: Some("choose a larger size; `systemprompt tenant metrics` shows what it uses".to_owned()),
        ..Failure::default()
    })))
}

/// A release like the one that serves, with the memory of now; `apply-secrets` alone takes new values of secrets.
pub(super) async fn same_image(cx: &StepContext<'_>, message: &str) -> Result<NewRelease, StepError> {
    let current = rollout::current_release(cx).await?;
    let Some(current) = current.map(|row| row.release) else {
        return Err(StepError::fatal(
            "no-current-release",
            "no release serves: there is no current image",
        ));
    };
    let secrets = if cx.case.operation.kind == "apply-secrets" {
        let mut tx = cx.parts.store.begin_read().await?;
        latest_versions(&mut tx, &cx.case.tenant.id).await?
    } else {
        current.secret_versions
    };
    let memory_mb = cx.case.param("memory_mb").unwrap_or(cx.case.tenant.memory_mb);
    Ok(NewRelease {
        digest: current.digest,
        image: current.image,
        fingerprint: current.fingerprint,
        memory_mb,
        strategy: current.strategy,
        health_path: current.health_path,
        release_command: current.release_command,
        message: Some(message.to_owned()),
        secrets,
        environment: current.environment,
        image_config: current.image_config,
        restores: None,
    })
}

fn message(case: &Case) -> String {
    match case.operation.kind.as_str() {
        "apply-secrets" => "secrets changed".to_owned(),
        "change-memory" => match case.param::<u32>("memory_mb") {
            Some(memory_mb) => format!("memory set to {memory_mb} MB"),
            None => "memory changed".to_owned(),
        },
        _ => "restarted".to_owned(),
    }
}
