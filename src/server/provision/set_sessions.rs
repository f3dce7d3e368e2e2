//! `set-sessions`: who is let in to a tenant by the edge. The edge begins to ask before the tenant's row says whom it lets
//! in, and stops before the row does: meanwhile nobody is let in who shall not be.

use async_trait::async_trait;

use crate::api::edge_session::{EdgeSessions, Visitors};
use crate::server::provision::context::{Case, Parts, StepContext, StepError};
use crate::server::provision::deploy::{abandoned, stuck};
use crate::server::provision::effects::{Change, Effects};
use crate::server::provision::saga::{Ending, Saga, StepDefinition, step};
use crate::server::store::events::NewEvent;

/// The saga.
pub(super) struct SetSessions;

const STEPS: &[StepDefinition] = &[step("tell-edge")];

#[async_trait]
impl Saga for SetSessions {
    fn steps(&self) -> &'static [StepDefinition] {
        STEPS
    }

    /// It may have begun to ask: a failure waits for `retry` or `abandon`.
    fn pivot(&self) -> usize {
        0
    }

    async fn run(&self, _step: &str, cx: &StepContext<'_>) -> Result<Effects, StepError> {
        // One that cannot be read does not mean that nobody is to be asked.
        let wanted = wanted(cx.case)
            .ok_or_else(|| StepError::fatal("sessions-unreadable", "failed to read who shall be let in"))?;
        let label = &cx.case.spec()?.label;
        cx.parts.edge.ask_first(label, wanted.is_some()).await?;
        Ok(Effects::none().change(Change::Sessions(wanted)))
    }

    async fn undo(&self, _step: &str, _cx: &StepContext<'_>) -> Result<Effects, StepError> {
        Ok(Effects::none())
    }

    fn conclude(&self, ending: Ending, _parts: &Parts, case: &Case) -> Effects {
        match ending {
            Ending::Succeeded => Effects::none().event(NewEvent::new(
                "sessions_changed",
                told(wanted(case).flatten().as_ref()),
            )),
            Ending::Failed | Ending::Undone => Effects::none(),
            Ending::Stuck => stuck(case),
            Ending::Abandoned => abandoned(case),
        }
    }
}

fn wanted(case: &Case) -> Option<Option<EdgeSessions>> {
    case.param("sessions")
}

fn told(sessions: Option<&EdgeSessions>) -> String {
    let Some(sessions) = sessions else {
        return "visitors are not asked who they are any more".to_owned();
    };
    let own = match sessions.who {
        Visitors::Off | Visitors::Issuer => None,
        Visitors::Members => Some("the tenant's members"),
        Visitors::Accounts => Some("everybody with an account on this server"),
    };
    let issuer = sessions
        .issuer
        .as_ref()
        .map(|issuer| format!("those for whom `{}` vouches", issuer.issuer));
    let let_in: Vec<String> = own.map(str::to_owned).into_iter().chain(issuer).collect();
    format!("visitors are asked who they are; let in: {}", let_in.join(", "))
}
