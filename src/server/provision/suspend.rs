//! `suspend`: compute is stopped and the database refuses connections; data, hostname and secrets stay.

use async_trait::async_trait;

use crate::api::tenant::{DatabaseKind, TenantStatus};
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::Effects;
use crate::server::provision::rollout::stop_serving;
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::store::events::NewEvent;

/// The saga.
pub(super) struct Suspend;

const STEPS: &[StepDefinition] = &[step("stop-machines"), step("refuse-connections")];

#[async_trait]
impl Saga for Suspend {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    /// Half suspended is on the way to suspended: a failure waits for `retry` or `abandon`.
    fn pivot(&self) -> usize {
        0
    }

    async fn run(&self, step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        match step {
            "stop-machines" => stop_serving(cx).await,
            _ => {
                set_connections(cx, false).await?;
                Ok(Effects::none())
            }
        }
    }

    async fn undo(&self, _step: &str, _cx: &StepContext<'_>) -> Result<Effects, StepError> {
        Ok(Effects::none())
    }

    fn conclude(&self, ending: Ending, _parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => Effects::none()
                .status(TenantStatus::Suspended)
                .event(NewEvent::new(
                    "tenant_suspended",
                    "compute is stopped, data is kept",
                )),
            Ending::Failed | Ending::Undone => Effects::none().status(TenantStatus::Failed),
            Ending::Stuck => stuck(case),
            Ending::Abandoned => abandoned(case).status(TenantStatus::Failed),
        }
    }
}

/// Allows or refuses connections to the tenant's database, where it has one of its own.
pub(super) async fn set_connections(cx: &StepContext<'_>, allowed: bool) -> Result<(), StepError> {
    let tenant = &cx.case.tenant;
    if tenant.database == DatabaseKind::Postgres {
        cx.parts.databases.set_connections(&tenant.id, allowed).await?;
    }
    Ok(())
}
