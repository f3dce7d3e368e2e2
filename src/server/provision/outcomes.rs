//! What steps came to, written down: those that have done what they should in one transaction, whoever failed by itself.

use std::time::Duration;

use crate::api::operation::OperationError;
use crate::api::time::Time;
use crate::server::failpoint;
use crate::server::provision::act::scope;
use crate::server::provision::context::{Case, Failure, StepError};
use crate::server::provision::course::{Course, LONGEST_WAIT, UnderWay, uncounted};
use crate::server::provision::drive::Checkpoint;
use crate::server::provision::effects::Effects;
use crate::server::provision::patience::backoff;
use crate::server::provision::plan::Plan;
use crate::server::provision::record;
use crate::server::provision::told::{log_failure, log_retry};
use crate::server::provision::written::{Done, Then, Wrote};
use crate::server::store::StoreError;
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};

/// A step that has done what it should.
struct Finished {
    step: UnderWay,
    effects: Effects,
    scope: String,
}

impl Finished {
    fn done(&self) -> Done<'_> {
        Done {
            row: &self.step.row,
            status: match self.step.begin.status {
                StepStatus::Undoing => StepStatus::Undone,
                _ => StepStatus::Done,
            },
            effects: &self.effects,
            makes: !self.step.begin.definition.makes.is_empty(),
            scope: &self.scope,
        }
    }
}

impl Course<'_> {
    /// Writes down steps that have done what they should, by their places in the plan.
    pub(super) async fn did(&mut self, done: Vec<(usize, Effects)>) -> Result<(Case, Then), StoreError> {
        let mut finished = Vec::new();
        for (at, effects) in done {
            if let Some(step) = self.under_way.remove(&at) {
                let scope = scope(self.claimed, &step.begin);
                finished.push(Finished { step, effects, scope });
            }
        }
        if finished.is_empty() {
            return self.write(&Wrote::Nothing).await;
        }
        let written = self.finish(&finished).await?;
        self.recorded = true;
        self.inner.announce_work(&written.0);
        for step in &finished {
            let recorded = self.inner.checkpoint(Checkpoint::Recorded);
            failpoint::within(|| step.scope.clone(), recorded).await;
        }
        Ok(written)
    }

    async fn finish(&mut self, finished: &[Finished]) -> Result<(Case, Then), StoreError> {
        let mut cleared = Vec::new();
        for other in self.under_way.values_mut().filter(|other| other.row.attempts > 1) {
            other.row.attempts = 1;
            cleared.push(other.row.clone());
        }
        let all: Vec<Done<'_>> = finished.iter().map(Finished::done).collect();
        let wrote = Wrote::Done {
            all: &all,
            cleared: &cleared,
        };
        match self.write(&wrote).await {
            Err(
                StoreError::IllegalTransition { .. } | StoreError::Missing { .. } | StoreError::Duplicate(_),
            ) => self.finish_each(all, &cleared).await,
            written => written,
        }
    }

    /// What is done stands even where the end, or what another step has done, cannot be written.
    async fn finish_each(
        &mut self,
        all: Vec<Done<'_>>,
        mut cleared: &[StepRow],
    ) -> Result<(Case, Then), StoreError> {
        for done in all {
            let wrote = Wrote::Done {
                all: &[done],
                cleared: std::mem::take(&mut cleared),
            };
            let of = (self.claimed, self.steps.as_slice());
            let (case, _) = record::write(&self.inner.parts, of, &wrote, &|_| Then::Wait).await?;
            (self.steps, self.recorded) = (case.steps, true);
        }
        self.write(&Wrote::Nothing).await
    }

    /// Writes down a step that has not done what it should.
    pub(super) async fn did_not(&mut self, at: usize, error: StepError) -> Result<(Case, Then), StoreError> {
        let Some(step) = self.under_way.remove(&at) else {
            return self.write(&Wrote::Nothing).await;
        };
        let scope = scope(self.claimed, &step.begin);
        let inner = self.inner;
        let recorded = async {
            let written = self.record(&step, error).await?;
            self.recorded = true;
            inner.announce_work(&step.case);
            inner.checkpoint(Checkpoint::Recorded).await;
            Ok(written)
        };
        failpoint::within(|| scope, Box::pin(recorded)).await
    }

    async fn record(&mut self, step: &UnderWay, error: StepError) -> Result<(Case, Then), StoreError> {
        match error {
            StepError::Stopped => {
                self.stopped = true;
                self.write(&Wrote::Dropped(&[uncounted(step)])).await
            }
            StepError::Retry { what, after, source }
                if step.row.attempts < self.inner.parts.settings.attempts =>
            {
                log_retry(&step.case, step.begin.definition, (&what, source));
                self.retry(step, (what, after)).await
            }
            StepError::Retry { what, source, .. } => {
                let failure = Failure {
                    code: "gave-up".to_owned(),
                    message: format!("{what}, {} times in a row", step.row.attempts),
                    hint: None,
                    source,
                    ..Failure::default()
                };
                self.fail(step, failure).await
            }
            StepError::Fatal(failure) => self.fail(step, *failure).await,
        }
    }

    async fn retry(
        &mut self,
        step: &UnderWay,
        (what, after): (String, Option<Duration>),
    ) -> Result<(Case, Then), StoreError> {
        let parts = &self.inner.parts;
        let after = after.unwrap_or_default().min(LONGEST_WAIT);
        let wait = backoff(parts, step.row.attempts).max(after);
        let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let run_at = Time::from_millis(parts.clock.now().as_millis().saturating_add(millis));
        let event = NewEvent::new("step_retrying", format!("{what}; trying again")).with(serde_json::json!({
            "step": step.row.name, "attempt": step.row.attempts, "retry_in_ms": millis,
        }));
        let row = StepRow {
            error: Some(what),
            ..step.row.clone()
        };
        self.waiting.push((step.begin.at, step.begin.status, run_at));
        self.write(&Wrote::Retry {
            row: &row,
            event: &event,
        })
        .await
    }

    async fn fail(&mut self, step: &UnderWay, failure: Failure) -> Result<(Case, Then), StoreError> {
        let (row, case) = (&step.row, &step.case);
        log_failure(case, row, &failure);
        let undo_failed = step.begin.status == StepStatus::Undoing;
        let message = match &case.operation.error {
            Some(first) if undo_failed => format!(
                "{}; and taking back `{}` failed: {}",
                first.message, row.name, failure.message
            ),
            _ => failure.message.clone(),
        };
        let error = OperationError {
            code: failure.code,
            step: row.name.clone(),
            message,
            hint: failure.hint,
            log_tail: failure.log_tail,
        };
        let row = StepRow {
            status: match undo_failed {
                true => StepStatus::UndoFailed,
                false => StepStatus::Failed,
            },
            error: Some(failure.message),
            ..row.clone()
        };
        let pivot = Plan::of(case).map_or(usize::MAX, |plan| plan.pivot());
        let undoing = !undo_failed && step.begin.at < pivot;
        self.turned |= undoing;
        self.write(&Wrote::Failed {
            row: &row,
            error: &error,
            told: &failure.events,
            undoing,
        })
        .await
    }
}
