//! The reconciler on demand.

use reqwest::Method;

use crate::api::drift::{ReconcileReport, ReconcileRequest};
use crate::client::Client;
use crate::client::error::ClientError;
use crate::client::send::Call;

impl Client {
    /// Compares the ledger of every tenant with what the provider has; mends unless `dry_run`.
    pub async fn reconcile(&self, dry_run: bool) -> Result<ReconcileReport, ClientError> {
        let call = Call::change(Method::POST, "/api/v1/reconcile").json(&ReconcileRequest { dry_run })?;
        self.call(call).await
    }
}
