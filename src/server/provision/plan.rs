//! The plan of an operation: the steps that it was queued with, each with what this program knows of it.

use crate::api::operation::OperationStatus;
use crate::api::tenant::TenantStatus;
use crate::server::provision::context::Case;
use crate::server::provision::saga::{Ending, Next, Rule, Saga, Standing, StepDefinition, next, saga_of};
use crate::server::store::operation_steps::{StepRow, StepStatus};

/// What is done for an operation, in order. Another version of this program may have other steps for the same kind.
pub(super) struct Plan {
    pub(super) saga: &'static dyn Saga,
    steps: Vec<&'static StepDefinition>,
    rules: Vec<Rule>,
    pivot: usize,
}

impl Plan {
    /// `None`: this program does not know one of the steps.
    pub(super) fn of(case: &Case) -> Option<Self> {
        Self::with(saga_of(&case.operation.kind)?, &case.steps)
    }

    fn with(saga: &'static dyn Saga, rows: &[StepRow]) -> Option<Self> {
        let all = || saga.steps().iter().chain(saga.retired());
        let definition = |row: &StepRow| all().find(|step| step.name == row.name);
        let steps: Vec<&'static StepDefinition> = rows.iter().map(definition).collect::<Option<_>>()?;
        // What must not be taken back for one plan must not be for another.
        let later = saga.steps().get(saga.pivot()..).unwrap_or_default();
        let is_later = |step: &&StepDefinition| later.iter().any(|one| one.name == step.name);
        let pivot = match saga.pivot() {
            0 => 0,
            usize::MAX => usize::MAX,
            _ => steps.iter().position(is_later).unwrap_or(steps.len()),
        };
        let rules = rules(&steps);
        Some(Self {
            saga,
            steps,
            rules,
            pivot,
        })
    }

    /// The step at a position.
    pub(super) fn step(&self, at: usize) -> Option<&'static StepDefinition> {
        self.steps.get(at).copied()
    }

    /// Whether one of its steps makes something of that kind.
    pub(super) fn makes(&self, kind: &str) -> bool {
        self.steps.iter().any(|step| step.makes.contains(&kind))
    }

    /// The first position whose failure is not taken back any more.
    pub(super) const fn pivot(&self) -> usize {
        self.pivot
    }

    /// What comes next.
    pub(super) fn next(&self, case: &Case) -> Next {
        let log: Vec<StepStatus> = case.steps.iter().map(|row| row.status).collect();
        let standing = Standing {
            log: &log,
            undoing: case.operation.status == OperationStatus::Undoing,
            failed: case.operation.error.is_some(),
        };
        next(&self.rules, self.pivot, standing)
    }
}

/// A plan that lacks what a step names is one of another version: there the step comes after all those before it.
fn rules(steps: &[&'static StepDefinition]) -> Vec<Rule> {
    let position = |at: usize, name: &str| steps.iter().take(at).position(|step| step.name == name);
    let needs = |at: usize, step: &StepDefinition| {
        let named = step.needs?.iter().map(|name| position(at, name));
        named.collect::<Option<Vec<usize>>>()
    };
    let rule = |(at, step): (usize, &&'static StepDefinition)| Rule {
        undo: step.undo,
        needs: needs(at, step).unwrap_or_else(|| (0..at).collect()),
    };
    steps.iter().enumerate().map(rule).collect()
}

/// Nothing was begun, so the tenant is as it was before; one that does not exist yet is not as it shall be.
pub(super) fn is_untouched(case: &Case, ending: Ending) -> bool {
    ending == Ending::Undone
        && case.tenant.status != TenantStatus::Pending
        && case.steps.iter().all(|row| row.status == StepStatus::Waiting)
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use crate::server::provision::saga::saga_of;
    use crate::server::store::operation_steps::{StepRow, StepStatus};

    fn plan(kind: &str, names: &[&str]) -> Option<Plan> {
        let rows: Vec<StepRow> = (0..)
            .zip(names)
            .map(|(position, name)| StepRow {
                position,
                name: (*name).to_owned(),
                status: StepStatus::Waiting,
                attempts: 0,
                output: serde_json::Value::Null,
                error: None,
            })
            .collect();
        Plan::with(saga_of(kind).expect("a saga"), &rows)
    }

    #[test]
    fn a_plan_of_another_version_keeps_its_steps_and_its_pivot() {
        let own = plan("rollback", &["start", "switch-traffic", "drain-old"]).expect("all are known");
        assert_eq!(own.step(1).map(|step| step.name), Some("switch-traffic"));
        assert!(own.step(0).is_some_and(|step| !step.undo));
        assert_eq!(own.pivot(), 2, "after the switch, as in the plan of today");
        assert_eq!(
            plan("rollback", &["start", "drain-old"]).map(|own| own.pivot()),
            Some(1)
        );
        assert_eq!(plan("rollback", &["start"]).map(|own| own.pivot()), Some(1));
        assert_eq!(
            plan("suspend", &["stop-machines"]).map(|own| own.pivot()),
            Some(0)
        );
        assert_eq!(
            plan("create-tenant", &["start"]).map(|own| own.pivot()),
            Some(usize::MAX)
        );
    }

    #[test]
    fn a_step_that_is_not_known_is_not_guessed() {
        assert!(plan("rollback", &["start", "warm-up", "switch-traffic"]).is_none());
        assert!(
            plan("rollback", &["start", "release-command"]).is_none(),
            "that is one of `deploy`"
        );
    }
}
