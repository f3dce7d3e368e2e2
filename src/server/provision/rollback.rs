//! `rollback`: an earlier release whole, as a new one: its image, its variables, its secrets, its memory.
//!
//! No release command runs: what migrations did to the database stays. Who the machine is, and the tenant's own
//! credentials, are those of today.

use async_trait::async_trait;

use crate::api::release::Release;
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy::{self, require_image};
use crate::server::provision::effects::Effects;
use crate::server::provision::rollout::{self, NewRelease};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::store::releases;

/// The saga.
pub(super) struct Rollback;

const STEPS: &[StepDefinition] = &[
    step("start"),
    step("verify-image"),
    step("create-release").undone(),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
    step("drain-old"),
];

#[async_trait]
impl Saga for Rollback {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    fn pivot(&self) -> usize {
        deploy::pivot(STEPS)
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "start" => Ok(deploy::start(cx.case)),
            "verify-image" => require_image(cx, &wanted(cx).await?.digest).await,
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

/// The release that is to be restored.
async fn wanted(cx: &StepContext<'_>) -> Result<Release, StepError> {
    let missing = || StepError::fatal("release-missing", "failed to find the release to go back to");
    let number: u32 = cx.case.param("release").ok_or_else(missing)?;
    let mut tx = cx.parts.store.begin_read().await?;
    let row = releases::find(&mut tx, &cx.case.tenant.id, number).await?;
    Ok(row.ok_or_else(missing)?.release)
}

async fn create_release(cx: &StepContext<'_>) -> Result<Effects, StepError> {
    let old = wanted(cx).await?;
    let message: Option<String> = cx.case.param("message");
    let new = NewRelease {
        digest: old.digest,
        image: old.image,
        fingerprint: old.fingerprint,
        memory_mb: old.memory_mb,
        strategy: old.strategy,
        health_path: old.health_path,
        release_command: old.release_command,
        message: message.or_else(|| Some(format!("rollback to v{}", old.number))),
        secrets: old.secret_versions,
        environment: old.environment,
        image_config: old
            .image_config
            .or_else(|| cx.case.output("verify-image", "image")),
        restores: Some(old.number),
    };
    rollout::create_release(cx, new).await
}
