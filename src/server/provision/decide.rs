//! The decisions that people take about an operation: `retry`, `cancel` and `abandon`. No open state is without a way out.

use crate::api::id::{OperationId, TenantId};
use crate::api::operation::OperationStatus;
use crate::api::tenant::TenantStatus;
use crate::server::provision::Provision;
use crate::server::provision::apply::conclude_in;
use crate::server::provision::context::Case;
use crate::server::provision::plan::Plan;
use crate::server::provision::saga::{Ending, Saga, saga_of};
use crate::server::store::events::NewEvent;
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::Transition;
use crate::server::store::row::word_of;
use crate::server::store::{
    StoreError, Tx, events, operation_leases, operation_steps, operations, tenant_life, tenants,
};

/// Why a decision cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The operation is in a state in which there is nothing to decide.
    #[error("failed to {decision} the operation: it is `{status}`")]
    NotNow {
        /// `retry`, `cancel` or `abandon`.
        decision: &'static str,
        /// How it stands.
        status: String,
        /// The way out.
        hint: String,
    },
    /// What it has done cannot be taken back any more.
    #[error("failed to cancel the operation: `{step}` was begun, and from there on nothing is taken back")]
    TooLate {
        /// The step that was begun.
        step: String,
        /// The way out.
        hint: String,
    },
    /// Another operation holds the tenant.
    #[error("the tenant is busy with another operation")]
    Busy,
    /// The store failed.
    #[error("failed to write the decision")]
    Store(#[from] StoreError),
}

/// What people may decide about an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on, or begins anew.
    Retry,
    /// It is taken back.
    Cancel,
    /// It is given up as it is.
    Abandon,
}

impl Provision {
    /// Carries out a decision in the caller's transaction. Call [`Provision::decided`] after the commit.
    ///
    /// # Errors
    /// There is nothing to decide, or the store fails.
    pub async fn decide(
        &self,
        tx: &mut Tx,
        decision: Decision,
        operation: &OperationId,
    ) -> Result<(), DecideError> {
        let case = locked(tx, operation).await?;
        match decision {
            Decision::Retry => self.retry_in(tx, &case).await,
            Decision::Cancel => self.cancel_in(tx, &case).await,
            Decision::Abandon => self.abandon_in(tx, &case).await,
        }
    }

    /// Says that a decision was written: look now.
    pub fn decided(&self, tenant: &TenantId) {
        self.0
            .signals
            .turned
            .send_modify(|count| *count = count.wrapping_add(1));
        self.announce(tenant);
        self.wake();
    }

    /// Carries out a decision; answers how the operation stands then.
    ///
    /// # Errors
    /// There is nothing to decide, or the store fails.
    pub async fn decide_now(
        &self,
        decision: Decision,
        operation: &OperationId,
    ) -> Result<OperationStatus, DecideError> {
        let mut tx = self.0.parts.store.begin().await?;
        self.decide(&mut tx, decision, operation).await?;
        let row = operations::get(&mut tx, operation).await?;
        tx.commit().await?;
        self.decided(&row.tenant_id);
        Ok(row.status)
    }

    /// One that waits, is stuck, or failed to create its tenant.
    async fn retry_in(&self, tx: &mut Tx, case: &Case) -> Result<(), DecideError> {
        let saga = saga_of(&case.operation.kind);
        match case.operation.status {
            OperationStatus::Queued | OperationStatus::Running | OperationStatus::Undoing => {
                let now = self.0.parts.clock.now();
                operation_leases::hasten(tx, &case.operation.id, now).await?;
            }
            OperationStatus::Stuck => self.unstick(tx, case).await?,
            _ if failed_creation(case) => self.begin_anew(tx, case, saga).await?,
            _ => return Err(not_now("retry", case)),
        }
        Ok(())
    }

    /// One that has not come to the point of no return: its worker turns at its next look.
    async fn cancel_in(&self, tx: &mut Tx, case: &Case) -> Result<(), DecideError> {
        let (id, now) = (&case.operation.id, self.0.parts.clock.now());
        match case.operation.status {
            OperationStatus::Queued | OperationStatus::Running => {}
            OperationStatus::Undoing => return Ok(()),
            _ => return Err(not_now("cancel", case)),
        }
        let pivot = Plan::of(case).map_or(usize::MAX, |plan| plan.pivot());
        // The last step before the pivot is the one that cannot be taken back: once it is begun it may be done.
        let begun = case.steps.iter().skip(pivot.saturating_sub(1));
        if let Some(step) = begun.rev().find(|step| step.status != StepStatus::Waiting) {
            return Err(DecideError::TooLate {
                step: step.name.clone(),
                hint: format!("follow it to its end: `systemprompt operation show {id} --follow`"),
            });
        }
        operations::transition(tx, id, &Transition::to(OperationStatus::Undoing), now).await?;
        operation_leases::hasten(tx, id, now).await?;
        let told = NewEvent::new(
            "operation_cancelling",
            format!(
                "`{}` is being taken back, as somebody wished",
                case.operation.kind
            ),
        );
        events::append(tx, &case.tenant.id, Some(id), &told, now).await?;
        Ok(())
    }

    /// One that is not finished, or failed to create its tenant. What it left is in the ledger.
    async fn abandon_in(&self, tx: &mut Tx, case: &Case) -> Result<(), DecideError> {
        let parts = &self.0.parts;
        if case.operation.status.is_terminal() && !failed_creation(case) {
            return Err(not_now("abandon", case));
        }
        let mut effects = match saga_of(&case.operation.kind) {
            Some(saga) => saga.conclude(Ending::Abandoned, parts, case),
            None => crate::server::provision::deploy::abandoned(case),
        };
        // Giving up must always be possible, whatever state the tenant is in.
        effects.status = effects
            .status
            .filter(|to| tenant_life::may_become(case.tenant.status, *to));
        let at = (&parts.clock, parts.clock.now());
        conclude_in(tx, at, case, Ending::Abandoned, &effects).await?;
        Ok(())
    }

    /// A stuck operation goes on where it stands, in the direction in which it was going.
    async fn unstick(&self, tx: &mut Tx, case: &Case) -> Result<(), StoreError> {
        let now = self.0.parts.clock.now();
        let mut to = OperationStatus::Queued;
        let mut again = Vec::new();
        for row in &case.steps {
            let status = match row.status {
                StepStatus::Failed if to == OperationStatus::Queued => StepStatus::Waiting,
                StepStatus::UndoFailed => {
                    to = OperationStatus::Undoing;
                    StepStatus::Undoing
                }
                _ => continue,
            };
            again.push(StepRow {
                status,
                attempts: 0,
                ..row.clone()
            });
        }
        operation_steps::update(tx, &case.operation.id, &again, now).await?;
        operations::transition(tx, &case.operation.id, &Transition::to(to), now).await
    }

    /// A failed creation has been taken back: it begins anew, with the secrets that it had.
    async fn begin_anew(
        &self,
        tx: &mut Tx,
        case: &Case,
        saga: Option<&'static dyn Saga>,
    ) -> Result<(), DecideError> {
        let now = self.0.parts.clock.now();
        let kept = |name: &str| {
            saga.is_some_and(|saga| saga.steps().iter().any(|step| step.keep && step.name == name))
        };
        let lost = |row: &&StepRow| row.status != StepStatus::Done || !kept(&row.name);
        let again: Vec<StepRow> = case
            .steps
            .iter()
            .filter(lost)
            .map(|row| StepRow {
                status: StepStatus::Waiting,
                attempts: 0,
                output: serde_json::Value::Null,
                error: None,
                ..row.clone()
            })
            .collect();
        operation_steps::update(tx, &case.operation.id, &again, now).await?;
        let anew = Transition::to(OperationStatus::Queued);
        match operations::transition(tx, &case.operation.id, &anew, now).await {
            Err(StoreError::Duplicate(_)) => Err(DecideError::Busy),
            other => Ok(other?),
        }
    }
}

/// A creation that was taken back, of a tenant that nobody has deleted since.
fn failed_creation(case: &Case) -> bool {
    matches!(
        case.operation.status,
        OperationStatus::Failed | OperationStatus::Undone
    ) && case.operation.kind == "create-tenant"
        && case.tenant.status == TenantStatus::Failed
}

/// The operation, with its tenant's row held against every other decision.
async fn locked(tx: &mut Tx, operation: &OperationId) -> Result<Case, StoreError> {
    // In the order in which workers take them: operation, then tenant.
    let tenant = operations::get_locked(tx, operation).await?.tenant_id;
    tenants::get_locked(tx, &tenant).await?;
    Case::load_in(tx, operation).await
}

fn not_now(decision: &'static str, case: &Case) -> DecideError {
    let hint = match (case.operation.status, case.operation.kind.as_str()) {
        (OperationStatus::Stuck, _) => {
            "`systemprompt operation retry` goes on, `systemprompt operation abandon` gives it up"
        }
        (OperationStatus::Failed, "deploy") => "begin a new one: `systemprompt deploy`",
        (OperationStatus::Failed, _) => "begin a new one; this one is taken back",
        _ => "there is nothing left to do for it",
    };
    DecideError::NotNow {
        decision,
        status: word_of(&case.operation.status),
        hint: hint.to_owned(),
    }
}
