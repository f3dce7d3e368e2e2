//! What follows when something was written: pure.

use crate::api::time::Time;
use crate::server::provision::context::{Case, Parts};
use crate::server::provision::effects::Effects;
use crate::server::provision::plan::{Plan, is_untouched};
use crate::server::provision::saga::{Ending, Next};
use crate::server::provision::written::{Begin, Then};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};

/// What a worker knows that the log does not say.
pub(super) struct Follow<'a> {
    pub(super) parts: &'a Parts,
    /// Steps that are under way here.
    pub(super) under_way: Vec<usize>,
    /// Steps that are tried again, and not before.
    pub(super) waiting: Vec<(usize, StepStatus, Time)>,
    /// Nothing new is begun any more.
    pub(super) stops: bool,
}

impl Follow<'_> {
    /// What follows from how the operation stands now.
    pub(super) fn then(&self, case: &Case) -> Then {
        let now = self.parts.clock.now();
        // Nobody claims what it does not know.
        let Some(plan) = Plan::of(case) else {
            return self.rest(now);
        };
        match plan.next(case) {
            // Nothing is taken away from under what is being made.
            Next::Finish(_) | Next::Undo(_) if !self.under_way.is_empty() => Then::Wait,
            Next::Finish(ending) => {
                let effects = ending_of(&plan, self.parts, (case, ending));
                Then::End(ending, Box::new(effects))
            }
            Next::Run(_) | Next::Undo(_) if self.stops => self.rest(now),
            Next::Run(ready) => self.begin((&plan, case), &ready, StepStatus::Running),
            Next::Undo(at) => self.begin((&plan, case), &[at], StepStatus::Undoing),
        }
    }

    fn begin(&self, (plan, case): (&Plan, &Case), ready: &[usize], status: StepStatus) -> Then {
        let waits = |at: &usize| {
            let mut waiting = self.waiting.iter();
            waiting.any(|(other, direction, _)| other == at && *direction == status)
        };
        let idle = |at: &&usize| !self.under_way.contains(at) && !waits(at);
        let begun: Vec<Begin> = ready
            .iter()
            .filter(idle)
            .filter_map(|at| beginning((plan, case), *at, status))
            .collect();
        if !begun.is_empty() {
            return Then::Begin(begun);
        }
        let waiting = self
            .waiting
            .iter()
            .filter(|(at, direction, _)| ready.contains(at) && *direction == status);
        let first = waiting.map(|(_, _, run_at)| *run_at).min();
        self.rest(first.unwrap_or_else(|| self.parts.clock.now()))
    }

    fn rest(&self, until: Time) -> Then {
        match self.under_way.is_empty() {
            true => Then::Release(until),
            false => Then::Wait,
        }
    }
}

fn beginning((plan, case): (&Plan, &Case), at: usize, status: StepStatus) -> Option<Begin> {
    let (definition, row) = (plan.step(at)?, case.steps.get(at)?);
    let before = StepRow {
        // Tries of the other direction do not count.
        attempts: match status == StepStatus::Undoing && row.status != status {
            true => 0,
            false => row.attempts,
        },
        ..row.clone()
    };
    let first = before.attempts == 0 && status == StepStatus::Running;
    let event = first.then(|| plan.saga.announce(definition.name, case)).flatten();
    Some(Begin {
        at,
        definition,
        status,
        before,
        event,
    })
}

/// What is written when the operation ends so.
fn ending_of(plan: &Plan, parts: &Parts, (case, ending): (&Case, Ending)) -> Effects {
    if is_untouched(case, ending) {
        return Effects::none().event(NewEvent::new(
            "operation_cancelled",
            format!("`{}` was taken back before it had begun", case.operation.kind),
        ));
    }
    plan.saga.conclude(ending, parts, case)
}
