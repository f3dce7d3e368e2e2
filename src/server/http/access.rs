//! Loads what a path names, for whoever may see it: transaction, row, authorization in one step. What a member must be
//! is not said here: the table of routes says it, and the layer that lets callers in has read it.

use std::time::Duration;

use crate::api::id::{OperationId, TenantId};
use crate::api::oauth::Scope;
use crate::api::time::Time;
use crate::server::auth::{AuthError, Principal};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::store::operations::OperationRow;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, acts, operations, tenant_life};

/// How often it is looked whether somebody who reads a stream may still do so.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The longest life of a stream, in seconds: its reader comes back, shows a credential again and misses nothing.
pub(super) const STREAM_SECONDS: i64 = 600;

impl App {
    /// A reading transaction and the tenant in it.
    ///
    /// # Errors
    /// The caller may not see the tenant, or lacks the scope.
    pub async fn read_tenant(
        &self,
        caller: &Principal,
        id: &TenantId,
        scope: Scope,
    ) -> Answer<(Tx, TenantRow)> {
        let mut tx = self.store.begin_read().await?;
        let tenant = find_for((&mut tx, self.clock.now()), caller, id, scope).await?;
        Ok((tx, tenant))
    }

    /// The tenant alone, as it stands now.
    ///
    /// # Errors
    /// The caller may not see the tenant, or lacks the scope.
    pub async fn look_at_tenant(&self, caller: &Principal, id: &TenantId, scope: Scope) -> Answer<TenantRow> {
        find_for((&mut self.store.look(), self.clock.now()), caller, id, scope).await
    }

    /// A writing transaction and the tenant in it.
    ///
    /// # Errors
    /// The caller may not see the tenant, or lacks the scope.
    pub async fn write_tenant(
        &self,
        caller: &Principal,
        id: &TenantId,
        scope: Scope,
    ) -> Answer<(Tx, TenantRow)> {
        let mut tx = self.store.begin().await?;
        let tenant = find_for((&mut tx, self.clock.now()), caller, id, scope).await?;
        Ok((tx, tenant))
    }

    /// An operation and its tenant; whoever may not see the tenant is told that there is no such operation.
    ///
    /// # Errors
    /// The caller may not see the tenant, or lacks the scope.
    pub async fn read_operation(
        &self,
        caller: &Principal,
        id: &OperationId,
        scope: Scope,
    ) -> Answer<(Tx, OperationRow)> {
        let mut tx = self.store.begin_read().await?;
        let missing = || ApiError::not_found("operation");
        let operation = operations::find(&mut tx, id).await?.ok_or_else(missing)?;
        match find_for((&mut tx, self.clock.now()), caller, &operation.tenant_id, scope).await {
            Ok(_) => Ok((tx, operation)),
            Err(error) if error.status() == axum::http::StatusCode::NOT_FOUND => Err(missing()),
            Err(error) => Err(error),
        }
    }

    /// Waits until somebody who reads a stream of the tenant has to stop: they are no member any more, the door by which
    /// they came in was closed, their credential ends or was ended, or they have read for long and must show it again.
    pub async fn until_shut_out(self, caller: Principal, id: TenantId) {
        let ends = caller
            .expires_at
            .min(self.clock.now().plus_seconds(STREAM_SECONDS));
        loop {
            let left = ends.seconds_since(self.clock.now());
            if left <= 0 {
                return;
            }
            let left = Duration::from_secs(u64::try_from(left).unwrap_or(1));
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            if self.is_shut_out(&caller, &id).await {
                return;
            }
        }
    }

    /// Whether somebody who reads a stream of the tenant has to stop. A database that is away for a moment shuts nobody out.
    pub(super) async fn is_shut_out(&self, caller: &Principal, id: &TenantId) -> bool {
        if matches!(self.auth.lasts(&caller.credential).await, Ok(false)) {
            return true;
        }
        let seen = self.look_at_tenant(caller, id, Scope::Read).await;
        seen.is_err_and(|error| error.status().is_client_error())
    }
}

async fn find_for(
    (tx, now): (&mut Tx, Time),
    caller: &Principal,
    id: &TenantId,
    scope: Scope,
) -> Answer<TenantRow> {
    let (tenant, role) = tenant_life::find_for(tx, id, &caller.account_id)
        .await?
        .ok_or_else(|| ApiError::not_found("tenant"))?;
    let standing = caller.standing_of(tx, (&tenant.id, role), now).await?;
    let allowed = caller.authorize(&tenant.id, standing.as_ref(), scope);
    // Whoever may not see the tenant has not acted on it.
    if let Some(standing) = standing.filter(|_| !matches!(allowed, Err(AuthError::NotFound { .. }))) {
        acts::on_tenant(&tenant.id, Some(&standing.told()));
        if standing.grant.is_some() {
            // Whatever support does is on record, also what only reads.
            acts::keep();
        }
    }
    allowed?;
    Ok(tenant)
}
