//! Work that goes no further though no step has failed: what cannot be written down.

use crate::api::operation::OperationError;
use crate::server::provision::context::Case;
use crate::server::provision::deploy::stuck;
use crate::server::provision::saga::Ending;
use crate::server::provision::told::{log_unrecorded, tell};
use crate::server::provision::{Inner, record};
use crate::server::store::StoreError;
use crate::server::store::operations::OperationRow;

/// A store that cannot be reached is waited for: the lease ends by itself and the operation is taken up where its log
/// stands. Anything else would fail in the same way for ever, so people are told.
pub(super) async fn give_up(inner: &Inner, claimed: &OperationRow, error: &StoreError) {
    if matches!(error, StoreError::Statement(_) | StoreError::Open(_)) {
        return;
    }
    if let Err(error) = stick(inner, claimed).await {
        log_unrecorded(claimed, &error);
    }
}

/// An operation whose progress cannot be written, though the store can be: only people can say what is right.
async fn stick(inner: &Inner, claimed: &OperationRow) -> Result<(), StoreError> {
    let case = Case::load(&inner.parts.store, &claimed.id).await?;
    if case.operation.fence != claimed.fence {
        return Ok(());
    }
    stop_stuck(
        inner,
        &case,
        "unrecordable",
        "the server could not write down what was done".to_owned(),
    )
    .await
}

/// Ends a worker's part with an error that no step has.
async fn stop_stuck(inner: &Inner, case: &Case, code: &str, message: String) -> Result<(), StoreError> {
    let mut told = case.clone();
    told.operation.error = Some(OperationError {
        code: code.to_owned(),
        step: String::new(),
        message,
        hint: None,
        log_tail: Vec::new(),
    });
    record::conclude(&inner.parts, case, Ending::Stuck, &stuck(&told)).await?;
    tell(case, Ending::Stuck, inner.parts.clock.now());
    inner.announce(&case.tenant.id);
    Ok(())
}
