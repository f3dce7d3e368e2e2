//! The two decisions that people take about an operation: `retry` and `abandon`. No open state is without both.

use crate::api::id::OperationId;
use crate::api::operation::OperationStatus;
use crate::api::tenant::TenantStatus;
use crate::server::provision::context::Case;
use crate::server::provision::saga::{Ending, Saga, saga_of};
use crate::server::provision::{Provision, record};
use crate::server::store::operation_steps::{StepRow, StepStatus};
use crate::server::store::operations::Transition;
use crate::server::store::row::word_of;
use crate::server::store::{
    StoreError, Tx, operation_leases, operation_steps, operations, tenant_life, tenants,
};

/// Why a decision cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The operation is in a state in which there is nothing to decide.
    #[error("failed to {decision} the operation: it is `{status}`")]
    NotNow {
        /// `retry` or `abandon`.
        decision: &'static str,
        /// How it stands.
        status: String,
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

impl Provision {
    /// Runs an operation again that waits, is stuck, or failed to create its tenant.
    ///
    /// # Errors
    /// There is nothing to retry, or the store fails.
    pub async fn retry(&self, operation: &OperationId) -> Result<OperationStatus, DecideError> {
        let mut tx = self.0.parts.store.begin().await?;
        let case = locked(&mut tx, operation).await?;
        let status = case.operation.status;
        let saga = saga_of(&case.operation.kind);
        match status {
            OperationStatus::Queued | OperationStatus::Running | OperationStatus::Undoing => {
                operation_leases::hasten(&mut tx, operation, self.0.parts.clock.now()).await?;
            }
            OperationStatus::Stuck => self.unstick(&mut tx, &case).await?,
            OperationStatus::Failed if failed_creation(&case) => {
                self.begin_anew(&mut tx, &case, saga).await?;
            }
            _ => return Err(not_now("retry", &case)),
        }
        let now = operations::get(&mut tx, operation).await?.status;
        tx.commit().await?;
        self.wake();
        Ok(now)
    }

    /// Gives an operation up that is not finished, or failed to create its tenant. What it left is in the ledger.
    ///
    /// # Errors
    /// There is nothing to abandon, or the store fails.
    pub async fn abandon(&self, operation: &OperationId) -> Result<OperationStatus, DecideError> {
        let parts = &self.0.parts;
        let mut tx = parts.store.begin().await?;
        let case = locked(&mut tx, operation).await?;
        let status = case.operation.status;
        if status.is_terminal() && !failed_creation(&case) {
            return Err(not_now("abandon", &case));
        }
        let mut effects = match saga_of(&case.operation.kind) {
            Some(saga) => saga.conclude(Ending::Abandoned, parts, &case),
            None => crate::server::provision::deploy::abandoned(&case),
        };
        // Giving up must always be possible, whatever state the tenant is in.
        effects.status = effects
            .status
            .filter(|to| tenant_life::may_become(case.tenant.status, *to));
        let at = (&parts.clock, parts.clock.now());
        record::conclude_in(&mut tx, at, &case, Ending::Abandoned, &effects).await?;
        tx.commit().await?;
        self.announce(&case.tenant.id);
        self.wake();
        Ok(OperationStatus::Abandoned)
    }

    /// A stuck operation goes on where it stands, in the direction in which it was going.
    async fn unstick(&self, tx: &mut Tx, case: &Case) -> Result<(), StoreError> {
        let now = self.0.parts.clock.now();
        let mut to = OperationStatus::Queued;
        for row in &case.steps {
            let status = match row.status {
                StepStatus::Failed if to == OperationStatus::Queued => StepStatus::Waiting,
                StepStatus::UndoFailed => {
                    to = OperationStatus::Undoing;
                    StepStatus::Undoing
                }
                _ => continue,
            };
            let again = StepRow {
                status,
                attempts: 0,
                ..row.clone()
            };
            operation_steps::update(tx, &case.operation.id, &again, now).await?;
        }
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
        for row in &case.steps {
            if row.status == StepStatus::Done && kept(&row.name) {
                continue;
            }
            let again = StepRow {
                status: StepStatus::Waiting,
                attempts: 0,
                output: serde_json::Value::Null,
                error: None,
                ..row.clone()
            };
            operation_steps::update(tx, &case.operation.id, &again, now).await?;
        }
        let anew = Transition::to(OperationStatus::Queued);
        match operations::transition(tx, &case.operation.id, &anew, now).await {
            Err(StoreError::Duplicate(_)) => Err(DecideError::Busy),
            other => Ok(other?),
        }
    }
}

/// A creation that was taken back, of a tenant that nobody has deleted since.
fn failed_creation(case: &Case) -> bool {
    case.operation.status == OperationStatus::Failed
        && case.operation.kind == "create-tenant"
        && case.tenant.status == TenantStatus::Failed
}

/// The operation, with its tenant's row held against every other decision.
async fn locked(tx: &mut Tx, operation: &OperationId) -> Result<Case, StoreError> {
    // In the order in which workers take them: operation, then tenant.
    let tenant = operations::get_locked(tx, operation).await?.tenant_id;
    tenants::get_locked(tx, &tenant).await?;
    record::load_in(tx, operation).await
}

fn not_now(decision: &'static str, case: &Case) -> DecideError {
    let hint = match (case.operation.status, case.operation.kind.as_str()) {
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
