//! Loads what a path names, for whoever may see it: transaction, row, authorization in one step.

use crate::api::id::{OperationId, TenantId};
use crate::api::oauth::Scope;
use crate::server::auth::{AuthError, Principal};
use crate::server::http::App;
use crate::server::http::error::{Answer, ApiError};
use crate::server::store::operations::OperationRow;
use crate::server::store::tenants::TenantRow;
use crate::server::store::{Tx, acts, operations, tenants};

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
        let tenant = find_for(&mut tx, caller, id, scope).await?;
        Ok((tx, tenant))
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
        let tenant = find_for(&mut tx, caller, id, scope).await?;
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
        match find_for(&mut tx, caller, &operation.tenant_id, scope).await {
            Ok(_) => Ok((tx, operation)),
            Err(error) if error.status() == axum::http::StatusCode::NOT_FOUND => Err(missing()),
            Err(error) => Err(error),
        }
    }
}

async fn find_for(tx: &mut Tx, caller: &Principal, id: &TenantId, scope: Scope) -> Answer<TenantRow> {
    let tenant = tenants::find(tx, id)
        .await?
        .ok_or_else(|| ApiError::not_found("tenant"))?;
    let allowed = caller.authorize(&tenant.id, &tenant.owner_id, scope);
    // Whoever may not see the tenant has not acted on it.
    if !matches!(allowed, Err(AuthError::NotFound { .. })) {
        acts::on_tenant(&tenant.id, Some("owner"));
    }
    allowed?;
    Ok(tenant)
}
