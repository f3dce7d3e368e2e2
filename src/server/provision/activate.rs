//! `activate`: the release that served before is started again.

use async_trait::async_trait;

use crate::api::tenant::TenantStatus;
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::Effects;
use crate::server::provision::rollout::{self, stop_serving};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::provision::suspend::set_connections;
use crate::server::store::events::NewEvent;

/// The saga.
pub(super) struct Activate;

const STEPS: &[StepDefinition] = &[
    step("allow-connections").undone(),
    step("pull"),
    step("start-machine").making(&["machine"]),
    step("wait-ready"),
    step("switch-traffic"),
];

#[async_trait]
impl Saga for Activate {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        if step == "allow-connections" {
            set_connections(cx, true).await?;
            return Ok(Effects::none());
        }
        // A tenant that never had a release has nothing to start.
        let Some(current) = rollout::current_release(cx).await? else {
            return Ok(Effects::none());
        };
        let (release, slot) = (current.release, cx.case.tenant.login_slot);
        rollout::bring(cx, step, (&release, slot)).await
    }

    async fn undo(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "allow-connections" => {
                set_connections(cx, false).await?;
                Ok(Effects::none())
            }
            _ => stop_serving(cx).await,
        }
    }

    fn conclude(&self, ending: Ending, parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => {
                let url = parts.edge.url(&case.tenant.label);
                let result = serde_json::json!({ "release": case.tenant.current_release, "url": url });
                let event = NewEvent::new("tenant_activated", "the tenant is active again");
                Effects {
                    result: Some(result.clone()),
                    ..Effects::none()
                }
                .status(case.resting_status())
                .event(event.with(result))
            }
            Ending::Failed | Ending::Undone => {
                let message = match &case.operation.error {
                    Some(error) => format!("{}; the tenant stays suspended", error.message),
                    None => "the tenant stays suspended".to_owned(),
                };
                Effects::none()
                    .status(TenantStatus::Suspended)
                    .event(NewEvent::new("activation_failed", message))
            }
            Ending::Stuck => stuck(case),
            Ending::Abandoned => abandoned(case).status(TenantStatus::Failed),
        }
    }
}
